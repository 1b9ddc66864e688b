"""Statements of mini-Python that hold a block: loops, branches and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..draw import pool
from .containers import empty, numbers, strings
from .expressions import condition
from .literals import call, display, number, text, variable
from .pieces import Piece, bracket, code, header, line
from .scope import Expression, Scope, type_of
from .statements import Signal, Statement, assign, joined, run_all, show, simple, update

LOOP_NAMES = pool("i j k n x each item row entry step part")


def free_name(scope: Scope, pool: Sequence[str]) -> str:
    """Return a name of the pool that is not bound yet."""
    free = [name for name in pool if name not in scope.kinds and name not in scope.taken]
    return scope.draw.pick(free) if free else f"{scope.draw.pick(pool)}_{len(scope.kinds)}"


def statements(scope: Scope, longest: int, first: Sequence[Statement] = ()) -> list[Statement]:
    """Return `first` and up to `longest` simple statements after it, at least one statement in all."""
    count = scope.draw.between(0 if first else 1, longest)
    return [*first, *(simple(scope) for _ in range(count))]


def indented(scope: Scope, make: Callable[[], list[Statement]], branch: bool = False) -> list[Statement]:
    """Return the statements that `make` gives one level deeper; in a branch they bind no new names."""
    scope.level += 1
    was_branch, scope.branch = scope.branch, scope.branch or branch
    made = make()
    scope.level -= 1
    scope.branch = was_branch
    return made


def loop_body(scope: Scope, frozen: Iterable[str], make: Callable[[], list[Statement]]) -> list[Statement]:
    """Return a block that leaves the names in `frozen` alone."""
    added = set(frozen) - scope.frozen
    scope.frozen |= added
    made = indented(scope, make)
    scope.frozen -= added
    return made


def for_loop(scope: Scope) -> Statement:
    """Return a loop over a range, a list, an enumerated list or the items of a dict."""
    draw = scope.draw
    lists = [name for name, kind in scope.kinds.items() if kind in ("list[int]", "list[str]", "list[list[int]]")]
    dicts = scope.of_kind("dict[str,int]")
    choice = draw.below(6)
    used: list[str] = []
    name = free_name(scope, LOOP_NAMES)
    scope.taken.add(name)
    if choice == 0 and dicts:
        used = [draw.pick(dicts)]
        second = free_name(scope, ("value", "amount", "count", "score"))
        targets = [(name, "str"), (second, "int")]
        source = Expression(
            [*code(f"{used[0]}.items"), *bracket("(", [])], "", lambda names: list(names[used[0]].items())
        )
    elif choice in (1, 2) and lists:
        used = [draw.pick(lists)]
        inner = scope.kinds[used[0]][len("list[") : -1]
        second = free_name(scope, LOOP_NAMES)
        targets = [(name, "int"), (second, inner)]
        source = call("enumerate", [variable(used[0], "")], "", lambda items: list(enumerate(items)))
    elif choice == 3 and lists:
        used = [draw.pick(lists)]
        targets = [(name, scope.kinds[used[0]][len("list[") : -1])]
        source = variable(used[0], "")
    elif choice == 4:
        kind = draw.pick(("int", "str"))
        targets = [(name, kind)]
        source = numbers(scope) if kind == "int" else display("[", strings(scope), "list[str]")
    else:
        targets = [(name, "int")]
        source = counted(scope)
    scope.taken.discard(name)
    return loop(scope, targets, source, used, lambda: loop_statements(scope))


def counted(scope: Scope) -> Expression:
    """Return `range(n)`, `range(a, b)` or `range(a, b, step)`, never empty."""
    draw = scope.draw
    start, end = draw.between(0, 3), draw.between(4, 8)
    bounds = ([draw.between(1, 6)], [start, end], [start, end, draw.between(2, 3)])[draw.pick((0, 0, 0, 1, 2))]
    arguments = [Expression(code(str(bound)), "int", lambda names, bound=bound: bound) for bound in bounds]
    return call("range", arguments, "", range)


def loop(
    scope: Scope,
    targets: Sequence[tuple[str, str]],
    source: Expression,
    used: Sequence[str],
    make: Callable[[], list[Statement]],
) -> Statement:
    """Return `for targets in source:` with the block that `make` gives; `used` names are not changed in it."""
    heading = [*code("for " + ", ".join(name for name, _ in targets) + " in "), *source.pieces]
    binds = [scope.bind(name, kind) for name, kind in targets]
    level = scope.level
    # Two names may stand for one list, once a loop has walked over a list of lists; so its whole kind is left alone.
    same_kind = [name for name, kind in scope.kinds.items() if kind in {scope.kinds[other] for other in used}]
    block = loop_body(scope, [*same_kind, *(name for name, _ in targets)], make)

    def run(names: dict) -> Signal | None:
        for value in source.value(names):
            for (name, _), part in zip(targets, value if len(targets) > 1 else (value,), strict=True):
                names[name] = part
            signal = run_all(block, names)
            if signal is not None and signal.reason == "break":
                break
            if signal is not None and signal.reason == "return":
                return signal
        return None

    return Statement([*header(level, heading, binds), *joined(block)], run)


def loop_statements(scope: Scope) -> list[Statement]:
    """Return the body of a loop: simple statements, at times a branch or an inner loop first."""
    if scope.level < 3 and scope.draw.chance(0.2):
        # The branch may skip the rest of the body, so the rest binds no new names.
        return skippable(scope, [branches(scope, loop=True)])
    elif scope.level < 2 and scope.draw.chance(0.12):
        first = [for_loop(scope)]
    else:
        first = []
    return statements(scope, 2, first)


def skippable(scope: Scope, first: Sequence[Statement]) -> list[Statement]:
    """Return `first` and simple statements after it that bind no new names."""
    was_branch, scope.branch = scope.branch, True
    made = statements(scope, 2, first)
    scope.branch = was_branch
    return made


def while_loop(scope: Scope) -> list[Statement]:
    """Return a counter and a loop that runs until the counter reaches a bound, by condition or by break."""
    draw = scope.draw
    up = draw.chance(0.6)
    first, step = (draw.between(0, 2), draw.between(1, 2)) if up else (draw.between(4, 9), draw.between(1, 3))
    bound = draw.between(3, 7) if up else draw.between(0, 2)
    symbol, word = ("+", "<") if up else ("-", ">")
    start = Expression(code(str(first)), "int", lambda names: first)
    name = scope.fresh("int")
    while name in scope.frozen:
        name = free_name(scope, LOOP_NAMES)
    setting = assign(scope, name, start)

    def advance(names: dict) -> None:
        names[name] += step if up else -step

    def below(names: dict) -> bool:
        return names[name] < bound if up else names[name] > bound

    level = scope.level
    endless = draw.chance(0.3)
    moving = Statement(line(level + 1, code(f"{name} {symbol}= {step}")), advance)
    block = loop_body(scope, [name], lambda: statements(scope, 2))
    if endless:
        stop_word = ">=" if up else "<="
        leave = Statement(
            [*header(level + 1, code(f"if {name} {stop_word} {bound}")), *line(level + 2, code("break"))],
            lambda names: None if below(names) else Signal("break"),
        )
        block = [*block, moving, leave]
        heading = code("while True")
    else:
        block = [*block, moving]
        heading = code(f"while {name} {word} {bound}")

    def run(names: dict) -> Signal | None:
        while endless or below(names):
            signal = run_all(block, names)
            if signal is not None:
                return signal if signal.reason == "return" else None
        return None

    return [setting, Statement([*header(level, heading), *joined(block)], run)]


def branches(scope: Scope, loop: bool = False) -> Statement:
    """Return an `if`, often with `elif` and `else`; in a loop a branch may `continue` or `break`."""
    draw = scope.draw
    level = scope.level
    words = ["if"] + ["elif"] * draw.pick((0, 0, 1, 1, 2)) + ["else"] * draw.chance(0.6)
    arms = []
    pieces: list[Piece] = []
    for word in words:
        test = None if word == "else" else condition(scope)
        heading = code(word) if test is None else [*code(f"{word} "), *test.pieces]
        block = indented(scope, lambda: branch_statements(scope, loop), branch=True)
        arms.append((test, block))
        pieces += [*header(level, heading), *joined(block)]

    def run(names: dict) -> Signal | None:
        for test, block in arms:
            if test is None or test.value(names):
                return run_all(block, names)
        return None

    return Statement(pieces, run)


def branch_statements(scope: Scope, loop: bool) -> list[Statement]:
    """Return the statements of one branch."""
    made = [update(scope) or show(scope)] if scope.draw.chance(0.6) else [show(scope)]
    if loop and scope.draw.chance(0.2):
        word = scope.draw.pick(("continue", "break"))
        made.append(Statement(line(scope.level, code(word)), lambda names: Signal(word)))
    elif scope.draw.chance(0.08):
        made = [Statement(line(scope.level, code("pass")), lambda names: None)]
    return made


def choice_of_value(scope: Scope) -> list[Statement]:
    """Return `if ...: x = a` and `else: x = b`, or the same as a conditional expression."""
    draw = scope.draw
    kind = draw.pick(("int", "str"))
    yes, no = (number(draw), number(draw)) if kind == "int" else (text(draw, 1), text(draw, 1))
    test = condition(scope)
    if draw.chance(0.5):
        value = Expression(
            [*yes.pieces, *code(" if "), *test.pieces, *code(" else "), *no.pieces],
            kind,
            lambda names: yes.value(names) if test.value(names) else no.value(names),
        )
        return [assign(scope, scope.fresh(kind), value)]
    name, level = scope.fresh(kind), scope.level
    before = dict(scope.kinds)
    first = indented(scope, lambda: [assign(scope, name, yes)])
    scope.kinds = dict(before)
    second = indented(scope, lambda: [assign(scope, name, no)])
    unbind = Piece("", "bind", (name, type_of(before[name]))) if name in before else Piece("", "unbind", name)
    pieces = [
        *header(level, [*code("if "), *test.pieces]),
        *joined(first),
        unbind,
        *header(level, code("else")),
        *joined(second),
    ]
    return [Statement(pieces, lambda names: run_all(first if test.value(names) else second, names))]


def grow(scope: Scope) -> list[Statement]:
    """Return an empty set or string and a loop over words that adds to it."""
    start = empty(scope)
    name = scope.fresh(start.kind)
    statements = [assign(scope, name, start)]
    if scope.draw.chance(0.4):
        statements.append(simple(scope))
        if scope.kinds.get(name) != start.kind:
            return statements
    each = free_name(scope, ("word", "item", "char", "part", "name", "line"))
    lists = [other for other in scope.of_kind("list[str]") if other != name]
    if lists and scope.draw.chance(0.5):
        used = [scope.draw.pick(lists)]
        source = variable(used[0], "")
    else:
        used, source = [], display("[", strings(scope), "list[str]")

    def body() -> list[Statement]:
        adding = [*code(f"{name}.add"), *bracket("(", code(each))]
        pieces = code(f"{name} += {each}") if start.kind == "str" else adding

        def run(names: dict) -> None:
            if start.kind == "str":
                names[name] += names[each]
            else:
                names[name].add(names[each])

        return [Statement(line(scope.level, pieces), run)]

    return [*statements, loop(scope, [(each, "str")], source, used, body)]
