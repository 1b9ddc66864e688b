"""Graders of chapter 9: each runs the reader's answer on shapes, circuits, scores or prompts of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import torch
from torch import Tensor

from ..attribution import eap
from ..circuit import Circuit
from ..components import component_graph
from ..exact_edges import exact_edge_scores
from ..grading import Wrong, grader
from ..planted import planted_quote_circuit
from ..prompt_pairs import PromptPairs

SHAPES = ((1, 1), (2, 3), (3, 4), (6, 8), (12, 12))
TOLERANCE = 1e-4
FEWEST_PAIRS, MOST_PAIRS = 2, 32
SEEN, THERE = 3.0, 0.1
MUST_AGREE = ("universe", "length", "ablation", "recovery", "task")


@grader("09.1")
def grade_edges_of(answer: Callable[..., int]) -> str:
    """Compare the numbers with an enumeration, layer by layer, for several shapes and kinds of blocks."""
    cases = [(*shape, mlps, parallel) for shape in SHAPES for mlps in (True, False) for parallel in (False, True)]
    for n_layers, n_heads, mlps, parallel in cases:
        found, right = (
            answer(n_layers, n_heads, mlps=mlps, parallel=parallel),
            _total(n_layers, n_heads, mlps, parallel),
        )
        kind = ("parallel" if parallel else "serial") if mlps else "attention only"
        case = f"For {n_layers} layers of {n_heads} heads, {kind},"
        if isinstance(found, bool) or not isinstance(found, int):
            raise Wrong(f"{case} you returned {found!r}; return a whole number.")
        if found == right:
            continue
        if found == _total(n_layers, n_heads, mlps, not parallel):
            raise Wrong(f"{case} you count as if the blocks were the other way. Does the MLP see its layer's heads?")
        if found == right - (1 + n_layers * (n_heads + mlps)):
            raise Wrong(f"{case} you forgot one reader at the end: the logits read every source.")
        if 3 * (found - right) == -2 * _into_heads(n_layers, n_heads, mlps):
            raise Wrong(f"{case} you counted each head as one reader. It reads for its query, its key and its value.")
        raise Wrong(f"{case} there are {right:,} edges, and you say {found:,}. Which sources are there before a layer?")
    return f"Right for {len(cases)} shapes."


def _total(n_layers: int, n_heads: int, mlps: bool, parallel: bool) -> int:
    of_mlps = sum(1 + layer * (n_heads + 1) + (0 if parallel else n_heads) for layer in range(n_layers)) if mlps else 0
    return _into_heads(n_layers, n_heads, mlps) + of_mlps + 1 + n_layers * (n_heads + mlps)


def _into_heads(n_layers: int, n_heads: int, mlps: bool) -> int:
    return sum(3 * n_heads * (1 + layer * (n_heads + mlps)) for layer in range(n_layers))


@grader("09.2")
def grade_mended_eap(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> str:
    """Compare the scores with sums written out, on random activations and gradients."""
    generator = torch.Generator().manual_seed(0)
    for n_sources, n_readers, n_prompts, pos, d_model in ((3, 4, 2, 5, 6), (5, 2, 7, 3, 4)):
        clean, corrupted = (torch.randn(n_sources, n_prompts, pos, d_model, generator=generator) for _ in range(2))
        gradients = torch.randn(n_readers, n_prompts, pos, d_model, generator=generator)
        is_edge = torch.rand(n_sources, n_readers, generator=generator) < 0.7
        found = answer(clean.clone(), corrupted.clone(), gradients.clone(), is_edge.clone())
        if not isinstance(found, Tensor) or found.shape != is_edge.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Wrong(f"Return a tensor of shape (source, reader) = {tuple(is_edge.shape)}; yours is {shape}.")
        every = torch.einsum("sbpd,rbpd->sr", corrupted - clean, gradients) / n_prompts
        if torch.allclose(found, torch.where(is_edge, every, 0.0), atol=TOLERANCE):
            continue
        raise Wrong(_what_is_wrong(found, every, is_edge, corrupted - clean, gradients))
    return "Right sign, all positions, mean over prompts."


def _what_is_wrong(found: Tensor, every: Tensor, is_edge: Tensor, change: Tensor, gradients: Tensor) -> str:
    right = torch.where(is_edge, every, 0.0)
    if torch.allclose(found, every, atol=TOLERANCE):
        return "Where there is no edge the score has to be 0; yours is not."
    if torch.allclose(found, -right, atol=TOLERANCE):
        return "All positions count now. But the sign: cutting puts the corrupted value in the place of the clean one."
    last = torch.einsum("sbd,rbd->sr", change[:, :, -1], gradients[:, :, -1]) / change.shape[1]
    if torch.allclose(found.abs(), torch.where(is_edge, last, 0.0).abs(), atol=TOLERANCE):
        return "You look at the last position alone. Edges at earlier ones move what the last one will read."
    ratio = (found[is_edge] / right[is_edge]).abs()
    if ratio.std() < TOLERANCE * ratio.mean():
        return (
            f"Your scores are {float(ratio.mean()):.3g} times what they should be. "
            "Divide by the number of prompts alone."
        )
    return (
        "These are not the scores yet: the change of a source times the gradient of a reader, summed over positions "
        "and coordinates, mean over prompts, with their signs."
    )


@grader("09.3")
def grade_left_after_pruning(answer: Callable[[list[str]], Iterable[str]]) -> str:
    """Prune random sets of edges of small graphs, and a few that catch a common mistake."""
    cases = [
        (["input->m0", "m0->logits"], "A path of two edges is left whole."),
        (["input->a0.h0<q>", "a0.h0->logits"], "A head goes on if any of its three inputs is reached, also a query."),
        (["input->m0", "m0->a1.h0<v>"], "Nobody reads what `a1.h0` writes, so no edge on the way to it is left."),
        (["m0->a1.h0<v>", "a1.h0->logits"], "Nothing reaches `m0` here, so neither of the two is on a path."),
        (["input->m0", "m0->m1", "m2->logits"], "Where the path has a hole, both halves go."),
        ([], "Of no edges none is left."),
    ]
    draw = random.Random(0)
    for n_layers, n_heads in ((2, 2), (3, 3), (4, 2)):
        graph = component_graph(SimpleNamespace(n_layers=n_layers, n_heads=n_heads))
        every = Circuit.full(graph).edges()
        cases += [(draw.sample(every, k), "") for k in (4, 8, 16, 30) for _ in range(5)]
    for edges, hint in cases:
        found = answer(list(edges))
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise Wrong(f"You returned {type(found).__name__}; return a set of names of edges.")
        found, right = set(found), _on_a_path(edges)
        if found == right:
            continue
        shown = ", ".join(edges[:6]) + (", ..." if len(edges) > 6 else "")
        odd = sorted(found ^ right)[0]
        verdict = "should be left and is not" if odd in right else "is left and should not be"
        raise Wrong(f"Of {shown or 'no edges'}: {odd!r} {verdict}. {hint}".strip())
    return f"Right on {len(cases)} sets of edges."


def _on_a_path(edges: Iterable[str]) -> set[str]:
    writers = {name: name.split("->")[0] for name in edges}
    readers = {name: name.split("->")[1].split("<")[0] for name in edges}
    after_input = _reachable("input", [(writers[name], readers[name]) for name in writers])
    before_logits = _reachable("logits", [(readers[name], writers[name]) for name in writers])
    return {name for name in writers if writers[name] in after_input and readers[name] in before_logits}


def _reachable(start: str, steps: list[tuple[str, str]]) -> set[str]:
    """Return the nodes that can be reached, depth first."""
    seen, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [there for here, there in steps if here == node]
    return seen


@grader("09.4")
def grade_misleading_pairs(answer: Iterable[tuple[str, str]]) -> str:
    """Score the reader's pairs exactly and by EAP in the planted quote model."""
    planted = planted_quote_circuit()
    if isinstance(answer, str) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in answer
    ):
        raise Wrong('Give a list of pairs of texts, such as [("print(\'hello", "print(\'bye"), ...].')
    pairs = list(dict.fromkeys(tuple(pair) for pair in answer))
    if not FEWEST_PAIRS <= len(pairs) <= MOST_PAIRS:
        raise Wrong(f"You gave {len(pairs)} different pairs; give {FEWEST_PAIRS} to {MOST_PAIRS}.")
    try:
        clean, corrupted = ([planted.prompt(pair[side]) for pair in pairs] for side in (0, 1))
        asked = PromptPairs.of(clean, corrupted)
    except ValueError as error:
        raise Wrong(str(error)) from error
    exact, estimate = exact_edge_scores(planted.model, asked), eap(planted.model, asked)
    (true_name, true), (name, seen) = exact.ranked(1)[0], estimate.ranked(1)[0]
    if abs(true) > THERE:
        raise Wrong(
            f"Something does happen in your pairs: cutting {true_name} changes the margin by {true:.2f} logits, and at "
            f"most {THERE} is allowed. Change only what the answer does not depend on."
        )
    if abs(seen) < SEEN:
        raise Wrong(
            f"Nothing happens in your pairs, and EAP agrees: its largest score is {seen:.2f}, of {name}; it takes "
            f"{SEEN}. Which head sends a message that the two answers do not hear?"
        )
    return f"EAP says {seen:.1f} logits for {name}; exactly it is {exact[name]:.2g}."


