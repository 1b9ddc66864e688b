"""Is a list nested? Prompts in the style of mini-Python, and the circuits that answer them.

First used in chapter 6. After `x = [[1, 2]` one bracket is still open and `]` is right; after `x = [1, 2]` none is, and
the line ends. A file of circuits is made, and gone on with after a kill, by

    python -m sparse_circuits.nesting MODEL --output FILE [--targets ...] [--calibrate]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from .ablation_values import AblationValues, mean_values
from .found_circuits import (
    REFERENCE_SEED,
    REFERENCE_WINDOWS,
    FoundCircuits,
    circuits_parser,
    search_into_file,
    search_task,
)
from .mask_learning import PruningConfig
from .model import Transformer
from .search_files import config_of
from .tasks.draw import Draw
from .tasks.mini.literals import WORDS, number
from .tasks.mini.pieces import text_of
from .tasks.mini.scope import NAMES
from .tasks.mini_python import mini_python_tokens
from .tasks.tokenizer import CodeTokenizer, load_tokenizer
from .training import random_windows
from .two_way import TwoWayPrompts

TASK = "nesting"
# A row of a nested list has as many numbers in the training stream, and up to so many lines go before.
MOST_ITEMS, MOST_LINES = 3, 2
REFERENCE_TOKENS = 200_000


def nesting_texts(
    n: int, seed: int, *, items: int | None = None, rows: int = 1, lines: int | None = None, first: str = ""
) -> list[tuple[str, str]]:
    """Draw pairs of programs that end with the `]` of a list: in one a bracket is still open, in the other none is.

    Parameters
    ----------
    n : int
        Number of pairs.
    seed : int
        Names the sequence of pairs.
    items : int, optional
        Numbers in each row; one to three, drawn, if not given.
    rows : int
        Rows of the list. With one, the other half of the pair is a flat list: `[[1, 2]` and `[1, 2]`. With more, it is
        the same list with its last bracket: `[[1, 2], [3]` and `[[1, 2], [3]]`.
    lines : int, optional
        Assignments before the list; none to two, drawn, if not given.
    first : str
        Text before everything else.

    Returns
    -------
    list of (str, str)
        The program whose right next token is `]`, and the one whose right next token is a line break.

    Raises
    ------
    ValueError
        If a number is below 1, or `lines` below 0.
    """
    for name, value, least in (("n", n, 1), ("items", items, 1), ("rows", rows, 1), ("lines", lines, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; give at least {least}.")
    draw = Draw("nesting", seed)
    pairs = []
    for _ in range(n):
        before = first + "".join(_line(draw) for _ in range(draw.between(0, MOST_LINES) if lines is None else lines))
        made = ", ".join(_row(draw, items) for _ in range(rows))
        name = draw.pick(NAMES["list"])
        closed = made if rows == 1 else f"[{made}]"
        pairs.append((f"{before}{name} = [{made}", f"{before}{name} = {closed}"))
    return pairs


def nesting_prompts(n: int, seed: int, tokenizer: CodeTokenizer | None = None, **shape) -> TwoWayPrompts:
    """Return both programs of `n` pairs as prompts, side by side: prompt 2i wants `]`, prompt 2i + 1 a line break.

    Parameters and errors as in `nesting_texts`.
    """
    return prompts_of(nesting_texts(n, seed, **shape), tokenizer)


def prompts_of(pairs: Iterable[tuple[str, str]], tokenizer: CodeTokenizer | None = None) -> TwoWayPrompts:
    """Return pairs of programs as prompts; the first of each pair wants `]`, the second a line break."""
    tokenizer = tokenizer or load_tokenizer()
    rows = [torch.tensor([tokenizer.start_id, *tokenizer.encode(text)]) for pair in pairs for text in pair]
    candidates = torch.tensor([tokenizer.id("]"), tokenizer.id("\n")]).repeat(len(rows) // 2)
    return TwoWayPrompts(
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.start_id),
        torch.tensor([len(row) - 1 for row in rows]),
        candidates,
        candidates.view(-1, 2).flip(1).flatten(),
    )


def mini_python_values(model: Transformer) -> AblationValues:
    """Return the mean activations over mini-Python programs that the searches on mini-Python models ablate with."""
    stream = mini_python_tokens(REFERENCE_TOKENS, seed=REFERENCE_SEED)
    windows = random_windows(stream, model.cfg.n_ctx, REFERENCE_WINDOWS, REFERENCE_SEED)(0)
    return mean_values(model, windows, "mini-Python programs")


def search(
    model: Transformer,
    found: FoundCircuits,
    targets: Iterable[float],
    config: PruningConfig | None = None,
    restarts: int = 1,
) -> Iterator[dict]:
    """Search the circuits of the nesting task that `found` does not hold yet; parameters as in `found_circuits`."""
    config = PruningConfig() if config is None else config
    return search_task(model, found, TASK, nesting_prompts, mini_python_values(model), targets, config, restarts)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and search."""
    options = circuits_parser("nesting", __doc__.splitlines()[0]).parse_args(arguments)
    search_into_file(
        options, lambda model, found: search(model, found, options.targets, config_of(options), options.restarts)
    )


def _row(draw: Draw, items: int | None) -> str:
    count = draw.between(1, MOST_ITEMS) if items is None else items
    return "[" + ", ".join(text_of(number(draw).pieces) for _ in range(count)) + "]"


def _line(draw: Draw) -> str:
    kind = draw.pick(("int", "str", "bool"))
    quote = draw.pick("'\"")
    value = {
        "int": text_of(number(draw).pieces),
        "str": f"{quote}{draw.pick(WORDS)}{quote}",
        "bool": draw.pick(("True", "False")),
    }
    return f"{draw.pick(NAMES[kind])} = {value[kind]}\n"


if __name__ == "__main__":
    main()
