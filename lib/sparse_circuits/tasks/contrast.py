"""Contrast pairs: one question, two prompts that differ in the cue alone, two candidate answers.

Our version of the task list of "Weight-sparse transformers have interpretable circuits" (arXiv 2511.13653, Table 1),
whose templates are not public. Each task's `differs` says in what it departs from the published one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from . import contrast_syntax, contrast_values  # noqa: F401  (they register the tasks)
from .contrast_registry import CONTRAST_TASKS, SPLITS, ContrastTask, Material, Pair
from .draw import Draw
from .tokenizer import CodeTokenizer, load_tokenizer

__all__ = ["CONTRAST_TASKS", "ContrastBatch", "ContrastTask", "Pair", "contrast_pairs"]

ATTEMPTS = 500


@dataclass(frozen=True)
class ContrastBatch:
    """Prompt pairs of one task.

    Attributes
    ----------
    task : ContrastTask
        The task.
    positive, negative : int64 tensor, shape (n, pos)
        Prompts led by the start token and padded on the right with the start token, which a causal model cannot see
        from the answer position. The two prompts of a pair have the same length.
    answer_positive, answer_negative : int64 tensor, shape (n,)
        The two candidates: the right next token of the positive and of the negative prompt.
    lengths : int64 tensor, shape (n,)
        Tokens in the prompt, the start token included.
    pairs : tuple of Pair, length n
        The same as text.
    """

    task: ContrastTask
    positive: Int[Tensor, "n pos"]
    negative: Int[Tensor, "n pos"]
    answer_positive: Int[Tensor, " n"]
    answer_negative: Int[Tensor, " n"]
    lengths: Int[Tensor, " n"]
    pairs: tuple[Pair, ...]

    @property
    def position(self) -> Int[Tensor, " n"]:
        """The last position of each prompt, whose logits give the answer."""
        return self.lengths - 1

    @property
    def cue(self) -> Bool[Tensor, "n pos"]:
        """Where the prompts of a pair differ."""
        return self.positive != self.negative

    def __len__(self) -> int:
        return len(self.pairs)


def contrast_pairs(
    name: str,
    n: int,
    seed: int,
    tokenizer: CodeTokenizer | None = None,
    split: str = "train",
    longest: int = 64,
) -> ContrastBatch:
    """Draw prompt pairs of a task.

    Parameters
    ----------
    name : str
        A key of `CONTRAST_TASKS`.
    n : int
        Number of pairs; the first pairs of a longer batch are those of a shorter one.
    seed : int
        Names the sequence of pairs.
    tokenizer : CodeTokenizer, optional
        The shipped tokenizer unless given.
    split : {"train", "test"}
        The splits share no variable name, no word inside strings, and none of the functions, classes, block headers
        and file names that a task draws from; `current` in task 4 is the exception. The shapes of the prompts are
        the same.
    longest : int
        Most tokens of a prompt, the start token included; longer pairs are drawn anew.

    Returns
    -------
    ContrastBatch

    Raises
    ------
    ValueError
        If the task or the split is unknown, `n` is below 1, or the tokenizer or `longest` leaves no pair possible.
    """
    if name not in CONTRAST_TASKS:
        raise ValueError(f"There is no contrast task {name!r}; choose one of {', '.join(sorted(CONTRAST_TASKS))}.")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {SPLITS}.")
    if n < 1:
        raise ValueError(f"n is {n}; give at least 1.")
    tokenizer = tokenizer or load_tokenizer()
    task = CONTRAST_TASKS[name]
    material = Material(Draw("contrast", name, split, seed), split)
    rows = [_fitting_pair(task, material, tokenizer, longest) for _ in range(n)]
    pairs, positives, negatives, answers = zip(*rows, strict=True)
    lengths = torch.tensor([len(ids) for ids in positives])
    answer_positive, answer_negative = torch.tensor(answers).unbind(-1)
    return ContrastBatch(
        task,
        _padded(positives, tokenizer.start_id),
        _padded(negatives, tokenizer.start_id),
        answer_positive,
        answer_negative,
        lengths,
        pairs,
    )


def _padded(rows: tuple[list[int], ...], pad: int) -> Int[Tensor, "n pos"]:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)


def _fitting_pair(
    task: ContrastTask, material: Material, tokenizer: CodeTokenizer, longest: int
) -> tuple[Pair, list[int], list[int], tuple[int, int]]:
    """Draw until a pair has prompts of one length and answers of one token each."""
    for _ in range(ATTEMPTS):
        pair = task.make(material)
        answers = pair.answer_positive, pair.answer_negative
        prompts = [tokenizer.encode(prompt) for prompt in pair.prompts]
        ids = [tokenizer.encode(answer) for answer in answers]
        if len(prompts[0]) != len(prompts[1]) or len(prompts[0]) >= longest or any(len(i) != 1 for i in ids):
            continue
        # An answer must not change how the prompt before it is cut into tokens.
        whole = [
            tokenizer.encode(prompt + answer) == tokens + answer_ids
            for prompt, tokens in zip(pair.prompts, prompts, strict=True)
            for answer, answer_ids in zip(answers, ids, strict=True)
        ]
        if all(whole):
            positive, negative = ([tokenizer.start_id, *tokens] for tokens in prompts)
            return pair, positive, negative, (ids[0][0], ids[1][0])
    raise ValueError(
        f"{ATTEMPTS} pairs of {task.name} were drawn and none had prompts of one length below {longest} tokens with "
        "answers of one token; raise `longest` or use the shipped tokenizer."
    )
