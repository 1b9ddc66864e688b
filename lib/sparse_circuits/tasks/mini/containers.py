"""Lists, nested lists, dicts, sets and comprehensions of mini-Python."""

from __future__ import annotations

from ..draw import pool
from .expressions import OPERATIONS
from .literals import WORDS, call, dictionary, display, number, quotes, text, variable
from .pieces import bracket, code, string
from .scope import Expression, Scope


def container(scope: Scope) -> Expression:
    """Return a list, nested list, dict or set; none is empty."""
    choice = scope.draw.below(12)
    tall = scope.draw.chance(0.1)
    if choice < 2:
        return numbers(scope, tall)
    if choice < 4:
        return display("[", strings(scope), "list[str]", scope.level, tall)
    if choice < 7:
        return nested(scope, scope.draw.pick((2, 2, 2, 3)), tall)
    if choice < 9:
        return table(scope, tall)
    if choice == 9:
        return filled_set(scope)
    return comprehension(scope) if choice == 10 else derived(scope)


def numbers(scope: Scope, tall: bool = False) -> Expression:
    """Return a list of one to five integers, some negative."""
    draw = scope.draw
    entries = []
    for _ in range(draw.between(1, 5)):
        entry = number(draw)
        entries.append(negative(entry) if draw.chance(0.1) else entry)
    return display("[", entries, "list[int]", scope.level, tall)


def negative(entry: Expression) -> Expression:
    """Return the entry with a minus sign."""
    return Expression([*code("-"), *entry.pieces], "int", lambda names: -entry.value(names))


def strings(scope: Scope) -> list[Expression]:
    """Return one to four string literals."""
    return [text(scope.draw, 1) for _ in range(scope.draw.between(1, 4))]


def nested(scope: Scope, depth: int, tall: bool = False) -> Expression:
    """Return a list of lists, `depth` brackets deep, with one to three entries at each level."""
    draw = scope.draw
    if depth == 1:
        return display("[", [number(draw) for _ in range(draw.between(1, 3))], "list[int]")
    rows = [nested(scope, depth - 1) for _ in range(draw.between(1, 3))]
    return display("[", rows, f"list[{rows[0].kind}]", scope.level, tall)


def table(scope: Scope, tall: bool = False) -> Expression:
    """Return a dict from words to integers or to lists of them."""
    draw = scope.draw
    keys = tuple(draw.sample(WORDS, draw.between(1, 4)))
    if draw.chance(0.75):
        items, kind = [number(draw) for _ in keys], "dict[str,int]"
    else:
        items, kind = [nested(scope, 1) for _ in keys], "dict[str,list]"
    return dictionary(keys, items, quotes(draw)[0], kind, scope.level, tall)


def filled_set(scope: Scope) -> Expression:
    """Return a set display."""
    draw = scope.draw
    if draw.chance(0.5):
        return display("{", strings(scope), "set[str]")
    return display("{", [number(draw) for _ in range(draw.between(1, 4))], "set[int]")


def empty(scope: Scope) -> Expression:
    """Return an empty set or string: the start of something that a loop lets grow."""
    if scope.draw.chance(0.5):
        return call("set", [], "set[str]", set)
    return Expression(string(quotes(scope.draw)[0], []), "str", lambda names: "")


def derived(scope: Scope) -> Expression:
    """Return a list made from another one: sorted, reversed, lengthened, or a range."""
    draw = scope.draw
    names = scope.of_kind("list[int]")
    if not names or draw.chance(0.3):
        return call("list", [call("range", [number_above_zero(scope)], "", range)], "list[int]", list)
    target = variable(draw.pick(names), "list[int]")
    choice = draw.below(3)
    if choice == 0:
        return call("sorted", [target], "list[int]", sorted)
    if choice == 1:
        return Expression(
            [*target.pieces, *bracket("[", code("::-1"))], "list[int]", lambda names: target.value(names)[::-1]
        )
    more = nested(scope, 1)
    return Expression(
        [*target.pieces, *code(" + "), *more.pieces], "list[int]", lambda names: target.value(names) + more.value(names)
    )


def number_above_zero(scope: Scope, high: int = 6) -> Expression:
    """Return an integer literal from 1 to `high`."""
    value = scope.draw.between(1, high)
    return Expression(code(str(value)), "int", lambda names: value)


def comprehension(scope: Scope) -> Expression:
    """Return a list, set or dict comprehension over a range, a list of strings, or two ranges."""
    draw = scope.draw
    variable_name = draw.pick([name for name in pool("i j k n x") if name not in scope.kinds] or ["each"])
    symbol, amount, end = draw.pick("+*-"), draw.between(1, 9), draw.between(2, 6)
    work = OPERATIONS[symbol]
    head = code(f"{variable_name} {symbol} {amount}")
    over = [*code(f" for {variable_name} in range"), *bracket("(", code(str(end)))]
    choice = draw.below(6)
    if choice == 0:
        # 0 passes the filter, so that the list is never empty.
        divisor = draw.between(2, 3)
        return Expression(
            bracket("[", [*head, *over, *code(f" if {variable_name} % {divisor} == 0")]),
            "list[int]",
            lambda names: [work(i, amount) for i in range(end) if i % divisor == 0],
        )
    if choice == 1:
        return Expression(bracket("{", [*head, *over]), "set[int]", lambda names: {work(i, amount) for i in range(end)})
    if choice == 2:
        inner = bracket("[", [*code(f"0 for {variable_name} in range"), *bracket("(", code(str(amount)))])
        rows = [*inner, *code(" for row in range"), *bracket("(", code(str(end)))]
        return Expression(bracket("[", rows), "list[list[int]]", lambda names: [[0] * amount for _ in range(end)])
    lists = scope.of_kind("list[str]")
    if lists and choice == 3:
        source = draw.pick(lists)
        pieces = [
            *code(f"{variable_name}: len"),
            *bracket("(", code(variable_name)),
            *code(f" for {variable_name} in {source}"),
        ]
        return Expression(
            bracket("{", pieces), "dict[str,int]", lambda names: {word: len(word) for word in names[source]}
        )
    if choice == 4:
        entries = [*code(f"{variable_name}: "), *head, *over]
        return Expression(
            bracket("{", entries), "dict[int,int]", lambda names: {i: work(i, amount) for i in range(end)}
        )
    return Expression(bracket("[", [*head, *over]), "list[int]", lambda names: [work(i, amount) for i in range(end)])
