"""Which lines of the solutions a student must not see, and where in a folder one of them stands.

A line of a solution is secret unless the reader has it anyway: it stands in the stub of its own exercise, it holds no
name and no number (`else:`, `)`), it is a line of code of another chapter, or an idiom of its own: found in two cells
or more. A line with a single name is too common to be searched for in prose: it counts as a whole line of code.
"""

from __future__ import annotations

import html
import io
import json
import keyword
import re
import tokenize
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from book_tools.project import Notebook, tags, without_magics

WORD = re.compile(r"\d[\w.]*|[^\W\d]\w*")
IDIOM_CELLS = 2
TELLING_WORDS = 2
TELLING_COMMENT = 4


@dataclass(frozen=True)
class Secret:
    """A line of a solution that must not be in the student build."""

    line: str
    exercise: str

    @cached_property
    def telling(self) -> bool:
        """Whether the line says enough to be looked for anywhere, not only as a whole line of code."""
        return len(words(self.line)) >= TELLING_WORDS

    @cached_property
    def pattern(self) -> re.Pattern:
        """What finds the line inside a text of which every run of spaces is one space."""
        return re.compile(rf"(?<![\w.]){re.escape(self.line)}(?![\w])")


@dataclass(frozen=True)
class Leak:
    """A secret line and the place where it stands."""

    secret: Secret
    where: str

    def __str__(self) -> str:
        return f"{self.where} holds a line of the solution of exercise {self.secret.exercise}: {self.secret.line!r}"


def normalise(text: str) -> str:
    """Return a text with every run of white space as one space."""
    return " ".join(text.split())


def words(line: str) -> list[str]:
    """Return the names and numbers of a line of code; keywords say nothing."""
    return [word for word in WORD.findall(line) if not keyword.iskeyword(word)]


def secrets_of_all(notebooks: list[Notebook]) -> list[Secret]:
    """Return the secret lines of several chapters; a line that another chapter teaches is no secret."""
    taught = [{line for lines in teaching_lines(notebook) for line in lines} for notebook in notebooks]
    return [
        secret
        for place, notebook in enumerate(notebooks)
        for secret in secrets_of(notebook)
        if not any(secret.line in lines for other, lines in enumerate(taught) if other != place)
    ]


def teaching_lines(notebook: Notebook) -> list[set[str]]:
    """Return the lines of each code cell that is no solution."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code" and "solution" not in tags(cell))
    return [set(lines_of(cell.source)) for cell in cells]


def secrets_of(notebook: Notebook) -> list[Secret]:
    """Return the secret lines of every solution of a notebook, each once per exercise."""
    cells_with = Counter(line for lines in teaching_lines(notebook) for line in lines)
    found: dict[Secret, None] = {}
    stub = ""
    for cell in notebook.cells:
        if "exercise" in tags(cell):
            stub = normalise(cell.source)
        if "solution" in tags(cell):
            exercise = _exercise_of(cell.source)
            for line in lines_of(cell.source):
                idiom = cells_with[line] >= (IDIOM_CELLS if len(words(line)) >= TELLING_WORDS else 1)
                secret = Secret(line, exercise)
                if words(line) and not idiom and not secret.pattern.search(stub):
                    found[secret] = None
    return list(found)


def lines_of(source: str) -> Iterator[str]:
    """Yield the lines of a cell, each as one space wide; a line that ends in a comment also yields both its parts."""
    for line in source.splitlines():
        if line.strip():
            yield normalise(line)
    yield from _comments(source)


def _comments(source: str) -> Iterator[str]:
    """Yield the telling comments of a cell without their mark, and the code that stands before them."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(without_magics(source)).readline))
    except (tokenize.TokenError, SyntaxError):
        return
    for token in tokens:
        if token.type == tokenize.COMMENT and not token.string.startswith("# @title"):
            text = normalise(token.string.lstrip("#"))
            if len(text.split()) >= TELLING_COMMENT:
                yield text
            before = normalise(token.line[: token.start[1]])
            if before:
                yield before


def _exercise_of(source: str) -> str:
    title = re.search(r"Solution (\S+)", source)
    return title[1] if title else "?"


def leaks_in(folder: Path, secrets: Iterable[Secret]) -> Iterator[Leak]:
    """Yield every secret line that stands in a file below `folder`, inside archives and notebooks too."""
    secrets = list(secrets)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield from leaks_in_file(path.relative_to(folder).as_posix(), path.read_bytes(), secrets)


def leaks_in_file(name: str, content: bytes, secrets: list[Secret]) -> Iterator[Leak]:
    """Yield every secret line in the content of one file: an archive, a notebook, or a text."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from leaks_in_file(f"{name}: {member}", archive.read(member), secrets)
    elif name.endswith(".ipynb"):
        for place, text, is_code in _notebook_texts(json.loads(content)):
            yield from leaks_in_text(f"{name}, {place}", text, secrets, is_code)
    else:
        text = content.decode("utf-8", errors="replace")
        yield from leaks_in_text(name, text, secrets, name.endswith(".py"))


def leaks_in_text(where: str, text: str, secrets: Iterable[Secret], is_code: bool) -> Iterator[Leak]:
    """Yield every secret line in a text; in HTML as well as in plain text."""
    plain = html.unescape(text)
    flat = normalise(f"{text}\n{plain}" if plain != text else text)
    lines = set(lines_of(text)) if is_code else set()
    for secret in secrets:
        if secret.line in lines or (secret.telling and secret.line in flat and secret.pattern.search(flat)):
            yield Leak(secret, where)


def _notebook_texts(node: dict) -> Iterator[tuple[str, str, bool]]:
    """Yield (place, text, whether it is code) for everything that a notebook holds, keys and metadata too."""
    for text in _strings({key: value for key, value in node.items() if key != "cells"}):
        yield "the metadata", text, False
    for cell in node.get("cells", []):
        name = f"cell {cell.get('id', '?')}"
        yield name, _joined(cell.get("source", "")), cell.get("cell_type") == "code"
        for part in ("outputs", "metadata", "attachments"):
            for text in _strings(cell.get(part, {})):
                yield f"{name}, {part}", text, False


def _strings(value: object) -> Iterator[str]:
    """Yield every text in a JSON value; a list of texts is the lines of one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield _joined(value)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _joined(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
