"""What a statement of mini-Python may refer to: bound names and their kinds, functions, and the stream of choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..draw import Draw, pool
from .pieces import Piece

AMBIGUOUS_NAMES = pool("current result value data x y a b item out temp first last state other node obj arg")
NAMES = {
    "int": pool("count total size index score width height age level limit step offset n depth length"),
    "str": pool("name text title word message label line path key prefix body user"),
    "list": pool("items values rows numbers names words points queue scores lines nodes args"),
    "dict": pool("table config ages prices options counts cache fields"),
    "set": pool("seen unique tags visited group keys known"),
    "bool": pool("done ready found valid active flag match"),
}


class Expression(NamedTuple):
    """Text, kind (`int`, `list[str]`, ...) and value of an expression; `value` takes the variables of the scope.

    `keys` are the keys that a dict display is known to hold.
    """

    pieces: list[Piece]
    kind: str
    value: Callable[[dict], object]
    keys: tuple[str, ...] = ()


class Function(NamedTuple):
    """What a call has to know: the kinds of the parameters, how many have defaults, the kind returned, the work."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    defaults: int
    returns: str
    call: Callable


def type_of(kind: str) -> str:
    """Return the type of a kind: `list` for `list[str]`."""
    return kind.partition("[")[0]


class Scope:
    """The names that the next statement may use, and the stream of choices.

    Attributes
    ----------
    kinds : dict of str to str
        Bound names and their kinds.
    keys : dict of str to tuple of str
        Keys known to be in a dict variable.
    frozen : set of str
        Names that the current loop depends on; a body must not change them.
    functions : list of Function
        What can be called.
    level : int
        Indentation level.
    branch : bool
        Inside a branch that may not run: no new names.
    output : list of str
        Lines that the program has printed so far.
    files : dict of str to str
        Files and their text as the program runs.
    inputs : dict of str to str
        Files that must be there before it runs.
    """

    def __init__(self, draw: Draw, outer: Scope | None = None) -> None:
        self.draw = draw
        self.output: list[str] = outer.output if outer else []
        self.files: dict[str, str] = outer.files if outer else {}
        self.inputs: dict[str, str] = outer.inputs if outer else {}
        self.kinds: dict[str, str] = {}
        self.keys: dict[str, tuple[str, ...]] = {}
        self.frozen: set[str] = set()
        self.taken: set[str] = set()
        self.functions: list[Function] = []
        self.level = 0
        self.branch = False

    def of_kind(self, kind: str) -> list[str]:
        """Return the bound names of a kind."""
        return [name for name, have in self.kinds.items() if have == kind]

    def changeable(self, kind: str) -> list[str]:
        """Return the bound names of a kind that the enclosing loops allow to change."""
        return [name for name in self.of_kind(kind) if name not in self.frozen]

    def fresh(self, kind: str) -> str:
        """Return a name for a new variable; at the top level it may also be an old one that changes its type."""
        if self.level == 0 and self.draw.chance(0.08):
            old = [name for name, have in self.kinds.items() if name not in self.frozen and type_of(have) in NAMES]
            if old:
                return self.draw.pick(old)
        pool = AMBIGUOUS_NAMES if self.draw.chance(0.45) else NAMES[type_of(kind)]
        free = [name for name in pool if name not in self.kinds and name not in self.taken]
        if free:
            return self.draw.pick(free)
        base, number = self.draw.pick(pool), 2
        while f"{base}{number}" in self.kinds or f"{base}{number}" in self.taken:
            number += 1
        return f"{base}{number}"

    def bind(self, name: str, kind: str) -> tuple[str, str]:
        """Note a new variable and return the pair for the truth: its name and its type."""
        self.kinds[name] = kind
        self.keys.pop(name, None)
        return name, type_of(kind)