@grader("09.5")
def grade_honest_fold(answer: Callable[[dict, dict], float]) -> str:
    """Ask for folds of circuits that can be compared, and of circuits that differ in one thing."""
    control = {"universe": "attention edges", "length": 63, "ablation": "closed", "recovery": 0.9, "task": "names"}
    control |= {"asked": 1500, "left": 1200, "total": 24192}
    sparse = control | {"asked": 40, "left": 8}
    for one, other, fold in (
        (control, sparse, 150.0),
        (control, sparse | {"left": 1200}, 1.0),
        (control | {"left": 3}, sparse, 0.375),
        (control, sparse | {"total": 1440}, 150.0),
    ):
        found = answer(dict(one), dict(other))
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise Wrong(f"You returned {found!r}; return a number.")
        if abs(found - fold) <= 1e-9:
            continue
        if abs(found * fold - 1) <= 1e-9:
            raise Wrong("Your ratio is upside down: the control's edges over the sparse model's.")
        if abs(found - one["asked"] / other["asked"]) <= 1e-9 or abs(found - one["asked"] / other["left"]) <= 1e-9:
            raise Wrong("You count edges that were asked for. Count those that are left, on both sides.")
        if abs(found - fold * other["total"] / one["total"]) <= 1e-9:
            raise Wrong("You divide by the totals. A fold is a ratio of two numbers of edges.")
        raise Wrong(f"With {one['left']} and {other['left']} edges left the fold is {fold:g}; you say {found:g}.")
    others = {"universe": "component edges", "length": 15, "ablation": "corrupted", "recovery": 0.8, "task": "years"}
    for key in MUST_AGREE:
        _must_refuse(answer, control, sparse | {key: others[key]}, key)
        _must_refuse(answer, control | {key: others[key]}, sparse, key)
    _must_refuse(answer, control, sparse | {"left": 0}, "left")
    return f"The right fold, and {2 * len(MUST_AGREE) + 1} comparisons refused."


def _must_refuse(answer: Callable[[dict, dict], float], control: dict, sparse: dict, key: str) -> None:
    what = "The sparse circuit has no edge left" if key == "left" else f"The circuits differ in {key!r}"
    try:
        found = answer(dict(control), dict(sparse))
    except ValueError as error:
        if key == "left" or key in str(error):
            return
        raise Wrong(f"{what}, and your ValueError says {str(error)!r}. Name the key that differs.") from error
    except ZeroDivisionError as error:
        raise Wrong(f"{what}. Check it before you divide, and raise a ValueError that says so.") from error
    raise Wrong(f"{what}, and you return {found!r}. Raise a ValueError instead.")
