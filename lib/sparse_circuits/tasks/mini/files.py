"""Statements of mini-Python that write and read text files."""

from __future__ import annotations

from ..draw import pool
from .blocks import free_name, indented
from .expressions import formatted
from .literals import phrase, quotes, text
from .pieces import Piece, bracket, code, header, line, literal, separated, string
from .scope import Expression, Scope
from .statements import Statement, assign, joined, run_all

FILE_NAMES = pool("data notes log report names config table")
HANDLES = pool("f file handle fp stream")


def write_file(scope: Scope) -> list[Statement]:
    """Return a file written and, most times, read back."""
    draw = scope.draw
    stem, quote, handle = (
        draw.pick(("output", "out", "result", *FILE_NAMES)),
        quotes(draw)[0],
        free_name(scope, HANDLES),
    )
    file_name = f"{stem}.txt"
    content = [formatted(scope) if draw.chance(0.4) else written(scope) for _ in range(draw.between(1, 2))]
    opening = opened(quote, file_name, "w")
    plain = draw.chance(0.25)
    level = scope.level + (not plain)
    writes = [line(level, [*code(f"{handle}.write"), *bracket("(", part.pieces)]) for part in content]
    bind = scope.bind(handle, "file")

    def run(names: dict) -> None:
        names[handle] = file_name
        scope.files[file_name] = "".join(part.value(names) for part in content)

    if plain:
        parts = [
            line(scope.level, [*code(f"{handle} = "), *opening], [bind]),
            *writes,
            line(scope.level, [*code(f"{handle}.close"), *bracket("(", [])]),
        ]
    else:
        parts = [header(scope.level, [*code("with "), *opening, *code(f" as {handle}")], [bind]), *writes]
    made = [Statement([piece for part in parts for piece in part], run)]
    return [*made, *read_file(scope, file_name)] if draw.chance(0.6) else made


def written(scope: Scope) -> Expression:
    """Return a string literal that is not empty, so that reading it back by lines gives at least one."""
    made = text(scope.draw)
    while not made.value({}):
        made = text(scope.draw)
    return made


def read_input(scope: Scope) -> list[Statement]:
    """Return an input file read; its text is a part of the program's `files`."""
    draw = scope.draw
    file_name = f"{draw.pick(('input', 'source', *FILE_NAMES))}.txt"
    if file_name not in scope.files:
        scope.files[file_name] = "\n".join(phrase(draw, 2) for _ in range(draw.between(1, 3)))
        scope.inputs[file_name] = scope.files[file_name]
    return read_file(scope, file_name)


def read_file(scope: Scope, file_name: str) -> list[Statement]:
    """Return the statements that read a file whole or by lines."""
    draw = scope.draw
    handle = free_name(scope, HANDLES)
    mode = "r" if draw.chance(0.7) else ""
    bind = scope.bind(handle, "file")
    by_lines = draw.chance(0.4)
    kind = "list[str]" if by_lines else "str"
    name = scope.fresh(kind)
    method = "readlines" if by_lines else "read"
    value = Expression(
        [*code(f"{handle}.{method}"), *bracket("(", [])],
        kind,
        lambda names: scope.files[file_name].splitlines(keepends=True) if by_lines else scope.files[file_name],
    )
    heading = [*code("with "), *opened(quotes(draw)[0], file_name, mode), *code(f" as {handle}")]
    level = scope.level
    block = indented(scope, lambda: [assign(scope, name, value)])

    def run(names: dict) -> None:
        names[handle] = file_name
        run_all(block, names)

    return [Statement([*header(level, heading, [bind]), *joined(block)], run)]


def opened(quote: str, file_name: str, mode: str) -> list[Piece]:
    """Return `open("name", "mode")`."""
    arguments = [string(quote, literal(part)) for part in (file_name, mode) if part]
    return [*code("open"), *bracket("(", separated(arguments))]
