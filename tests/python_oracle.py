"""What Python itself says about a program: its tokens, its scopes while it runs, its values and its output."""

from __future__ import annotations

import builtins
import io
import sys
import tokenize

from sparse_circuits.tasks.draw import pool

SAFE = pool(
    "abs bool dict enumerate float int isinstance len list map max min print range repr reversed round set "
    "sorted str sum tuple type zip True False None ValueError TypeError KeyError __build_class__ "
)
LEVELS = {tokenize.INDENT: 1, tokenize.DEDENT: -1}
SILENT = {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.NL, tokenize.COMMENT}


class file:
    """An open text file in memory, named so that `type(f).__name__` says what it is."""

    def __init__(self, files: dict[str, str], name: str, mode: str) -> None:
        self.files, self.name = files, name
        if mode == "w":
            files[name] = ""
        self.rest = io.StringIO(files[name])

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def __iter__(self):
        return iter(self.rest)

    def write(self, text: str) -> None:
        self.files[self.name] += text

    def read(self) -> str:
        return self.rest.read()

    def readlines(self) -> list[str]:
        return self.rest.readlines()

    def close(self) -> None:
        pass


def execute(text: str, files=(), given=None, trace=None) -> tuple[dict, str]:
    """Run a program in a namespace of a few builtins and files in memory; return its variables and its output."""
    texts, printed = dict(files), []
    safe = {name: getattr(builtins, name) for name in SAFE if hasattr(builtins, name)}
    safe["open"] = lambda name, mode="r": file(texts, name, mode)
    safe["print"] = lambda *values: printed.append(" ".join(map(str, values)) + "\n")
    namespace = {"__builtins__": safe, "__name__": "program", **(given or {})}
    compiled = compile(text, "program", "exec")
    before = sys.gettrace()
    if trace is not None:
        sys.settrace(trace)
    try:
        exec(compiled, namespace)
    finally:
        sys.settrace(before)
    return {name: value for name, value in namespace.items() if not name.startswith("__")}, "".join(printed)


def scopes_at_lines(text: str, files=()) -> dict[int, dict[str, str]]:
    """Return, for each line, the type of each bound name in its scope when the line first ran."""
    seen: dict[int, dict[str, str]] = {}

    def trace(frame, event, _):
        if frame.f_code.co_filename != "program" or frame.f_code.co_name in ("<lambda>", "<listcomp>", "<dictcomp>"):
            return None
        if event == "line" and frame.f_lineno not in seen:
            names = {name: type(value).__name__ for name, value in frame.f_locals.items() if not name.startswith("__")}
            seen[frame.f_lineno] = names
        return trace

    execute(text, files, trace=trace)
    return seen


def line_starts(text: str) -> list[int]:
    """Return the offset at which each line of the text starts."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def tokens(text: str):
    """Yield Python's own tokens as (type, text, start offset, end offset)."""
    starts = line_starts(text)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (row, column), (last_row, last_column) = token.start, token.end
        if token.type == tokenize.ENDMARKER:
            return
        yield token.type, token.string, starts[row - 1] + column, starts[last_row - 1] + last_column


def scan(text: str) -> tuple[list[str], list[int], list[str], list[int | None]]:
    """Return open quote, bracket depth, innermost bracket and indentation after each character, by `tokenize`.

    The indentation is None where Python's tokenizer has no say: blank lines, comments, spaces between tokens.
    """
    n = len(text)
    quote, stack, indent = [""] * n, [()] * n, [None] * n
    changes: dict[int, tuple[str, ...]] = {}
    open_brackets: tuple[str, ...] = ()
    level = 0
    fstrings: list[tuple[str, int]] = []
    for kind, string, start, end in tokens(text):
        level += LEVELS.get(kind, 0)
        if kind not in SILENT:
            indent[start:end] = [level] * (end - start)
        if kind == tokenize.STRING:
            scan_string(string, start, quote, changes, open_brackets)
        elif tokenize.tok_name[kind] == "FSTRING_START":
            fstrings.append((string.lstrip("fFrR"), start + len(string) - len(string.lstrip("fFrR"))))
        elif tokenize.tok_name[kind] == "FSTRING_END":
            delimiter, opened = fstrings.pop()
            quote[opened : end - 1] = [old or delimiter for old in quote[opened : end - 1]]
        elif kind == tokenize.OP and string in "([{":
            open_brackets = (*open_brackets, string)
            changes[start] = open_brackets
        elif kind == tokenize.OP and string in ")]}":
            open_brackets = open_brackets[:-1]
            changes[start] = open_brackets
    now: tuple[str, ...] = ()
    for i in range(n):
        now = changes.get(i, now)
        stack[i] = now
    return quote, [len(s) for s in stack], [s[-1] if s else "" for s in stack], indent


def scan_string(string: str, start: int, quote: list[str], changes: dict, open_brackets: tuple[str, ...]) -> None:
    """Mark one string token; in an f-string of Python 3.11, scan the replacement fields as programs of their own."""
    bare = string.lstrip("fFrRbBuU")
    formatted = "f" in string[: len(string) - len(bare)].lower()
    opened = start + len(string) - len(bare)
    delimiter = bare[:3] if bare[:3] in ('"""', "'''") else bare[0]
    end = start + len(string)
    quote[opened : end - 1] = [delimiter] * (end - 1 - opened)
    at = opened + len(delimiter)
    while formatted and "{" in string[at - start :]:
        at = start + string.index("{", at - start)
        close = start + string.index("}", at - start)
        inner_quote, depths, kinds, _ = scan(string[at - start + 1 : close - start] + "\n")
        changes[at] = (*open_brackets, "{")
        for i, (depth, kind) in enumerate(zip(depths, kinds, strict=True)):
            changes[at + 1 + i] = (*open_brackets, "{", *["?"] * (depth - 1), *([kind] if depth else []))
        for i, inside in enumerate(inner_quote[:-1]):
            quote[at + 1 + i] = inside or delimiter
        changes[close] = open_brackets
        at = close + 1
