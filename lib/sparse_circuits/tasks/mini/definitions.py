"""Functions, lambdas and classes of mini-Python; each is used right after it is defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..draw import pool
from .blocks import branches, for_loop, free_name, indented
from .expressions import OPERATIONS, expression, integer, invoke
from .literals import call, display, number, phrase, text
from .pieces import Piece, bracket, code, header, line, literal, scoped, separated, string
from .scope import Expression, Function, Scope
from .statements import Signal, Statement, assign, joined, run_all, show_all, simple

VERBS = pool("get make add find check scale join update compute build count read merge move shift pick mix")
NOUNS = pool("value item total name score row word size point path line data")
PARAMETERS = {
    "int": pool("x y n a b size count width step limit"),
    "str": pool("name text word title prefix s"),
}
BLANK = Statement([Piece("\n"), Piece("\n")], lambda names: None)


def function_name(scope: Scope) -> str:
    """Return a name for a function."""
    draw = scope.draw
    pool = [f"{draw.pick(VERBS)}_{draw.pick(NOUNS)}", draw.pick(VERBS)]
    return free_name(scope, [draw.pick(pool)])


def parameters(scope: Scope) -> list[tuple[str, str]]:
    """Return one to three parameters with their kinds."""
    draw = scope.draw
    kinds = [draw.pick(("int", "int", "str")) for _ in range(draw.between(1, 3))]
    names: list[str] = []
    for kind in kinds:
        names.append(draw.pick([name for name in PARAMETERS[kind] if name not in names]))
    return list(zip(names, kinds, strict=True))


def docstring(scope: Scope) -> list[Piece]:
    """Return the line of a docstring."""
    return line(scope.level, string('"""', literal(phrase(scope.draw, 4).capitalize() + ".")))


def define(
    scope: Scope,
    name: str,
    wanted: Sequence[tuple[str, str]],
    defaults: Sequence[Expression | None],
    returns: str,
    make: Callable[[Scope], list[Statement]],
) -> tuple[Statement, Function]:
    """Return a function definition and what a call of it does.

    `defaults` are those of the last parameters; None stands for the default `None`, which the body replaces first.
    """
    draw = scope.draw
    inner = Scope(draw, scope)
    inner.level = scope.level + 1
    first = len(wanted) - len(defaults)
    signature, bound, opening = [], {}, []
    values: dict[str, object] = {}
    for i, (parameter, kind) in enumerate(wanted):
        bound[parameter] = kind
        inner.kinds[parameter] = kind
        default = defaults[i - first] if i >= first else None
        if i < first:
            signature.append(code(parameter))
        elif default is None:
            signature.append(code(f"{parameter}=None"))
            bound[parameter] = f"{kind} | None"
            values[parameter] = None
            opening.append(replace_none(inner, parameter, kind))
        else:
            signature.append([*code(f"{parameter}="), *default.pieces])
            values[parameter] = default.value({})
    document = docstring(inner) if draw.chance(0.3) else []
    block = [*opening, *make(inner)]

    def work(arguments: dict) -> object:
        signal = run_all(block, {**values, **arguments})
        return signal.value if signal is not None else None

    heading = [*code(f"def {name}"), *bracket("(", separated(signature))]
    pieces = [
        *scoped(scope.level, heading, bound, [*document, *joined(block)]),
        Piece("", "bind", (name, "function")),
    ]
    scope.kinds[name] = "function"
    return Statement(pieces, lambda names: None), Function(name, tuple(wanted), len(defaults), returns, work)


def replace_none(inner: Scope, parameter: str, kind: str) -> Statement:
    """Return `if parameter is None:` and the value it then takes."""
    value = number(inner.draw) if kind == "int" else text(inner.draw, 1)
    heading = header(inner.level, code(f"if {parameter} is None"))
    block = indented(inner, lambda: [assign(inner, parameter, value)])

    def run(names: dict) -> None:
        if names[parameter] is None:
            run_all(block, names)

    return Statement([*heading, *joined(block)], run)


def give_back(value: Expression, level: int) -> Statement:
    """Return `return value`."""
    pieces = line(level, [*code("return "), *value.pieces])
    return Statement(pieces, lambda names: Signal("return", value.value(names)))


