"""Literals, displays, names and plain calls of mini-Python: the parts that need no choice of what is in scope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..draw import Draw, pool
from .pieces import INDENT, Piece, bracket, code, literal, separated, string
from .scope import Expression

WORDS = pool(
    "apple bird cat dog ear fish green hello ice jam king lamp moon name open pear queen red sun tree up "
    "very water box yes zero error file line value start end left right first last new old user list data "
    "node path key ok ready done world blue cold day east fire gold home ink juice kite"
)


def variable(name: str, kind: str) -> Expression:
    """Return the expression that reads a variable."""
    return Expression(code(name), kind, lambda names: names[name])


def constant(value: int | bool) -> Expression:
    """Return an integer or truth value as written."""
    return Expression(code(str(value)), type(value).__name__, lambda names: value)


def number(draw: Draw, high: int = 9) -> Expression:
    """Return an integer literal, mostly of one digit."""
    return constant(draw.between(0, high) if draw.chance(0.8) else draw.between(10, 120))


def quotes(draw: Draw) -> tuple[str, str]:
    """Return a quote and the other one."""
    return ("'", '"') if draw.chance(0.5) else ('"', "'")


def phrase(draw: Draw, longest: int = 3) -> str:
    """Return one to `longest` words."""
    return " ".join(draw.pick(WORDS) for _ in range(draw.between(1, longest)))


def text(draw: Draw, longest: int = 3) -> Expression:
    """Return a string literal; some hold brackets, the other quote or an escape, which mean nothing to Python."""
    quote, other = quotes(draw)
    value = phrase(draw, longest)
    choice = draw.below(24)
    if choice == 0:
        opener = draw.pick("([{")
        value = f"{opener}{value}"
    elif choice == 1:
        value = f"{value}{draw.pick(')]}')}"
    elif choice == 2:
        value = f"{value}{other}s"
    elif choice == 3:
        value = f"{other}{value}{other}"
    elif choice in (4, 5):
        value = f"{value}{draw.pick(':!?.-')}"
    elif choice == 6:
        return Expression(string(quote, literal(value + "\\n")), "str", lambda names: value + "\n")
    elif choice == 7:
        return Expression(string(quote, literal(value), prefix="r"), "str", lambda names: value)
    elif choice == 8:
        value = ""
    return Expression(string(quote, literal(value)), "str", lambda names: value)


def call(name: str, arguments: Sequence[Expression], kind: str, work: Callable) -> Expression:
    """Return `name(arguments)`, whose value is `work` of the arguments' values."""
    pieces = [*code(name), *bracket("(", separated(argument.pieces for argument in arguments))]
    return Expression(pieces, kind, lambda names: work(*(argument.value(names) for argument in arguments)))


def display(opener: str, items: Sequence[Expression], kind: str, level: int = 0, tall: bool = False) -> Expression:
    """Return a list or set of the items; a tall one has a line for each."""
    build = set if opener == "{" else list
    return Expression(
        bracket(opener, _rows([item.pieces for item in items], level, tall)),
        kind,
        lambda names: build(item.value(names) for item in items),
    )


def dictionary(
    keys: tuple[str, ...], items: Sequence[Expression], quote: str, kind: str, level: int, tall: bool
) -> Expression:
    """Return a dict display with literal keys."""
    entries = list(zip(keys, items, strict=True))
    rows = [[*string(quote, literal(key)), *code(": "), *item.pieces] for key, item in entries]
    return Expression(
        bracket("{", _rows(rows, level, tall)),
        kind,
        lambda names: {key: item.value(names) for key, item in entries},
        keys,
    )


def _rows(rows: Sequence[Sequence[Piece]], level: int, tall: bool) -> list[Piece]:
    if not tall or not rows:
        return separated(rows)
    inner, outer = Piece("\n" + INDENT * (level + 1)), Piece("\n" + INDENT * level)
    return [piece for row in rows for piece in (inner, *row, *code(","))] + [outer]
