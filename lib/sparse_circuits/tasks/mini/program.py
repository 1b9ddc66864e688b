"""Whole programs of mini-Python with the truth about them. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from ..draw import Draw
from .blocks import branches, choice_of_value, for_loop, grow, while_loop
from .classes import class_with_use
from .definitions import anonymous, function, search
from .files import read_input, write_file
from .pieces import Piece, Truth, text_of, truth_of
from .scope import Scope, type_of
from .statements import Statement, assign_new, show, simple, swap

if TYPE_CHECKING:
    from ..tokenizer import CodeTokenizer

VALUE_TYPES = ("int", "str", "bool", "list", "dict", "set")

# How often each kind of fragment is drawn.
FRAGMENTS = (
    (assign_new, 6),
    (simple, 10),
    (show, 4),
    (swap, 1),
    (for_loop, 4),
    (while_loop, 2),
    (branches, 3),
    (choice_of_value, 2),
    (grow, 3),
    (write_file, 1),
    (read_input, 1),
    (function, 3),
    (search, 1),
    (anonymous, 1),
    (class_with_use, 1),
)
MAKERS = tuple(make for make, weight in FRAGMENTS for _ in range(weight))


@dataclass(frozen=True)
class Program:
    """A program and what is true of it.

    Attributes
    ----------
    text : str
        Source in ASCII; it parses and runs.
    variables : dict of str to object
        The value of each int, str, bool, list, dict and set variable of the module when the program ends.
    output : str
        What the program prints.
    files : dict of str to str
        Text files that it reads, by name; they must be there before it runs.
    pieces : tuple of Piece
        The text in pieces with their events.
    """

    text: str
    variables: Mapping[str, object]
    output: str
    files: Mapping[str, str]
    pieces: tuple[Piece, ...]

    @cached_property
    def truth(self) -> Truth:
        """The state after every character of `text`."""
        return truth_of(self.pieces)

    def token_truth(self, tokenizer: CodeTokenizer) -> Truth:
        """Return the state after every token of `tokenizer.encode(text)`."""
        ends = accumulate(len(token) for token in tokenizer.tokens(self.text))
        return self.truth.at([end - 1 for end in ends])


class MiniPython:
    """An endless, seeded source of programs; the n-th program depends on the seed and n alone.

    Parameters
    ----------
    seed : int
        Names the sequence of programs.
    longest : int
        A program has 3 to `longest` fragments (a statement, a block, a definition with its use).

    Raises
    ------
    ValueError
        If `longest` is below 3.
    """

    def __init__(self, seed: int, longest: int = 9) -> None:
        if longest < 3:
            raise ValueError(f"longest is {longest}; give at least 3 fragments to a program.")
        self.seed = seed
        self.longest = longest
        self.made = 0

    def program(self) -> Program:
        """Return the next program."""
        draw = Draw("mini-python", self.seed, self.made)
        self.made += 1
        scope = Scope(draw)
        names: dict[str, object] = {}
        pieces: list[Piece] = []
        for i in range(draw.between(3, self.longest)):
            made = assign_new(scope) if i == 0 else draw.pick(MAKERS)(scope)
            fragment = [made] if isinstance(made, Statement) else made or [show(scope)]
            for statement in fragment:
                pieces += statement.pieces
                statement.run(names)
        while pieces[0].text == "\n":
            del pieces[0]
        variables = {name: names[name] for name, kind in scope.kinds.items() if type_of(kind) in VALUE_TYPES}
        output = "".join(f"{shown}\n" for shown in scope.output)
        return Program(text_of(pieces), variables, output, dict(scope.inputs), tuple(pieces))
