"""Simple statements of mini-Python: assignments, updates and prints, each with the work it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .containers import container, empty, nested
from .expressions import OPERATIONS, condition, expression, formatted, integer, words
from .literals import WORDS, number, phrase, quotes, text, variable
from .pieces import INDENT, Piece, bracket, code, line, literal, separated, string
from .scope import Expression, Scope, type_of

COLLECTIONS = {"list": "append", "set": "add"}


class Statement(NamedTuple):
    """Text of a statement and its work on the variables; `run` returns None or a `Signal`."""

    pieces: list[Piece]
    run: Callable[[dict], object]


class Signal(NamedTuple):
    """Why a block ended before its last statement: "break", "continue", or "return" with a value."""

    reason: str
    value: object = None


def run_all(statements: Sequence[Statement], names: dict) -> Signal | None:
    """Run statements in order until one of them signals."""
    for statement in statements:
        signal = statement.run(names)
        if signal is not None:
            return signal
    return None


def joined(statements: Sequence[Statement]) -> list[Piece]:
    """Return the pieces of the statements, one after the other."""
    return [piece for statement in statements for piece in statement.pieces]


def assign(scope: Scope, name: str, value: Expression) -> Statement:
    """Return `name = value`."""

    def run(names: dict) -> None:
        names[name] = value.value(names)

    bind = scope.bind(name, value.kind)
    if value.keys:
        scope.keys[name] = value.keys
    return Statement(line(scope.level, [*code(f"{name} = "), *value.pieces], [bind]), run)


def assign_new(scope: Scope) -> Statement:
    """Return the assignment of a new variable of any kind."""
    make = scope.draw.pick((integer, integer, words, words, condition, container, container, container, empty))
    value = make(scope)
    return assign(scope, scope.fresh(value.kind), value)


def assign_two(scope: Scope) -> Statement:
    """Return `a, b = 1, "x"`."""
    values = [number(scope.draw) if scope.draw.chance(0.6) else text(scope.draw, 1) for _ in range(2)]
    names = []
    binds = []
    for value in values:
        name = scope.fresh(value.kind)
        while name in names:
            name = scope.fresh(value.kind)
        names.append(name)
        binds.append(scope.bind(name, value.kind))
    pieces = [*code(", ".join(names) + " = "), *separated(value.pieces for value in values)]

    def run(variables: dict) -> None:
        for name, value in zip(names, [value.value(variables) for value in values], strict=True):
            variables[name] = value

    return Statement(line(scope.level, pieces, binds), run)


def swap(scope: Scope) -> Statement | None:
    """Return `a, b = b, a` for two variables of one kind, if there are two."""
    for kind in ("int", "str", "list[int]"):
        names = scope.changeable(kind)
        if len(names) >= 2:
            a, b = scope.draw.sample(names, 2)

            def run(variables: dict, a: str = a, b: str = b) -> None:
                variables[a], variables[b] = variables[b], variables[a]

            return Statement(line(scope.level, code(f"{a}, {b} = {b}, {a}")), run)
    return None


def update(scope: Scope) -> Statement | None:
    """Return a statement that changes a variable without changing its type, if there is one to change."""
    draw = scope.draw
    names = [name for name in scope.kinds if name not in scope.frozen and scope.kinds[name] in UPDATES]
    if not names:
        return None
    name = draw.pick(names)
    return UPDATES[scope.kinds[name]](scope, name)


def augment(scope: Scope, name: str) -> Statement:
    """Return `name += value`, or `-=` or `*=` for a number."""
    kind = scope.kinds[name]
    if kind == "str":
        symbol, value = "+", words(scope, deep=False) if scope.level == 0 else text(scope.draw, 1)
    else:
        symbol = scope.draw.pick("+++-*")
        value = number(scope.draw) if symbol == "*" else integer(scope, deep=False)
    work = OPERATIONS[symbol]

    def run(names: dict) -> None:
        names[name] = work(names[name], value.value(names))

    return Statement(line(scope.level, [*code(f"{name} {symbol}= "), *value.pieces]), run)


def insert(scope: Scope, name: str) -> Statement:
    """Return `name.append(value)` for a list, `name.add(value)` for a set."""
    kind = scope.kinds[name]
    method, inner = COLLECTIONS[type_of(kind)], kind.partition("[")[2][:-1]
    value = nested(scope, 1) if inner == "list[int]" else expression(scope, inner)

    def run(names: dict) -> None:
        getattr(names[name], method)(value.value(names))

    return Statement(line(scope.level, [*code(f"{name}.{method}"), *bracket("(", value.pieces)]), run)


def set_item(scope: Scope, name: str) -> Statement:
    """Return `name["key"] = value`."""
    draw = scope.draw
    known = scope.keys.get(name, ())
    key = draw.pick(known) if known and draw.chance(0.5) else draw.pick(WORDS)
    value = integer(scope)

    def run(names: dict) -> None:
        names[name][key] = value.value(names)

    target = [*code(name), *bracket("[", string(quotes(draw)[0], literal(key)))]
    return Statement(line(scope.level, [*target, *code(" = "), *value.pieces]), run)


def set_flag(scope: Scope, name: str) -> Statement:
    """Return `name = True` or `name = False`."""
    value = scope.draw.chance(0.5)

    def run(names: dict) -> None:
        names[name] = value

    return Statement(line(scope.level, code(f"{name} = {value}")), run)


UPDATES = {
    "int": augment,
    "str": augment,
    "list[int]": insert,
    "list[str]": insert,
    "list[list[int]]": insert,
    "set[int]": insert,
    "set[str]": insert,
    "dict[str,int]": set_item,
    "bool": set_flag,
}


def show(scope: Scope) -> Statement:
    """Return a print of a string, an f-string, or variables with or without a label."""
    draw = scope.draw
    shown = [name for name, kind in scope.kinds.items() if type_of(kind) in ("int", "str", "bool", "list", "dict")]
    choice = draw.below(5)
    if not shown or choice == 0:
        arguments = [text(draw)]
    elif choice == 1:
        arguments = [formatted(scope)]
    else:
        name = draw.pick(shown)
        target = variable(name, scope.kinds[name])
        arguments = [target]
        if choice == 2:
            arguments = [label(scope), target]
        elif choice == 3:
            arguments = [formatted(scope, target)]
    return show_all(scope, arguments)


def show_all(scope: Scope, arguments: Sequence[Expression]) -> Statement:
    """Return `print(arguments)`."""

    def run(names: dict) -> None:
        scope.output.append(" ".join(str(argument.value(names)) for argument in arguments))

    pieces = [*code("print"), *bracket("(", separated(argument.pieces for argument in arguments))]
    return Statement(line(scope.level, pieces), run)


def label(scope: Scope) -> Expression:
    """Return a short string that ends with a colon or an equals sign."""
    quote, value = quotes(scope.draw)[0], phrase(scope.draw, 1) + scope.draw.pick((":", " ="))
    return Expression(string(quote, literal(value)), "str", lambda names: value)


def comment(scope: Scope) -> Statement:
    """Return a comment line; some hold a bracket or an apostrophe, which mean nothing to Python."""
    words_in_it = phrase(scope.draw, 4)
    if scope.draw.chance(0.2):
        words_in_it += scope.draw.pick((" (", " [", "'s", ' "'))
    return Statement(literal(f"{INDENT * scope.level}# {words_in_it}\n"), lambda names: None)


def simple(scope: Scope) -> Statement:
    """Return one simple statement that fits where the scope stands."""
    draw = scope.draw
    choice = draw.below(20)
    statement = None
    if choice < 6 and not scope.branch:
        statement = assign_new(scope)
    elif choice == 6 and not scope.branch:
        statement = assign_two(scope)
    elif choice == 7:
        statement = swap(scope)
    elif choice == 8 and draw.chance(0.4):
        statement = Statement([*comment(scope).pieces, *(following := show(scope)).pieces], following.run)
    elif choice < 15:
        statement = update(scope)
    return statement or show(scope)
