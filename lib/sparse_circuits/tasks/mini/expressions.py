"""Expressions of mini-Python: their text in pieces, their kind, and a function that computes their value.

The value is computed from the parts the expression was built from; the text is never parsed or executed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from ..draw import Draw
from .literals import WORDS, call, constant, number, phrase, quotes, text, variable
from .pieces import Piece, bracket, code, literal, separated, string
from .scope import Expression, Function, Scope

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod}
COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def integer(scope: Scope, deep: bool = True) -> Expression:
    """Return an integer expression."""
    draw = scope.draw
    names = scope.of_kind("int")
    if not deep or draw.chance(0.25):
        return variable(draw.pick(names), "int") if names and draw.chance(0.6) else number(draw)
    choice = draw.below(10)
    if choice < 5:
        return arithmetic(scope)
    if choice == 5:
        return conditional(scope, integer(scope, deep=False), integer(scope, deep=False))
    if choice == 6:
        functions = [function for function in scope.functions if function.returns == "int"]
        if functions:
            return invoke(scope, draw.pick(functions))
    if choice == 7:
        for name, keys in scope.keys.items():
            if scope.kinds[name] == "dict[str,int]" and draw.chance(0.7):
                return item_of(draw, name, draw.pick(keys))
    return measure(scope)


def arithmetic(scope: Scope) -> Expression:
    """Return one operation on two operands, one of which may be another operation in parentheses."""
    draw = scope.draw
    symbol = draw.pick(("+", "+", "-", "-", "*", "*", "//", "%"))
    work = OPERATIONS[symbol]
    left = integer(scope, deep=False)
    if draw.chance(0.2):
        inner = arithmetic(scope)
        left = Expression(bracket("(", inner.pieces), "int", inner.value)
    # Products and quotients take a literal on the right, so that values neither explode nor divide by zero.
    right = integer(scope, deep=False) if symbol in "+-" else constant(draw.between(2, 9))
    return Expression(
        [*left.pieces, *code(f" {symbol} "), *right.pieces],
        "int",
        lambda names: work(left.value(names), right.value(names)),
    )


def measure(scope: Scope) -> Expression:
    """Return an integer read off a collection or a string."""
    draw = scope.draw
    numbers = scope.of_kind("list[int]")
    if numbers and draw.chance(0.6):
        target = variable(draw.pick(numbers), "list[int]")
        name, work = draw.pick((("sum", sum), ("max", max), ("min", min), ("", None), ("", None)))
        return call(name, [target], "int", work) if name else element(draw, target)
    sized = [name for name, kind in scope.kinds.items() if kind.partition("[")[0] in ("str", "list", "dict", "set")]
    if sized:
        name = draw.pick(sized)
        return call("len", [variable(name, scope.kinds[name])], "int", len)
    return call("int", [digits(draw)], "int", int) if draw.chance(0.3) else number(draw)


def digits(draw: Draw) -> Expression:
    """Return a string literal of digits."""
    quote, value = quotes(draw)[0], str(draw.between(0, 99))
    return Expression(string(quote, literal(value)), "str", lambda names: value)


def element(draw: Draw, target: Expression) -> Expression:
    """Return the first or last element of a list that is not empty."""
    index = draw.pick((0, 0, -1))
    kind = target.kind[len("list[") : -1]
    return Expression([*target.pieces, *bracket("[", code(str(index)))], kind, lambda names: target.value(names)[index])


def item_of(draw: Draw, name: str, key: str) -> Expression:
    """Return `name["key"]`."""
    return Expression(
        [*code(name), *bracket("[", string(quotes(draw)[0], literal(key)))], "int", lambda names: names[name][key]
    )


def invoke(scope: Scope, function: Function) -> Expression:
    """Return a call of a function of the program; arguments with a default may be left out or given by name."""
    draw = scope.draw
    needed = len(function.parameters) - function.defaults
    pieces, values = [], {}
    for i, (name, kind) in enumerate(function.parameters):
        by_name = i >= needed
        if by_name and draw.chance(0.5):
            continue
        argument = expression(scope, kind)
        pieces.append([*code(f"{name}="), *argument.pieces] if by_name else argument.pieces)
        values[name] = argument.value
    return Expression(
        [*code(function.name), *bracket("(", separated(pieces))],
        function.returns,
        lambda names: function.call({name: value(names) for name, value in values.items()}),
    )


def words(scope: Scope, deep: bool = True) -> Expression:
    """Return a string expression."""
    draw = scope.draw
    names = scope.of_kind("str")
    if not deep or draw.chance(0.35):
        return variable(draw.pick(names), "str") if names and draw.chance(0.5) else text(draw)
    choice = draw.below(8)
    if choice < 2:
        return formatted(scope)
    if choice == 2 and names:
        target, method = variable(draw.pick(names), "str"), draw.pick(("upper", "lower", "strip", "title"))
        return Expression(
            [*target.pieces, *code(f".{method}"), *bracket("(", [])],
            "str",
            lambda names: getattr(target.value(names), method)(),
        )
    if choice == 3:
        left, right = words(scope, deep=False), words(scope, deep=False)
        return Expression(
            [*left.pieces, *code(" + "), *right.pieces], "str", lambda names: left.value(names) + right.value(names)
        )
    if choice == 4:
        return call("str", [integer(scope, deep=False)], "str", str)
    if choice == 5:
        return conditional(scope, words(scope, deep=False), words(scope, deep=False))
    lists = scope.of_kind("list[str]")
    if not lists:
        return text(draw)
    target = variable(draw.pick(lists), "list[str]")
    if choice == 6:
        return element(draw, target)
    quote, glue = quotes(draw)[0], draw.pick((" ", ", ", "-", ""))
    return Expression(
        [*string(quote, literal(glue)), *code(".join"), *bracket("(", target.pieces)],
        "str",
        lambda names: glue.join(target.value(names)),
    )


def formatted(scope: Scope, subject: Expression | None = None) -> Expression:
    """Return an f-string with one or two replacement fields; the first shows `subject` where one is given."""
    draw = scope.draw
    quote, other = quotes(draw)
    inside: list[Piece] = []
    parts: list[Callable[[dict], str]] = []
    for i in range(draw.between(1, 2)):
        word = phrase(draw, 2) + draw.pick((" ", " ", ": ", "=")) if i == 0 or draw.chance(0.5) else " "
        shown = subject if i == 0 and subject else field(scope, other)
        inside += [*literal(word), *bracket("{", shown.pieces)]
        parts += [lambda names, word=word: word, lambda names, shown=shown: str(shown.value(names))]
    if draw.chance(0.3):
        end = draw.pick(("!", ".", " " + draw.pick(WORDS)))
        inside += literal(end)
        parts.append(lambda names: end)
    return Expression(string(quote, inside, prefix="f"), "str", lambda names: "".join(part(names) for part in parts))


def field(scope: Scope, quote: str) -> Expression:
    """Return what may stand in a replacement field; a string in it uses `quote`, as Python 3.11 demands."""
    draw = scope.draw
    names = [name for name, kind in scope.kinds.items() if kind in ("int", "str", "bool", "list[int]")]
    if names and draw.chance(0.75):
        name = draw.pick(names)
        target = variable(name, scope.kinds[name])
        if target.kind == "int" and draw.chance(0.3):
            amount = draw.between(1, 9)
            return Expression(
                [*target.pieces, *code(f" + {amount}")], "int", lambda names: target.value(names) + amount
            )
        return target
    if scope.keys and draw.chance(0.6):
        name = draw.pick(list(scope.keys))
        key = draw.pick(scope.keys[name])
        return Expression(
            [*code(name), *bracket("[", string(quote, literal(key)))], "int", lambda names: names[name][key]
        )
    return number(draw)


def condition(scope: Scope, deep: bool = True) -> Expression:
    """Return a truth value."""
    draw = scope.draw
    flags = scope.of_kind("bool")
    if flags and draw.chance(0.35):
        flag = variable(draw.pick(flags), "bool")
        if draw.chance(0.3):
            return Expression([*code("not "), *flag.pieces], "bool", lambda names: not flag.value(names))
        if draw.chance(0.25):
            expected = draw.chance(0.6)
            return Expression(
                [*flag.pieces, *code(f" == {expected}")], "bool", lambda names: flag.value(names) == expected
            )
        return flag
    if deep and draw.chance(0.15):
        left, right, word = condition(scope, False), condition(scope, False), draw.pick(("and", "or"))
        both = word == "and"
        return Expression(
            [*left.pieces, *code(f" {word} "), *right.pieces],
            "bool",
            lambda names: left.value(names) and right.value(names) if both else left.value(names) or right.value(names),
        )
    return comparison(scope)


def comparison(scope: Scope) -> Expression:
    """Return a comparison of numbers or strings, or a membership test."""
    draw = scope.draw
    choice = draw.below(6)
    strings = scope.of_kind("str")
    if choice == 0 and strings:
        symbol, left, right = draw.pick(("==", "!=")), variable(draw.pick(strings), "str"), text(draw, 1)
    elif choice == 1:
        for kind, make in (("list[int]", number), ("set[int]", number), ("list[str]", text), ("set[str]", text)):
            names = scope.of_kind(kind)
            if names and draw.chance(0.6):
                target, sought = variable(draw.pick(names), kind), make(draw)
                return Expression(
                    [*sought.pieces, *code(" in "), *target.pieces],
                    "bool",
                    lambda names, target=target, sought=sought: sought.value(names) in target.value(names),
                )
        return constant(draw.chance(0.5))
    else:
        symbol = draw.pick(("==", "==", "!=", "<", ">", "<=", ">="))
        left, right = measure(scope) if draw.chance(0.3) else integer(scope, deep=False), number(draw)
    work = COMPARISONS[symbol]
    return Expression(
        [*left.pieces, *code(f" {symbol} "), *right.pieces],
        "bool",
        lambda names: work(left.value(names), right.value(names)),
    )


def conditional(scope: Scope, yes: Expression, no: Expression) -> Expression:
    """Return `yes if condition else no`, in parentheses."""
    test = condition(scope, deep=False)
    return Expression(
        bracket("(", [*yes.pieces, *code(" if "), *test.pieces, *code(" else "), *no.pieces]),
        yes.kind,
        lambda names: yes.value(names) if test.value(names) else no.value(names),
    )


def expression(scope: Scope, kind: str) -> Expression:
    """Return an expression of a simple kind."""
    return {"int": integer, "str": words, "bool": condition}[kind](scope)
