"""The mixed language: filler, key-value recall, repeated letters, a sentence about two names, and years that grow.

First used in chapter 8. A sequence is a string of items, and each item says by its first token what it is:

* a **filler** word, drawn from what may follow the word before it;
* **recall**: a key and its value, `k3 v7`; the same key has the same value in all of a sequence;
* **induction**: four to six different letters, and the same letters once more;
* **names**: `n4 and n9 went n4 gave n9`: one of the two acts, and the other gets (indirect object identification);
* **years**: `from y32 to y57`, where the second is greater than the first (greater-than).

The chance of every token is known, so the least possible loss is too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from .chain import CHANCES, START, FillerChain, KnownSequences
from .draw import Draw

SHARES = {"filler": 0.54, "recall": 0.20, "induction": 0.08, "names": 0.09, "years": 0.09}
SIZES = {"key": 8, "value": 16, "letter": 24, "name": 16, "year": 100, "word": 32}
GLUE = ("and", "went", "gave", "from", "to")
SHORTEST, LONGEST = 4, 6
# The first year leaves at least one that is greater, and one that is less.
FIRST_YEARS = range(1, SIZES["year"] - 1)
TASKS = tuple(name for name in SHARES if name != "filler")

# Of a token: its id, its chance, and the task whose answer it is, if any.
Written = tuple[int, float, str | None]


@dataclass(frozen=True)
class MixedLanguage:
    """The mixed language; it has no settings.

    Examples
    --------
    >>> language = MixedLanguage()
    >>> drawn = language.draw(32, 129, seed=0)
    >>> drawn.tokens.shape, drawn.answers.keys()
    (torch.Size([32, 129]), dict_keys(['recall', 'induction', 'names', 'years']))
    """

    @cached_property
    def vocabulary(self) -> list[str]:
        """The tokens in words: `k3`, `v0`, `l7`, `n2`, `y45`, `w17`, and the five of the sentences."""
        return ["<start>", *GLUE, *(f"{kind[0]}{i}" for kind, n in SIZES.items() for i in range(n))]

    @property
    def d_vocab(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary)

    @cached_property
    def chain(self) -> FillerChain:
        """The filler words."""
        return FillerChain(SIZES["word"])

    @cached_property
    def first(self) -> dict[str, int]:
        """The id of token 0 of each kind."""
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        return {kind: ids[f"{kind[0]}0"] for kind in SIZES}

    def token(self, word: str) -> int:
        """Return the id of a token of the sentences, such as `gave`."""
        return 1 + GLUE.index(word)

    def draw(self, n: int, length: int, seed: int) -> KnownSequences:
        """Draw sequences.

        Parameters
        ----------
        n, length : int
            Sequences, and tokens in each, `START` included; the last item may be cut.
        seed : int
            The same seed draws the same sequences.

        Raises
        ------
        ValueError
            If `n` is below 1 or `length` below 2.
        """
        if n < 1 or length < 2:
            raise ValueError(f"{n} sequences of {length} tokens were asked for; give 1 or more, of 2 tokens or more.")
        rows = [self._sequence(Draw("mixed language", seed, row), length) for row in range(n)]
        tokens = torch.tensor([[token for token, _, _ in row] for row in rows])
        chances = torch.tensor([[chance for _, chance, _ in row] for row in rows], dtype=torch.float64)
        answers = {task: torch.tensor([[known == task for _, _, known in row] for row in rows]) for task in TASKS}
        return KnownSequences(tokens, chances[:, 1:].log().float(), answers)

    def _sequence(self, draw: Draw, length: int) -> list[Written]:
        written: list[Written] = [(START, 1.0, None)]
        stated: dict[int, int] = {}
        while len(written) < length:
            kind = self._kind(draw)
            (token, chance, answer), *rest = self._item(kind, draw, written[-1][0], stated)
            written += [(token, SHARES[kind] * chance, answer), *rest]
        return written[:length]

    def _item(self, kind: str, draw: Draw, last: int, stated: dict[int, int]) -> Iterator[Written]:
        match kind:
            case "filler":
                return self._filler(draw, last)
            case "recall":
                return self._recall(draw, stated)
            case "induction":
                return self._induction(draw)
            case "names":
                return self._names(draw)
        return self._years(draw)

    @staticmethod
    def _kind(draw: Draw) -> str:
        point, kinds = draw.below(100) / 100, iter(SHARES)
        kind = next(kinds)
        reached = SHARES[kind]
        while point >= reached - 1e-9:
            kind = next(kinds)
            reached += SHARES[kind]
        return kind

    def _filler(self, draw: Draw, last: int) -> Iterator[Written]:
        word = last - self.first["word"]
        if word < 0:
            yield self.first["word"] + draw.below(SIZES["word"]), 1 / SIZES["word"], None
            return
        point = draw.below(8)
        which = (0, 0, 0, 0, 1, 1, 2, 3)[point]
        yield self.first["word"] + self._successors[word][which], CHANCES[which], None

    @cached_property
    def _successors(self) -> list[list[int]]:
        return self.chain.successors.tolist()

    def _recall(self, draw: Draw, stated: dict[int, int]) -> Iterator[Written]:
        key = draw.below(SIZES["key"])
        known = key in stated
        value = stated.setdefault(key, draw.below(SIZES["value"]))
        yield self.first["key"] + key, 1 / SIZES["key"], None
        yield self.first["value"] + value, 1.0 if known else 1 / SIZES["value"], "recall" if known else None

    def _induction(self, draw: Draw) -> Iterator[Written]:
        letters = draw.sample(range(self.first["letter"], self.first["letter"] + SIZES["letter"]), LONGEST)
        n = draw.between(SHORTEST, LONGEST)
        for i, letter in enumerate(letters[:n]):
            goes_on = _chance_to_go_on(i)
            yield letter, goes_on / (SIZES["letter"] - i), None
        yield letters[0], 1 - _chance_to_go_on(n), None
        for letter in letters[1:n]:
            yield letter, 1.0, "induction"

    def _names(self, draw: Draw) -> Iterator[Written]:
        one, other = (self.first["name"] + i for i in draw.sample(range(SIZES["name"]), 2))
        acts, gets = (one, other) if draw.chance(0.5) else (other, one)
        yield one, 1 / SIZES["name"], None
        yield self.token("and"), 1.0, None
        yield other, 1 / (SIZES["name"] - 1), None
        yield self.token("went"), 1.0, None
        yield acts, 0.5, None
        yield self.token("gave"), 1.0, None
        yield gets, 1.0, "names"

    def _years(self, draw: Draw) -> Iterator[Written]:
        earlier = draw.pick(FIRST_YEARS)
        later = draw.between(earlier + 1, SIZES["year"] - 1)
        yield self.token("from"), 1.0, None
        yield self.first["year"] + earlier, 1 / len(FIRST_YEARS), None
        yield self.token("to"), 1.0, None
        yield self.first["year"] + later, 1 / (SIZES["year"] - 1 - earlier), "years"


def _chance_to_go_on(n: int) -> float:
    """Return the chance that a letter follows the first `n` ones that is none of them."""
    return 1.0 if n < SHORTEST else (LONGEST - n) / (LONGEST - n + 1)
