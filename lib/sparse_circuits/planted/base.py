"""What every planted circuit offers: the model, its known circuit, and prompts with right and wrong answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..circuit import Circuit
from ..graph import Graph, as_matrix, as_weight
from ..model import Transformer, TransformerConfig

BATCH = 512


@dataclass(frozen=True)
class Prompt:
    """One question to a planted model.

    Parameters
    ----------
    tokens : tuple of int
        The prompt; the model answers after the last token.
    right, wrong : int
        The token that closes what is open, and the other candidate.
    group : str
        What kind of prompt this is, for tables.
    """

    tokens: tuple[int, ...]
    right: int
    wrong: int
    group: str


@dataclass(frozen=True, eq=False)
class PlantedCircuit:
    """A model compiled by hand, its known circuit, and its task.

    Parameters
    ----------
    name : str
        Short name, for titles.
    model : Transformer
        The compiled model.
    circuit : Circuit
        The nodes and edges that solve the task; a subset of the model's weight graph.
    vocabulary : tuple of str
        The text of each token.
    channels : tuple of str
        What each coordinate of the residual stream means; `d_model` of them.
    carries : mapping of str to str
        For every edge of the model, inside the circuit and outside, what it carries.
    exhaustive_tokens : int
        The length up to which `every_prompt` and `accuracy` go through all valid prompts unless told otherwise.
    draw : callable
        Draws one valid prompt from a `random.Random`.
    shapes : callable
        Lists the valid prompts of at most so many tokens, up to tokens that the model cannot tell apart.
    read : callable
        Makes a `Prompt` of some tokens, or None if they are not a valid prompt.
    rule : str
        What a valid prompt is, in words.
    """

    name: str
    model: Transformer
    circuit: Circuit
    vocabulary: tuple[str, ...]
    channels: tuple[str, ...]
    carries: Mapping[str, str]
    exhaustive_tokens: int
    draw: Callable[[random.Random], Prompt]
    shapes: Callable[[int], Iterable[Prompt]]
    read: Callable[[tuple[int, ...]], Prompt | None]
    rule: str

    @property
    def graph(self) -> Graph:
        """The model's weight graph, of which the circuit is a subset."""
        return self.circuit.graph

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; at each place the longest token that fits.

        Raises
        ------
        ValueError
            If no token fits somewhere.
        """
        tokens, at = [], 0
        while at < len(text):
            token = next((t for t in self._longest_first if text.startswith(self.vocabulary[t], at)), None)
            if token is None:
                raise ValueError(f"No token begins {text[at : at + 12]!r}; the vocabulary is {list(self.vocabulary)}.")
            tokens.append(token)
            at += len(self.vocabulary[token])
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of some tokens."""
        return "".join(self.vocabulary[token] for token in tokens)

    def prompt(self, text: str) -> Prompt:
        """Return the prompt with this text, with its right and wrong answer.

        Raises
        ------
        ValueError
            If the text is not a valid prompt of this task, or is longer than the model reads.
        """
        tokens = tuple(self.encode(text))
        if len(tokens) > self.model.cfg.n_ctx:
            raise ValueError(
                f"{text!r} has {len(tokens)} tokens; the model reads {self.model.cfg.n_ctx}, so shorten it."
            )
        prompt = self.read(tokens)
        if prompt is None:
            raise ValueError(f"{text!r} is not a valid prompt of this task. {self.rule}")
        return prompt

    def sample(self, n: int, seed: int) -> list[Prompt]:
        """Return `n` valid prompts of any length up to `n_ctx`, drawn with `seed`.

        Raises
        ------
        ValueError
            If `n` is negative.
        """
        if n < 0:
            raise ValueError(f"n is {n}; ask for zero prompts or more.")
        generator = random.Random(seed)
        return [self.draw(generator) for _ in range(n)]

    def every_prompt(self, max_tokens: int | None = None) -> list[Prompt]:
        """Return every valid prompt of at most `max_tokens` tokens, one for all that the model cannot tell apart.

        Two prompts are one here if they differ only in tokens with equal rows in `W_E` (the words; the numbers).

        Parameters
        ----------
        max_tokens : int, optional
            `exhaustive_tokens` if not given; at most `n_ctx`.

        Raises
        ------
        ValueError
            If `max_tokens` is more than the model reads.
        """
        limit = self.exhaustive_tokens if max_tokens is None else max_tokens
        if limit > self.model.cfg.n_ctx:
            raise ValueError(f"max_tokens is {limit}; the model reads {self.model.cfg.n_ctx} tokens, so ask for fewer.")
        return list(self.shapes(limit))

    @torch.no_grad()
    def logits(self, prompts: Sequence[Prompt], model: Transformer | None = None) -> Float[Tensor, "prompt d_vocab"]:
        """Return the logits after the last token of each prompt, of the planted model or of another one.

        Shorter prompts are filled up on the right, which a causal model at the last token of the prompt cannot see. For
        the same reason a prompt that begins a longer one is read off that one's run.

        Raises
        ------
        ValueError
            If there are no prompts, or the model has another vocabulary.
        """
        model = self.model if model is None else model
        if not prompts:
            raise ValueError("There are no prompts; give at least one, for example sample(100, seed=0).")
        if model.cfg.d_vocab != len(self.vocabulary):
            raise ValueError(f"The model knows {model.cfg.d_vocab} tokens; this task has {len(self.vocabulary)}.")
        tokens, rows, ends = _packed(tuple(prompts))
        parts = [model(part.to(model.W_U.device)).cpu() for part in tokens.split(BATCH)]
        return torch.cat(parts)[rows, ends]

    def answers(self, prompts: Sequence[Prompt], model: Transformer | None = None) -> list[int]:
        """Return the token with the largest logit after each prompt."""
        return self.logits(prompts, model).argmax(-1).tolist()

    def accuracy(self, model: Transformer | None = None, prompts: Sequence[Prompt] | None = None) -> float:
        """Return the fraction of prompts whose right token has the largest logit of the whole vocabulary.

        Parameters
        ----------
        model : Transformer, optional
            The planted model if not given.
        prompts : sequence of Prompt, optional
            `every_prompt()` if not given.
        """
        prompts = self._every if prompts is None else prompts
        return sum(a == p.right for a, p in zip(self.answers(prompts, model), prompts, strict=True)) / len(prompts)

    @cached_property
    def _every(self) -> list[Prompt]:
        return self.every_prompt()

    @cached_property
    def _longest_first(self) -> list[int]:
        return sorted(range(len(self.vocabulary)), key=lambda token: -len(self.vocabulary[token]))


