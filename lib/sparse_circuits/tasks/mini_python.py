"""Mini-Python: unlimited small valid programs, and the exact truth about every character of them.

A program is written from statements that know their own structure and do their own work, so brackets, quotes,
indentation, bound names and the values of variables are known by construction; nothing is parsed or executed. The
tests compare with Python's own tokenizer, parser and interpreter.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from .mini.pieces import Truth
from .mini.program import MiniPython, Program
from .tokenizer import CodeTokenizer, load_tokenizer

__all__ = ["MiniPython", "Program", "Truth", "mini_python_tokens"]


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
