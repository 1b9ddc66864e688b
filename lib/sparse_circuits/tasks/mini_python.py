"""Mini-Python: unlimited small valid programs, and the exact truth about every character of them.

A program is written from statements that know their own structure and do their own work, so brackets, quotes,
indentation, bound names and the values of variables are known by construction; nothing is parsed or executed. The
tests compare with Python's own tokenizer, parser and interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

from .draw import Draw
from .mini.blocks import branches, choice_of_value, for_loop, grow, while_loop
from .mini.classes import class_with_use
from .mini.definitions import anonymous, function, search
from .mini.files import read_input, write_file
from .mini.pieces import Piece, Truth, text_of, truth_of
from .mini.scope import Scope, type_of
from .mini.statements import Statement, assign_new, show, simple, swap
from .tokenizer import CodeTokenizer, load_tokenizer

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


def mini_python_tokens(
    n_tokens: int, seed: int, tokenizer: CodeTokenizer | None = None, longest: int = 9
) -> Int[Tensor, " n_tokens"]:
    """Return a stream of programs as tokens, each program led by the start token; the last one may be cut.

    Raises
    ------
    ValueError
        If `n_tokens` is below 1 or `longest` below 3.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens is {n_tokens}; give at least 1.")
    tokenizer = tokenizer or load_tokenizer()
    source = MiniPython(seed, longest)
    stream: list[int] = []
    while len(stream) < n_tokens:
        for ids in tokenizer.encode_batch([source.program().text for _ in range(64)]):
            stream += (tokenizer.start_id, *ids)
    return torch.tensor(stream[:n_tokens], dtype=torch.int64)
