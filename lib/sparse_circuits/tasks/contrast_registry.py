"""What a contrast task is made of: prompt pairs, pools of names, and the register of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from .draw import Draw, pool

Item = TypeVar("Item")

SPLITS = ("train", "test")

# Each is one token of the shipped tokenizer, with and without a space before it.
NAMES = pool(
    "action args base block buffer child code command config content context copy count current data date default end "
    "error event extra filename first flags frame func group header headers host index item key last level line "
    "lines link local log match member message method mode module msg name names node object offset option options "
    "other out output package parent pattern pos prefix process res result root server size source spec stack start "
    "state stream tag target thread time token top url user value version width work a b c d k m n p u v w x y z"
)
WORDS = pool(
    "apple bird cat dog ear fish green hello ice jam king lamp moon name open pear queen red sun tree up very water "
    "box yes no error file line value start end left right first last new old user list data node path key ok ready "
    "done world blue cold day east fire gold home ink"
)


class Pair(NamedTuple):
    """Two prompts that differ in the cue alone, and their right answers.

    The positive prompt is `before + positive + after`, the negative one `before + negative + after`. Each answer
    followed by its ending makes the prompt a complete program.
    """

    before: str
    positive: str
    negative: str
    after: str
    answer_positive: str
    answer_negative: str
    ending_positive: str
    ending_negative: str

    @property
    def prompts(self) -> tuple[str, str]:
        """The positive and the negative prompt."""
        return self.before + self.positive + self.after, self.before + self.negative + self.after


class Material:
    """Names, words and other material of one split; the splits share none.

    Parameters
    ----------
    draw : Draw
        The stream of choices.
    split : {"train", "test"}
        Of every pool, each third entry is kept for "test".
    """

    def __init__(self, draw: Draw, split: str) -> None:
        self.draw = draw
        self.split = split

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return this split's part of a pool of at least three entries."""
        return [item for i, item in enumerate(items) if (i % 3 == 2) == (self.split == "test")]

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one entry of this split's part of a pool."""
        return self.draw.pick(self.of(items))

    def names(self, k: int, without: Sequence[str] = ()) -> list[str]:
        """Return `k` different names."""
        return self.draw.sample([name for name in self.of(NAMES) if name not in without], k)

    def word(self) -> str:
        """Return a word for use inside a string."""
        return self.pick(WORDS)

    def phrase(self, longest: int = 3) -> str:
        """Return one to `longest` words."""
        return " ".join(self.word() for _ in range(self.draw.between(1, longest)))

    def quoted(self) -> str:
        """Return a string literal in either quote."""
        quote = self.draw.pick("'\"")
        return f"{quote}{self.phrase(2)}{quote}"

    def number(self) -> str:
        """Return a positive integer of one or two digits."""
        return str(self.draw.between(1, 9) if self.draw.chance(0.7) else self.draw.between(10, 99))

    def numbers(self, shortest: int = 1, longest: int = 4) -> str:
        """Return integers with commas between them."""
        return ", ".join(self.number() for _ in range(self.draw.between(shortest, longest)))

    def context(self, without: Sequence[str], most: int = 2) -> str:
        """Return up to `most` lines that have nothing to do with the question; they leave `without` alone."""
        lines = []
        for name in self.names(self.draw.between(0, most), without):
            value = self.draw.pick((self.number, self.quoted, lambda: f"[{self.numbers()}]"))()
            lines.append(f"{name} = {value}\n")
        return "".join(lines)


@dataclass(frozen=True)
class ContrastTask:
    """One question with two candidate answers.

    Attributes
    ----------
    name : str
        Name in the published list (arXiv 2511.13653, Table 1).
    number : int
        Place in that list.
    description : str
        The cue and what it decides.
    candidates : tuple of two str
        The right next token of the positive and of the negative prompt; a word in angle brackets varies.
    differs : str
        How our version differs from the published one, whose templates are not public.
    shown_by : str
        "syntax": each wrong answer is a syntax error. "syntax, positive": so in the positive prompt only; the other
        wrong answer is legal but unusual. "execution": a wrong answer fails, or does something else, when run.
        "convention": Python allows both answers in both prompts.
    make : callable
        Draws one `Pair` from a `Material`.
    """

    name: str
    number: int
    description: str
    candidates: tuple[str, str]
    differs: str
    shown_by: str
    make: Callable[[Material], Pair]


CONTRAST_TASKS: dict[str, ContrastTask] = {}


def contrast_task(
    number: int, candidates: tuple[str, str], differs: str, shown_by: str
) -> Callable[[Callable[[Material], Pair]], Callable[[Material], Pair]]:
    """Register the decorated function under its own name; its docstring is the description."""

    def register(make: Callable[[Material], Pair]) -> Callable[[Material], Pair]:
        name = make.__name__
        description = " ".join((make.__doc__ or "").split())
        CONTRAST_TASKS[name] = ContrastTask(name, number, description, candidates, differs, shown_by, make)
        return make

    return register
