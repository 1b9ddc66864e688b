"""Program text in pieces that know what they do: open a bracket, close a quote, begin a line, bind a name.

The generator of mini-Python writes pieces; `Truth` reads the state after every character off them, without parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

CLOSER = {"(": ")", "[": "]", "{": "}"}
INDENT = "    "
MARKS = frozenset("()[]{}\"'#\n")


class Piece(NamedTuple):
    """A stretch of text and the event that it brings about.

    `event` is one of "text" (none), "open", "close" (a bracket), "quote", "unquote" (a string delimiter), "line" (a
    statement begins; `detail` is its indentation level), "bind" (`detail` is the name and its type), "unbind" (the
    name, where a branch not taken had bound it), "enter" and "leave" (the body of a function or class; `detail` is
    what is bound at its start).
    """

    text: str
    event: str = "text"
    detail: object = None


def code(text: str) -> list[Piece]:
    """Return `text` as a piece without an event; it must hold no quote, bracket, comment or newline.

    Raises
    ------
    ValueError
        If `text` holds one of them, which would make the truth wrong.
    """
    if not MARKS.isdisjoint(text):
        raise ValueError(f"{text!r} holds a quote, bracket, comment or newline; build it with bracket() or string().")
    return [Piece(text)]


def literal(text: str) -> list[Piece]:
    """Return text inside a string or comment, where quotes and brackets mean nothing."""
    return [Piece(text)]


def bracket(opener: str, inside: Sequence[Piece]) -> list[Piece]:
    """Return `inside` between `opener`, one of `( [ {`, and the bracket that closes it."""
    return [Piece(opener, "open"), *inside, Piece(CLOSER[opener], "close")]


def string(quote: str, inside: Sequence[Piece], prefix: str = "") -> list[Piece]:
    """Return `inside` between two `quote` delimiters."""
    return [*code(prefix), Piece(quote, "quote"), *inside, Piece(quote, "unquote")]


def separated(parts: Iterable[Sequence[Piece]], separator: str = ", ") -> list[Piece]:
    """Return the parts joined by `separator`."""
    joined: list[Piece] = []
    for i, part in enumerate(parts):
        if i:
            joined += code(separator)
        joined += part
    return joined


def line(level: int, inside: Sequence[Piece], binds: Iterable[tuple[str, str]] = ()) -> list[Piece]:
    """Return a one-line statement; its names are bound at the newline that ends it."""
    return [
        Piece(INDENT * level, "line", level),
        *inside,
        *(Piece("", "bind", bind) for bind in binds),
        Piece("\n"),
    ]


def header(level: int, inside: Sequence[Piece], binds: Iterable[tuple[str, str]] = ()) -> list[Piece]:
    """Return the line that opens a block; its names are bound at the colon."""
    return [Piece(INDENT * level, "line", level), *inside, *(Piece("", "bind", bind) for bind in binds), Piece(":\n")]


def scoped(level: int, inside: Sequence[Piece], bound: Mapping[str, str], body: Sequence[Piece]) -> list[Piece]:
    """Return a header and the body of a function or class; its own scope starts at the colon with the names `bound`."""
    opening = [Piece(INDENT * level, "line", level), *inside, Piece("", "enter", dict(bound)), Piece(":\n")]
    return [*opening, *body, Piece("", "leave")]


def text_of(pieces: Iterable[Piece]) -> str:
    """Return the text of the pieces."""
    return "".join([piece.text for piece in pieces])


@dataclass(frozen=True)
class Truth:
    """What holds after each position of a program has been read; a position is a character or a token.

    Attributes
    ----------
    quote : numpy.ndarray of str, shape (pos,)
        The delimiter of the innermost open string (`'`, `"` or three of them), empty outside strings. All characters
        of an opening delimiter carry it; the last character of the closing one does not.
    depth : numpy.ndarray of int, shape (pos,)
        Number of open brackets of any kind. Brackets in string text and comments do not count; the braces of an
        f-string's replacement fields do, and the string stays open around them.
    bracket : numpy.ndarray of str, shape (pos,)
        The innermost open bracket, `(`, `[` or `{`, empty at depth 0.
    indent : numpy.ndarray of int, shape (pos,)
        Indentation level of the statement that the position belongs to, its leading spaces and its last newline
        included. Blank lines and comments carry the level of the statement before.
    bound : tuple of mapping str to str, length pos
        The names bound in the current scope, each with the name of its type. A statement binds at its newline, a
        block's header at its colon. A function or class has a scope of its own from its colon to its last newline: a
        function's parameters and local names, a class's methods.
    """

    quote: np.ndarray
    depth: np.ndarray
    bracket: np.ndarray
    indent: np.ndarray
    bound: tuple[Mapping[str, str], ...]

    def __len__(self) -> int:
        return len(self.bound)

    def at(self, positions: Sequence[int]) -> Truth:
        """Return the truth at the chosen positions only."""
        index = np.asarray(positions, dtype=np.int64)
        arrays = (self.quote, self.depth, self.bracket, self.indent)
        return Truth(*(array[index] for array in arrays), tuple(self.bound[i] for i in index))


def truth_of(pieces: Iterable[Piece]) -> Truth:
    """Return the state after every character of the pieces' text."""
    quote: list[str] = []
    depth: list[int] = []
    kind: list[str] = []
    indent: list[int] = []
    bound: list[Mapping[str, str]] = []
    quotes, brackets, level = [""], [""], 0
    names: Mapping[str, str] = MappingProxyType({})
    outer: list[Mapping[str, str]] = []
    for text, event, detail in pieces:
        if event == "open":
            brackets.append(text)
        elif event == "close":
            brackets.pop()
        elif event == "quote":
            quotes.append(text)
        elif event == "line":
            level = detail
        elif event == "bind":
            names = MappingProxyType({**names, detail[0]: detail[1]})
        elif event == "unbind":
            names = MappingProxyType({name: kind for name, kind in names.items() if name != detail})
        elif event == "enter":
            outer.append(names)
            names = MappingProxyType(detail)
        elif event == "leave":
            names = outer.pop()
        n = len(text)
        quote += [quotes[-1]] * n
        if event == "unquote":
            quotes.pop()
            quote[-1] = quotes[-1]
        depth += [len(brackets) - 1] * n
        kind += [brackets[-1]] * n
        indent += [level] * n
        bound += [names] * n
    return Truth(
        np.array(quote, dtype="<U3"),
        np.array(depth, dtype=np.int64),
        np.array(kind, dtype="<U1"),
        np.array(indent, dtype=np.int64),
        tuple(bound),
    )