@lru_cache(maxsize=16)
def _packed(
    prompts: tuple[Prompt, ...],
) -> tuple[Int[Tensor, "run pos"], Int[Tensor, " prompt"], Int[Tensor, " prompt"]]:
    """Return the sequences to run, and for each prompt its sequence and the place of its last token there."""
    runs: list[tuple[int, ...]] = []
    run_of = {}
    for tokens in sorted({prompt.tokens for prompt in prompts}, reverse=True):
        # In this order a sequence comes right after those that it begins, so only the latest run can hold it.
        if not runs or runs[-1][: len(tokens)] != tokens:
            runs.append(tokens)
        run_of[tokens] = len(runs) - 1
    longest = max(map(len, runs))
    padded = torch.tensor([run + (0,) * (longest - len(run)) for run in runs])
    rows = torch.tensor([run_of[prompt.tokens] for prompt in prompts])
    return padded, rows, torch.tensor([len(prompt.tokens) - 1 for prompt in prompts])


@torch.no_grad()
def compiled(cfg: TransformerConfig, entries: Mapping[str, Mapping[tuple[int, ...], float]]) -> Transformer:
    """Return a model whose weights are zero but for the listed entries.

    Parameters
    ----------
    cfg : TransformerConfig
        Shape of the model.
    entries : mapping of str to mapping of index to float
        For each parameter, the value at each index. Attention matrices are indexed (source, target), as edges are.
    """
    model = Transformer(cfg).eval()
    for weight in model.parameters():
        weight.zero_()
    for name, values in entries.items():
        weight = model.get_parameter(name)
        matrix = as_matrix(name, weight).clone() if ".W_" in name else weight.clone()
        for index, value in values.items():
            matrix[index] = value
        weight.copy_(as_weight(name, matrix, cfg.n_heads) if ".W_" in name else matrix)
    return model
