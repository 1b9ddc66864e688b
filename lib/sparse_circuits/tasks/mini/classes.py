"""Classes of mini-Python: an `__init__` that stores its parameters, methods, an instance and its use."""

from __future__ import annotations

from ..draw import pool
from .blocks import free_name
from .definitions import BLANK, define, give_back, parameters
from .expressions import expression
from .literals import number, text
from .pieces import Piece, bracket, code, line, scoped, separated
from .scope import Expression, Scope
from .statements import Statement, assign, show_all

CLASS_NAMES = pool("Point Box Item User Book Node Car Shape Timer Player Order Task Cell Card")
METHODS = pool("get show value total area describe label shift")


def store(level: int, field: str) -> Statement:
    """Return `self.field = field`."""

    def run(names: dict) -> None:
        names["self"][field] = names[field]

    return Statement(line(level, code(f"self.{field} = {field}")), run)


def read(field: str, kind: str, owner: str = "self") -> Expression:
    """Return `owner.field`."""
    return Expression(code(f"{owner}.{field}"), kind, lambda names: names[owner][field])


def method_value(scope: Scope, fields: list[tuple[str, str]], returns: str) -> Expression:
    """Return what a method computes from one or two fields."""
    draw = scope.draw
    chosen = [read(field, kind) for field, kind in fields if kind == returns]
    other = draw.pick(chosen) if draw.chance(0.5) else (number(draw) if returns == "int" else text(draw, 1))
    first = draw.pick(chosen)
    return Expression(
        [*first.pieces, *code(" + "), *other.pieces], returns, lambda names: first.value(names) + other.value(names)
    )


def class_with_use(scope: Scope) -> list[Statement]:
    """Return a class, an instance of it, and statements that read a field and call a method."""
    draw = scope.draw
    name = free_name(scope, CLASS_NAMES)
    fields = parameters(scope)
    some_default = draw.chance(0.4)
    last_kind = fields[-1][1]
    defaults = [number(draw) if last_kind == "int" else text(draw, 1)] if some_default else []
    inner = Scope(draw, scope)
    inner.level = scope.level + 1
    wanted = [("self", name), *fields]
    start, _ = define(
        inner, "__init__", wanted, defaults, "", lambda deep: [store(deep.level, field) for field, _ in fields]
    )
    field, kind = draw.pick(fields)
    method = draw.pick([word for word in METHODS if word not in dict(fields)])
    other, made = define(
        inner,
        method,
        [("self", name)],
        [],
        kind,
        lambda deep: [give_back(method_value(deep, fields, kind), deep.level)],
    )
    pieces = [
        *scoped(scope.level, code(f"class {name}"), {}, [*start.pieces, Piece("\n"), *other.pieces]),
        Piece("", "bind", (name, "type")),
    ]
    scope.kinds[name] = "type"
    definition = Statement(pieces, lambda names: None)
    given = fields[:-1] if some_default and draw.chance(0.5) else fields
    arguments = [expression(scope, kind) for _, kind in given]
    instance = free_name(scope, ("p", "obj", "box", "user", "item", "node", "thing", "first"))

    def create(names: dict) -> dict:
        values = dict(zip([name for name, _ in given], [value.value(names) for value in arguments], strict=True))
        return {fields[-1][0]: defaults[0].value({}), **values} if len(given) < len(fields) else values

    build = Expression([*code(name), *bracket("(", separated(value.pieces for value in arguments))], name, create)
    making = assign(scope, instance, build)
    called = Expression(
        [*code(f"{instance}.{method}"), *bracket("(", [])],
        kind,
        lambda names: made.call({"self": names[instance]}),
    )
    uses = [show_all(scope, [read(field, kind, instance)])] if draw.chance(0.6) else []
    uses.append(assign(scope, scope.fresh(kind), called))
    return [BLANK, definition, BLANK, making, *uses]
