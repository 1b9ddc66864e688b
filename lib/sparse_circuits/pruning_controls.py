"""Search for a circuit where there should be none: the controls of a search that found one.

First used in chapter 5. A small circuit says something about a model only if the same search does not find one as small
for labels that nobody trained (J. Drori, "Weight-Sparse Circuits May Be Interpretable Yet Unfaithful", LessWrong,
9 February 2026), or in a model with random weights. A file of such searches is made, and gone on with after a kill, by

    python -m sparse_circuits.pruning_controls MODEL --output FILE [--controls ...] [--calibrate]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from .ablation import ablated
from .ablation_masks import nodes_outside
from .ablation_values import AblationValues, zero_values
from .calibration import UNCALIBRATED, Calibration, task_loss
from .checkpoints import load_model
from .circuit import Circuit
from .found_circuits import FRESH, LEARNING, SELECTION, reference_values
from .mask_learning import PruningConfig
from .model import Transformer
from .pruning import Pruned, attempt, check_values, circuit_loss
from .search_files import config_of, node_lists, read_records, search_parser, weights_digest, write_records
from .sparsity.selection import keep_largest
from .sparsity.weights import sparse_weights
from .tasks.tokenizer import load_tokenizer
from .two_way import TwoWayPrompts, task_prompts, two_way_loss

KIND = "control searches"
TASK = "single_double_quote"
# After which closing quote the nonsense task wants which word.
NONSENSE = {'"': "import", "'": "return"}
HALVES = 10


def relabelled(prompts: TwoWayPrompts, answers: Mapping[int, int]) -> TwoWayPrompts:
    """Return the same prompts with other candidates: each candidate is replaced by what `answers` has for it.

    Parameters
    ----------
    prompts : TwoWayPrompts
        The prompts of a task; every candidate has to be in `answers`.
    answers : mapping of int to int
        Token id of each candidate, and of the one that takes its place.

    Raises
    ------
    ValueError
        If a candidate is not in `answers`, or two candidates of one prompt become the same token.
    """
    missing = sorted({*prompts.right.tolist(), *prompts.wrong.tolist()} - set(answers))
    if missing:
        raise ValueError(f"answers has nothing for the candidates {missing}; it has {sorted(answers)}, give all.")
    right, wrong = (torch.tensor([answers[t] for t in ids.tolist()]) for ids in (prompts.right, prompts.wrong))
    if (right == wrong).any():
        raise ValueError(
            f"answers is {dict(answers)} and makes both candidates of a prompt equal; give different ones."
        )
    return replace(prompts, right=right, wrong=wrong)


def nonsense_prompts(n: int, seed: int, split: str = "train") -> TwoWayPrompts:
    """Return prompts of the quote task with labels that nobody trained: `import` after `"`, `return` after `'`.

    Parameters and errors as in `task_prompts`.
    """
    token = load_tokenizer().id
    answers = {token(quote): token(word) for quote, word in NONSENSE.items()}
    return relabelled(task_prompts(TASK, n, seed, split), answers)


@torch.no_grad()
def random_twin(model: Transformer, seed: int) -> Transformer:
    """Return a model of the same shape with the weights of an initialisation, and as many zeros in each matrix.

    Parameters
    ----------
    model : Transformer
        Left as it is.
    seed : int
        Of the weights. Of each matrix the largest are kept, as many as `model` has non-zeros there.
    """
    twin = Transformer(model.cfg, seed=seed).eval()
    for name, weight in sparse_weights(twin):
        weight.copy_(keep_largest(weight, int(model.get_parameter(name).count_nonzero())))
    return twin


def search_regardless(
    model: Transformer,
    prompts: TwoWayPrompts,
    selection: TwoWayPrompts,
    values: AblationValues,
    config: PruningConfig | None = None,
) -> Pruned:
    """Search as `prune` does, also if the whole model does not solve the task.

    Parameters
    ----------
    model, prompts, selection, values, config
        As in `prune`.

    Returns
    -------
    Pruned
        If no mask met the target on the selection prompts, the mask as it was learned last: its `loss` is then above
        `config.target_loss`, and its stages hold `"mask"` alone.

    Raises
    ------
    ValueError
        If the values were made for another model or for single prompts.
    """
    config = PruningConfig() if config is None else config
    check_values(model, values)
    return attempt(model, prompts, selection, values, config, keep_missed=True)


def half_losses(
    model: Transformer,
    circuit: Circuit,
    prompts: TwoWayPrompts,
    values: AblationValues,
    calibration: Calibration = UNCALIBRATED,
    n: int = HALVES,
) -> list[float]:
    """Return the task loss with a random half of what is outside a circuit ablated, for each of `n` halves.

    Parameters
    ----------
    model, circuit, prompts, values, calibration
        As in `circuit_loss`.
    n : int
        Number of halves, with the seeds 0, 1, ...
    """
    losses = []
    for seed in range(n):
        with ablated(model, nodes_outside(circuit), values=values, share=0.5, seed=seed):
            losses.append(task_loss(model, prompts, calibration))
    return losses


def _controls() -> dict[str, Callable[[Transformer], tuple]]:
    """For each control, what it makes of a model: the model to search, how prompts are drawn, and the values."""

    def quotes(n: int, seed: int) -> TwoWayPrompts:
        return task_prompts(TASK, n, seed)

    def with_twin(model: Transformer) -> tuple:
        # Of the weights, so that models which differ in nothing but their seed do not share a twin.
        twin = random_twin(model, int(weights_digest(model)[:8], 16))
        return twin, quotes, reference_values(twin)

    return {
        "nonsense labels": lambda model: (model, nonsense_prompts, reference_values(model)),
        "random weights": with_twin,
        "zeros for means": lambda model: (model, quotes, zero_values()),
    }


CONTROLS = tuple(_controls())


def search_controls(
    model: Transformer, records: list[dict], controls: Iterable[str] = CONTROLS, config: PruningConfig | None = None
) -> Iterator[dict]:
    """Make the control searches that are not among `records` yet, and add them one by one.

    Parameters
    ----------
    model : Transformer
        The model whose circuits are to be controlled.
    records : list of dict
        Gets the new records.
    controls : iterable of str
        Names from `CONTROLS`.
    config : PruningConfig, optional
        As in `prune`.

    Yields
    ------
    dict
        `control`, `target_loss`, `calibrated`, `steps` (of the learning), `nodes` and `edges` (counts), `kept`
        (coordinates by location), `selection_loss`, `fresh_loss` (prompts that no search has seen), `whole_loss` (the
        same prompts, nothing ablated), `half_losses` (the same prompts, random halves of the rest ablated), all losses
        in nats per prompt, and `cpu_seconds`. With calibration all but `whole_loss` are after scale and offset.

    Raises
    ------
    ValueError
        If a control has an unknown name.
    """
    config = PruningConfig() if config is None else config
    known = _controls()
    for control in controls:
        if control not in known:
            raise ValueError(f"There is no control {control!r}; choose from {list(known)}.")
        search = {
            "control": control,
            "target_loss": config.target_loss,
            "calibrated": config.calibrate,
            "steps": config.steps,
        }
        if any(search.items() <= record.items() for record in records):
            continue
        started = time.process_time()
        searched, draw, values = known[control](model)
        learning, selection, fresh = (draw(n, seed) for n, seed in (LEARNING, SELECTION, FRESH))
        found = search_regardless(searched, learning, selection, values, config)
        alone = (searched, found.circuit, fresh, values, found.calibration)
        record = search | {
            "nodes": found.circuit.count_nodes(),
            "edges": found.circuit.count_edges(),
            "kept": node_lists(found.circuit),
            "selection_loss": round(found.loss, 6),
            "fresh_loss": round(circuit_loss(*alone), 6),
            "whole_loss": round(two_way_loss(searched, fresh), 6),
            "half_losses": [round(loss, 6) for loss in half_losses(*alone)],
            "cpu_seconds": round(time.process_time() - started, 1),
        }
        records.append(record)
        yield record


def read_controls(path: str | os.PathLike, model: Transformer) -> list[dict]:
    """Return the records of a file of control searches.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no control searches, or those of a model with other weights.
    """
    return read_records(path, KIND, weights_digest(model))


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and search."""
    parser = search_parser("pruning_controls", __doc__.splitlines()[0])
    parser.add_argument(
        "--controls", nargs="+", default=list(CONTROLS), choices=CONTROLS, help="which searches (default: all)"
    )
    options = parser.parse_args(arguments)
    model = load_model(options.model)
    weights = weights_digest(model)
    records = read_records(options.output, KIND, weights) if options.output.exists() else []
    for record in search_controls(model, records, options.controls, config_of(options)):
        write_records(options.output, KIND, weights, records)
        print({key: value for key, value in record.items() if key != "kept"}, flush=True)


if __name__ == "__main__":
    main()
