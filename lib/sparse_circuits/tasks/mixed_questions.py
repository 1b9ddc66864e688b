"""Questions in the mixed language, all of one task with the same kind of token at each position.

First used in chapter 9. Prompts come in couples; each is the corrupted prompt of the other.
"""

from __future__ import annotations

import torch

from ..prompt_pairs import PromptPairs
from ..two_way import TwoWayPrompts
from .chain import START
from .draw import Draw
from .mixed import SIZES, TASKS, MixedLanguage

# How many filler words stand before the question, so that positions are those of a text and not of its beginning.
LEAD = 8
LETTERS, STATED = 5, 4
# Of one prompt: the tokens after the lead, the right answer, the wrong one.
Question = tuple[list[int], int, int]


def mixed_questions(
    task: str, n: int, seed: int, language: MixedLanguage | None = None, lead: int = LEAD
) -> PromptPairs:
    """Return prompts of one task of the mixed language.

    Parameters
    ----------
    task : {"recall", "induction", "names", "years"}
        What is asked:

        * recall: `k3 v7 w w ... k3`, right the value of the key, wrong that of the other prompt's key;
        * induction: five letters and the first of them once more, right the second, wrong the third, which the other
          prompt has in its place;
        * names: `n4 and n9 went n4 gave`, right the other name;
        * years: `from y32 to`, of a couple with the years a < b. After a, right is a year between them and wrong one
          before a; after b, right is a year after b and wrong the one between them.
    n : int
        Couples of prompts; prompts 2i and 2i + 1 are a couple.
    seed : int
        The same seed draws the same prompts.
    language : MixedLanguage, optional
        To share its tables.
    lead : int
        Filler words before the question. The universe of attention edges grows with the square of a prompt's length, so
        a count of them has to say it.

    Raises
    ------
    ValueError
        If there is no such task, `n` is below 1, or `lead` is negative.
    """
    if task not in TASKS:
        raise ValueError(f"There is no task {task!r} in the mixed language; choose one of {list(TASKS)}.")
    if n < 1:
        raise ValueError(f"{n} couples were asked for; give 1 or more.")
    if lead < 0:
        raise ValueError(f"lead is {lead}; give the number of filler words before the question, 0 or more.")
    language = language or MixedLanguage()
    ask = {"recall": _recall, "induction": _induction, "names": _names, "years": _years}[task]
    generator = torch.Generator().manual_seed(seed)
    words = language.first["word"] + language.chain.walks(n, lead, generator)
    rows, corrupted, right, wrong = [], [], [], []
    for i, before in enumerate(words.tolist()):
        couple = ask(language, Draw(f"questions about {task}", seed, i))
        whole = [[START, *before, *question] for question, _, _ in couple]
        rows += whole
        corrupted += whole[::-1]
        right += [answer for _, answer, _ in couple]
        wrong += [other for _, _, other in couple]
    tokens = torch.tensor(rows)
    last = torch.full((2 * n,), tokens.shape[1] - 1)
    return PromptPairs(TwoWayPrompts(tokens, last, torch.tensor(right), torch.tensor(wrong)), torch.tensor(corrupted))


def _recall(language: MixedLanguage, draw: Draw) -> tuple[Question, Question]:
    keys = [language.first["key"] + i for i in draw.sample(range(SIZES["key"]), STATED)]
    values = [language.first["value"] + i for i in draw.sample(range(SIZES["value"]), STATED)]
    text = []
    for key, value in zip(keys, values, strict=True):
        word = draw.below(SIZES["word"])
        following = language.chain.successors[word, 0].item()
        text += [key, value, language.first["word"] + word, language.first["word"] + following]
    return ([*text, keys[0]], values[0], values[2]), ([*text, keys[2]], values[2], values[0])


def _induction(language: MixedLanguage, draw: Draw) -> tuple[Question, Question]:
    start, one, other, *rest = (language.first["letter"] + i for i in draw.sample(range(SIZES["letter"]), LETTERS))
    return ([start, one, other, *rest, start], one, other), ([start, other, one, *rest, start], other, one)


def _names(language: MixedLanguage, draw: Draw) -> tuple[Question, Question]:
    one, other = (language.first["name"] + i for i in draw.sample(range(SIZES["name"]), 2))
    text = [one, language.token("and"), other, language.token("went")]
    gave = language.token("gave")
    return ([*text, one, gave], other, one), ([*text, other, gave], one, other)


def _years(language: MixedLanguage, draw: Draw) -> tuple[Question, Question]:
    before, earlier, between, later, after = sorted(draw.sample(range(SIZES["year"]), 5))
    first = language.first["year"]
    asked = [[language.token("from"), first + year, language.token("to")] for year in (earlier, later)]
    return (asked[0], first + between, first + before), (asked[1], first + after, first + between)
