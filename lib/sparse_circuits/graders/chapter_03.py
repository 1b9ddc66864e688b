"""Graders of chapter 3: each runs the reader's answer, on a small random model or on a planted one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ..ablation import ablated
from ..ablation_masks import masks_of_nodes
from ..ablation_values import AblationValues, mean_values
from ..circuit import Circuit
from ..circuit_scores import CircuitScore, stochastic_scores
from ..controls import random_circuit
from ..grading import Wrong, grader
from ..graph import weight_graph
from ..metrics import logit_difference, match_with_label
from ..model import Transformer, TransformerConfig
from ..planted import Prompt, planted_bracket_circuit, planted_cancelling_heads, planted_quote_circuit

TOLERANCE = 1e-4
SPARE = (1, 2)
HALVES = 20
FAILING_HALVES = 2
BROKEN = 0.75
PAR_NODES = 17
MARGIN = 1.0
LONGEST_BRACKETS = 10


def _same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected.double(), atol=TOLERANCE)


def _tensor_like(found: object, expected: Tensor) -> Tensor:
    if not isinstance(found, Tensor):
        raise Wrong(f"Your function returned {type(found).__name__}; return a tensor.")
    if found.shape != expected.shape:
        raise Wrong(f"Your result has shape {tuple(found.shape)}; it should have {tuple(expected.shape)}.")
    return found


def _small_model() -> Transformer:
    shape = {"n_layers": 3, "d_model": 12, "n_heads": 2, "d_head": 4, "d_mlp": 16}
    return Transformer(TransformerConfig(d_vocab=13, n_ctx=10, **shape), seed=1)


class _Untouched:
    """Raise `Wrong` if the reader's function leaves a hook or another weight behind."""

    def __init__(self, model: Transformer, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self.weights = [weight.clone() for weight in model.parameters()]
        self.logits = model(tokens)

    def check(self) -> None:
        if not all(map(torch.equal, self.weights, self.model.parameters())):
            raise Wrong("Your function changed the weights of the model. Replace the activation instead.")
        if not torch.equal(self.model(self.tokens), self.logits):
            raise Wrong("Your function leaves a hook on the model. Use run_with_hooks, or a context that ends.")


def _activations(model: Transformer, tokens: Tensor, location: str) -> Tensor:
    _, cached = model.run_with_cache(tokens, names_filter=location)
    return cached[location].flatten(2)


@grader("03.1")
@torch.no_grad()
def mean_ablation_by_hand(answer: Callable[[Transformer, Tensor, Tensor, str, int], Tensor]) -> str:
    """Compare the reader's logits with those of a run in which one coordinate is set by hand."""
    model = _small_model()
    tokens, reference = torch.randint(13, (5, 8)), torch.randint(13, (40, 10))
    cases = (("blocks.1.mlp.hook_post", 3), ("blocks.2.attn.hook_v", 5), ("blocks.0.hook_attn_out", 7))
    watch = _Untouched(model, tokens)
    for location, channel in cases:
        own, far = (_activations(model, prompts, location)[..., channel] for prompts in (tokens, reference))
        expected = _with_value(model, tokens, location, channel, far.mean())
        found = _tensor_like(answer(model, tokens, reference, location, channel), expected)
        watch.check()
        if _same(found, expected):
            continue
        attempts = {
            "That is zero ablation. Which number stands for what the node usually carries?": torch.tensor(0.0),
            "You took the mean over the prompts that you test; take it over the reference.": own.mean(),
            "You took one mean for each position; this exercise asks for one over all tokens.": far.mean(0)[:8],
            "You took one mean for each prompt; this exercise asks for one over all tokens.": own.mean(1, keepdim=True),
        }
        for message, value in attempts.items():
            if _same(found, _with_value(model, tokens, location, channel, value)):
                raise Wrong(message)
        if _same(found, model(tokens)):
            raise Wrong(
                "Nothing was ablated: your logits are those of the intact model. Does your hook return a value?"
            )
        raise Wrong(
            f"With {location}[{channel}] at its mean the logits are others. Is it that coordinate of that layer, at "
            "every position, and no other? Heads lie side by side: flatten(2) first."
        )
    return f"Equal to {len(cases)} runs in which the coordinate was set by hand."


def _with_value(model: Transformer, tokens: Tensor, location: str, channel: int, value: Tensor) -> Tensor:
    def put(activation: Tensor, hook) -> Tensor:
        flat = activation.flatten(2).clone()
        flat[..., channel] = value
        return flat.view_as(activation)

    return model.run_with_hooks(tokens, fwd_hooks=[(location, put)])


@grader("03.2")
@torch.no_grad()
def mean_over_the_right_tokens(answer: Callable[[Transformer, Tensor, Tensor, Tensor, str], Tensor]) -> str:
    """Compare the reader's means with a sum over the real tokens of the reference, one by one."""
    model = _small_model()
    tokens, reference = torch.randint(1, 13, (6, 7)), torch.randint(1, 13, (30, 9))
    lengths = torch.randint(2, 9, (30,))
    lengths[0] = 9
    for row, length in zip(reference, lengths.tolist(), strict=True):
        row[length:] = 0
    for location in ("blocks.1.mlp.hook_post", "blocks.0.attn.hook_k"):
        far, own = _activations(model, reference, location), _activations(model, tokens, location)
        real = [far[row, p] for row, length in enumerate(lengths.tolist()) for p in range(length)]
        expected = torch.stack(real).mean(0)
        found = _tensor_like(answer(model, tokens, reference, lengths, location), expected)
        if _same(found, expected):
            continue
        if _same(found, own.mean((0, 1))):
            raise Wrong("You still take the mean over the prompts under test. Whose mean is meant?")
        if _same(found, far.mean((0, 1))):
            raise Wrong("The reference is right. How many of the tokens that you count are padding?")
        per_prompt = torch.stack([far[row, :length].mean(0) for row, length in enumerate(lengths.tolist())]).mean(0)
        if _same(found, per_prompt):
            raise Wrong("You took the mean of one mean per prompt: a short prompt counts as much as a long one.")
        raise Wrong("Padding may be left out, but other tokens are too, or counted twice. A prompt of n tokens has n.")
    return "The mean is over the reference, every real token once, no padding."


@grader("03.3")
@torch.no_grad()
def sufficient_and_necessary(
    answer: Callable[[Transformer, Tensor, Callable, Circuit, AblationValues], tuple[float, float]],
) -> str:
    """Compare both numbers with the metric of runs whose nodes are listed one by one."""
    planted = planted_quote_circuit()
    question = _Question.of(_prompts_with_one_string())
    tokens, metric, values = question.tokens, question.margin, question.means(planted.model)
    watch = _Untouched(planted.model, tokens)
    missing = planted.circuit.without(nodes=["blocks.0.mlp.hook_post[1]"])
    every = set(Circuit.full(planted.graph).nodes())
    for circuit in (planted.circuit, missing, random_circuit(planted.circuit, seed=0, match="nodes")):
        inside = set(circuit.nodes())
        expected = [_metric_without(planted.model, tokens, metric, nodes, values) for nodes in (every - inside, inside)]
        zeroed = [_metric_without(planted.model, tokens, metric, nodes, None) for nodes in (every - inside, inside)]
        found = answer(planted.model, tokens, metric, circuit, values)
        watch.check()
        try:
            pair = [float(number) for number in found]
        except TypeError:
            pair = []
        if len(pair) != 2:
            raise Wrong(f"Return two numbers, how well the circuit does alone and the rest without it; got {found!r}.")
        if all(abs(a - b) < TOLERANCE for a, b in zip(pair, expected, strict=True)):
            continue
        if all(abs(a - b) < TOLERANCE for a, b in zip(pair, reversed(expected), strict=True)):
            raise Wrong("The two are swapped. For the first number, what is ablated: the circuit, or all but it?")
        if all(abs(a - b) < TOLERANCE for a, b in zip(pair, zeroed, strict=True)):
            raise Wrong("You ablated with zero. Use the values that the function is given.")
        which = "first" if abs(pair[0] - expected[0]) >= TOLERANCE else "second"
        raise Wrong(
            f"For a circuit of {len(inside)} nodes the {which} number should be "
            f"{expected[which == 'second']:.3f}; yours is {pair[which == 'second']:.3f}. Which nodes are ablated in it?"
        )
    return "Both numbers are right for the planted circuit, for one that lacks a node, and for a random one."


def _metric_without(model: Transformer, tokens: Tensor, metric: Callable, nodes: Iterable[str], values) -> float:
    with ablated(model, sorted(nodes), values=values):
        return float(metric(model(tokens)))


@cache
def _prompts_with_one_string() -> tuple[Prompt, ...]:
    planted = planted_quote_circuit()
    openings = {planted.vocabulary.index(token) for token in ('("', "('")}
    return tuple(p for p in planted.every_prompt() if sum(token in openings for token in p.tokens) == 1)


@dataclass(frozen=True)
class _Question:
    """Prompts of a planted model as tensors, with two metrics of the logits at their ends."""

    tokens: Tensor
    lengths: Tensor
    right: Tensor
    wrong: Tensor

    @classmethod
    def of(cls, prompts: Iterable[Prompt]) -> _Question:
        prompts = list(prompts)
        sequences = [torch.tensor(prompt.tokens) for prompt in prompts]
        return cls(
            torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
            torch.tensor([len(sequence) for sequence in sequences]),
            torch.tensor([prompt.right for prompt in prompts]),
            torch.tensor([prompt.wrong for prompt in prompts]),
        )

    def ends(self, logits: Tensor) -> Tensor:
        return logits[torch.arange(len(self.lengths)), self.lengths - 1]

    def share_right(self, logits: Tensor) -> float:
        return match_with_label(self.ends(logits), self.right)

    def margin(self, logits: Tensor) -> float:
        return logit_difference(self.ends(logits), self.right, self.wrong).mean().item()

    def means(self, model: Transformer) -> AblationValues:
        real = torch.arange(self.tokens.shape[1]) < self.lengths[:, None]
        return mean_values(model, self.tokens, "the prompts of the exercise", where=real)


@grader("03.4")
@torch.no_grad()
def a_circuit_that_only_looks_faithful(model: Transformer) -> str:
    """Put the reader's model through the usual test and through random halves."""
    planted = planted_bracket_circuit()
    if not isinstance(model, Transformer) or model.cfg != replace(planted.model.cfg, d_mlp=3):
        raise Wrong("Give the model of the exercise: the bracket model with three neurons instead of one.")
    for name, weight in planted.model.named_parameters():
        if not torch.equal(model.get_parameter(name)[tuple(slice(n) for n in weight.shape)], weight):
            raise Wrong(f"{name} of the original circuit was changed. Set only what belongs to neurons 1 and 2.")
    question = _Question.of(planted.every_prompt(LONGEST_BRACKETS))
    circuit = Circuit.from_names(weight_graph(model), planted.circuit.edges())
    score = CircuitScore(model, question.tokens, question.share_right, values=question.means(model))
    if (intact := question.share_right(model(question.tokens))) < 1:
        raise Wrong(f"Your model is right on {intact:.0%} of the prompts; whole, it has to be right on all of them.")
    if (alone := score(circuit)) < 1:
        raise Wrong(
            f"With all but the circuit at its mean, {alone:.0%} of the prompts are right, so the usual test catches "
            "you. Do the errors of the two neurons cancel for every prompt?"
        )
    shares = stochastic_scores(score, circuit, share=0.5, n_subsets=HALVES)
    failing = sum(share <= BROKEN for share in shares)
    if failing < FAILING_HALVES:
        raise Wrong(
            f"Random halves of the rest break the model in {failing} of {HALVES} cases, so the circuit is not wrong "
            "enough. Is what each neuron says large, and different for different prompts? A constant equals its mean."
        )
    return f"The usual test sees nothing; {failing} of {HALVES} random halves break the model."


@grader("03.5")
@torch.no_grad()
def a_circuit_that_is_faithful(nodes: list[str]) -> str:
    """Ablate everything outside the reader's nodes, and random halves of it."""
    if isinstance(nodes, str) or not all(isinstance(node, str) for node in nodes):
        raise Wrong("Give a list of names of nodes, as claimed.nodes() returns them.")
    model = planted_cancelling_heads()
    graph = weight_graph(model)
    try:
        masks = masks_of_nodes(model, nodes)
        circuit = Circuit.from_names(graph, nodes=nodes)
    except ValueError as error:
        raise Wrong(str(error)) from error
    question = _Question.of(_prompts_with_one_string())
    score = CircuitScore(model, question.tokens, question.margin, values=question.means(model), frozen_norms=True)
    whole, alone = question.margin(model(question.tokens)), score(circuit)
    if abs(alone - whole) > MARGIN:
        raise Wrong(
            f"With all but your nodes at the mean, the margin is {alone:.1f} logits instead of {whole:.1f}. Something "
            "is missing, or only one side of a pair is there."
        )
    margins = stochastic_scores(score, circuit, share=0.5, n_subsets=HALVES)
    if failing := sum(abs(margin - whole) > MARGIN for margin in margins):
        farthest = max(margins, key=lambda margin: abs(margin - whole))
        raise Wrong(
            f"The usual test is passed, but {failing} of {HALVES} random halves of the rest move the margin, one of "
            f"them to {farthest:.1f} logits. Which nodes make what heads 2 and 3 write? Are both heads whole?"
        )
    size = sum(int(mask.sum()) for mask in masks.values())
    if size > PAR_NODES:
        raise Wrong(f"Your {size} nodes pass, but {PAR_NODES} are enough. Which of them carry a constant, or nothing?")
    return f"{size} nodes pass the usual test and {HALVES} random halves."
