"""Rules for notebooks and prose; each is one small function that yields findings."""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """What a rule has to say.

    Parameters
    ----------
    file : str
        Name of the file.
    where : str
        Id of the cell, or `line N`.
    message : str
        What is wrong, with the offending value.
    remedy : str
        What to do.
    """

    file: str
    where: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}, {self.where}: {self.message}; {self.remedy}"


def without_code(source: str) -> str:
    """Return markdown with code blanked out; every other character keeps its place."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return INLINE_CODE.sub(blank, FENCE.sub(blank, source))


def line_of(source: str, position: int) -> str:
    """Return where a position of a text stands, as `line N`."""
    return f"line {source.count(chr(10), 0, position) + 1}"