def function(scope: Scope) -> list[Statement]:
    """Return a function of one to three parameters and a call of it."""
    draw = scope.draw
    wanted = parameters(scope)
    returns = draw.pick(("int", "str"))
    defaults: list[Expression | None] = []
    for _, kind in wanted[draw.between(0, len(wanted)) :]:
        plain = number(draw) if kind == "int" else text(draw, 1)
        defaults.append(None if draw.chance(0.35) else plain)

    def make(inner: Scope) -> list[Statement]:
        made = []
        if draw.chance(0.25):
            made.append(branches(inner))
        elif draw.chance(0.2):
            made.append(for_loop(inner))
        made += [simple(inner) for _ in range(draw.below(3))]
        if draw.chance(0.2):
            test = integer(inner)
            heading = [*code("if "), *test.pieces, *code(" > 9")]
            early = indented(inner, lambda: [give_back(expression(inner, returns), inner.level)])
            made.append(
                Statement(
                    [*header(inner.level, heading), *joined(early)],
                    lambda names: run_all(early, names) if test.value(names) > 9 else None,
                )
            )
        return [*made, give_back(expression(inner, returns), inner.level)]

    statement, made = define(scope, function_name(scope), wanted, defaults, returns, make)
    value = invoke(scope, made)
    scope.functions.append(made)
    use = show_all(scope, [value]) if draw.chance(0.4) else assign(scope, scope.fresh(returns), value)
    return [BLANK, statement, BLANK, use]


def search(scope: Scope) -> list[Statement]:
    """Return a function that answers True or False, by a loop over a list or by counting, and a call of it."""
    draw = scope.draw
    over_list = draw.chance(0.5)
    limit = draw.between(3, 9)

    def by_list(inner: Scope) -> list[Statement]:
        level = inner.level
        pieces = [
            *header(level, code(f"for {each} in {many}"), [(each, "int")]),
            *header(level + 1, code(f"if {each} == {sought}")),
            *line(level + 2, code("return True")),
            *line(level, code("return False")),
        ]
        return [Statement(pieces, lambda names: Signal("return", names[sought] in names[many]))]

    def by_counting(inner: Scope) -> list[Statement]:
        level = inner.level
        pieces = [
            *header(level, code("while True")),
            *header(level + 1, code(f"if {sought} > {limit}")),
            *line(level + 2, code("return True")),
            *line(level + 1, code(f"{sought} += {limit - 1}")),
        ]
        return [Statement(pieces, lambda names: Signal("return", True))]

    many, sought, each = draw.pick(("items", "values", "xs")), draw.pick(("target", "n", "x")), draw.pick("ijkv")
    wanted = [(many, "list"), (sought, "int")] if over_list else [(sought, "int")]
    statement, made = define(scope, function_name(scope), wanted, [], "bool", by_list if over_list else by_counting)
    numbers = display("[", [number(draw) for _ in range(draw.between(2, 4))], "list[int]")
    arguments = [numbers, number(draw)] if over_list else [number(draw)]
    value = call(
        made.name,
        arguments,
        "bool",
        lambda *values: made.call(dict(zip([name for name, _ in wanted], values, strict=True))),
    )
    return [BLANK, statement, BLANK, assign(scope, scope.fresh("bool"), value)]


def anonymous(scope: Scope) -> list[Statement]:
    """Return a lambda that is called by name, or one that maps or sorts a list."""
    draw = scope.draw
    parameter = draw.pick("xnkv")
    symbol, amount = draw.pick("+*-"), draw.between(1, 9)
    operation = OPERATIONS[symbol]
    inside = code(f"lambda {parameter}: {parameter} {symbol} {amount}")
    numbers = scope.of_kind("list[int]")
    strings = scope.of_kind("list[str]")
    if strings and draw.chance(0.4):
        source = draw.pick(strings)
        key = [*code(f"{source}, key=lambda {parameter}: len"), *bracket("(", code(parameter))]
        value = Expression(
            [*code("sorted"), *bracket("(", key)], "list[str]", lambda names: sorted(names[source], key=len)
        )
        return [assign(scope, scope.fresh("list[str]"), value)]
    if numbers and draw.chance(0.6):
        source = draw.pick(numbers)
        mapped = [*code("map"), *bracket("(", [*inside, *code(f", {source}")])]
        value = Expression(
            [*code("list"), *bracket("(", mapped)],
            "list[int]",
            lambda names: [operation(each, amount) for each in names[source]],
        )
        return [assign(scope, scope.fresh("list[int]"), value)]
    name = free_name(scope, ("double", "shift", "scale", "change", "step", "func", "key"))
    scope.kinds[name] = "function"
    statement = Statement(line(scope.level, [*code(f"{name} = "), *inside], [(name, "function")]), lambda names: None)
    made = Function(name, ((parameter, "int"),), 0, "int", lambda arguments: operation(arguments[parameter], amount))
    value = invoke(scope, made)
    scope.functions.append(made)
    return [statement, assign(scope, scope.fresh("int"), value)]
