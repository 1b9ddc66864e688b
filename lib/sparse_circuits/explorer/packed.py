"""Script and data of a page as one deflated text, which the page inflates itself."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files

SCRIPTS = ("forward.js", "text.js", "heads.js", "node.js", "explorer.js", "mount.js")


def script_text(data: str, scripts: Sequence[str] | None = None) -> str:
    """Return what the page inflates: the data, JSON in one line, and after it the code."""
    return "\n".join([data, *(line for name in scripts or SCRIPTS for line in read_lines(name))])


def packed_script(identifier: str, text: str) -> str:
    """Return the two script elements of an explorer: the deflated text, and what inflates and runs it.

    Parameters
    ----------
    identifier : str
        Name of the explorer in the page.
    text : str
        See `script_text`.
    """
    # A notebook holds the page as JSON, where each line and each quotation mark of plain code costs several bytes.
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")
    opener = "\n".join(read_lines("open.js")).replace("IDENTIFIER", identifier)
    return (
        f'<script type="text/plain" class="scx-packed">{packed}</script>\n'
        f"<script>\n(() => {{\n{opener}\n}})();\n</script>"
    )


def read_lines(name: str) -> list[str]:
    """Return the lines of a style sheet or script of this package without comments and indentation."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    lines = (line.strip() for line in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).splitlines())
    return [line for line in lines if line and not line.startswith("//")]
