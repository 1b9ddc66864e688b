"""Read the commands that a page or a workflow tells somebody to run, and say what is wrong with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from book_tools.project import ROOT

FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<code>.*?)^ *```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
PYTHON = re.compile(r"(?:.*/)?python3?")
SHELL = ("", "bash", "sh", "console")
RUNNERS = ("pytest", "uv", "pip", "venv", "jupyterlab", "jupyter", "http.server")


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split())


def commands_in(page: str) -> Iterator[str]:
    """Yield the commands of this project in a Markdown page: blocks of code, and code in a sentence."""
    blocks = [match["code"] for match in FENCE.finditer(page) if match["language"] in SHELL]
    rest = FENCE.sub("", page)
    blocks += INDENTED.findall(rest)
    lines = [line for block in blocks for line in block.splitlines()] + INLINE.findall(rest)
    yield from (line.strip() for line in lines if re.match(r"\s*(\S*/)?(make|python3?)\s", line))


def faults(command: str, written: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield what is wrong with one command line of the project; `written` are files that another command writes."""
    line = re.split(r"\s#|2>&1|\||>>", command)[0]
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if not words:
        return
    if words[0] == "make":
        named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        yield from (f"{command!r}: the Makefile has no target {name!r}" for name in named if name not in targets())
    elif PYTHON.fullmatch(words[0]) and words[1:2] == ["-m"]:
        yield from _faults_of_module(command, words[2], words[3:], written)
    elif words[0].startswith((".ci/", "./")) and not (ROOT / words[0]).is_file():
        yield f"{command!r}: there is no {words[0]}"


def _faults_of_module(command: str, module: str, arguments: list[str], written: frozenset[str]) -> Iterator[str]:
    if module.startswith("book_tools."):
        spec = find_spec(module)
        if spec is None:
            yield f"{command!r}: there is no module {module}"
            return
        source = Path(spec.origin).read_text()
        flags = [word for word in arguments if word.startswith("--")]
        yield from (f"{command!r}: {module} has no option {flag}" for flag in flags if f'"{flag}"' not in source)
    elif module == "pytest":
        files = [word for word in arguments if word.endswith(".py") or word.endswith("/")]
        yield from (
            f"{command!r}: there is no {file}" for file in files if not (ROOT / file).exists() and file not in written
        )
    elif module not in RUNNERS:
        yield f"{command!r}: {module} is none of the modules that this project runs"
