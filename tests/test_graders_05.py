"""Every grader of chapter 5 passes right answers, whatever their style, and fails plausible wrong ones."""

from dataclasses import replace

import torch
from helpers import grader_tests
from sparse_circuits.circuit import Circuit
from sparse_circuits.controls import random_circuit
from sparse_circuits.graph import weight_graph
from sparse_circuits.mask_learning import StepWithSigmoidGradient
from sparse_circuits.planted import planted_bracket_circuit, planted_quote_circuit
from sparse_circuits.pruning import prune

QUOTES, BRACKETS = planted_quote_circuit(), planted_bracket_circuit()


def by_library(activation, mean, tau, temperature):
    mask = StepWithSigmoidGradient.apply(tau, temperature)
    return activation * mask + mean * (1 - mask)


def with_mask(value, stand_in, swapped=False, zero=False):
    """A masked node whose mask is `value` forwards and has the gradient of `stand_in`."""

    def masked(activation, mean, tau, temperature):
        soft = stand_in(tau, temperature)
        mask = value(tau, temperature).detach() + soft - soft.detach()
        here, there = (mean, activation) if swapped else (activation, 0 * mean if zero else mean)
        return there + mask * (here - there)

    return masked


def hard(tau, temperature):
    return (tau > 0).float()


def soft(tau, temperature):
    return (tau / temperature).sigmoid()


class ByHand(torch.autograd.Function):
    """Value and gradients of the masked node in one piece; `leak` lets the activation's gradient pass everywhere."""

    @staticmethod
    def forward(ctx, activation, mean, tau, temperature, leak):
        ctx.save_for_backward(activation - mean, tau)
        ctx.temperature, ctx.leak = temperature, leak
        return torch.where(tau > 0, activation, mean)

    @staticmethod
    def backward(ctx, gradient):
        difference, tau = ctx.saved_tensors
        sigmoid = (tau / ctx.temperature).sigmoid()
        slope = sigmoid * (1 - sigmoid) / ctx.temperature
        passed = gradient if ctx.leak else gradient * (tau > 0)
        return passed, None, (gradient * difference).sum((0, 1)) * slope, None, None


def loop(learned=True, grows_below=True, smallest=True, gradient_of=1.0):
    """The mended loop, or one with some of its mistakes left in."""

    def learn(loss_of, n_nodes, target, steps=300):
        tau = (0.1 + 0.01 * torch.randn(n_nodes)).requires_grad_()
        optimiser = torch.optim.AdamW([tau], lr=0.02, betas=(0.9, 0.95))
        best, penalty = torch.ones(n_nodes, dtype=torch.bool), 1e-6
        for _ in range(steps):
            mask = StepWithSigmoidGradient.apply(tau, 1.0) if learned else hard(tau, 1.0).requires_grad_()
            loss = loss_of(mask)
            if loss <= target and mask.sum() < best.sum():
                best = mask.detach() > 0
            optimiser.zero_grad()
            (gradient_of * (loss + penalty * mask.sum())).backward()
            optimiser.step()
            with torch.no_grad():
                tau.clamp_(-1, 1)
            penalty *= 1.05 if (loss < target) == grows_below else 0.9
        return best if smallest else tau.detach() > 0

    return learn


def one_by_one(loss_of, n_nodes, target):
    """Take out nodes greedily; no gradient is needed."""
    mask = torch.ones(n_nodes)
    for node in range(n_nodes):
        fewer = mask.clone()
        fewer[node] = 0
        if loss_of(fewer) <= target:
            mask = fewer
    return mask > 0


def looser_and_looser(model, prompts, selection, values, config, max_edges):
    target = config.target_loss
    while True:
        found = prune(model, prompts, selection, values, replace(config, target_loss=target))
        if found.circuit.count_edges() <= max_edges:
            return found.circuit
        target += 0.2


def of_a_fixed_list(model, prompts, selection, values, config, max_edges):
    targets = (config.target_loss, 0.15, 0.3, 0.45, 0.6)
    found = [prune(model, prompts, selection, values, replace(config, target_loss=t)).circuit for t in targets]
    return next(circuit for circuit in found if circuit.count_edges() <= max_edges)


def one_target(model, prompts, selection, values, config, max_edges):
    return prune(model, prompts, selection, values, config).circuit


def first_edges(model, prompts, selection, values, config, max_edges):
    edges = one_target(model, prompts, selection, values, config, max_edges).edges()
    return Circuit.from_names(weight_graph(model), edges[:max_edges])


def nodes_without_edges(model, prompts, selection, values, config, max_edges):
    found = one_target(model, prompts, selection, values, config, max_edges)
    return Circuit(found.graph, found.node_masks, {m: torch.zeros_like(e) for m, e in found.edge_masks.items()})


def by_chance(model, prompts, selection, values, config, max_edges):
    found = one_target(model, prompts, selection, values, config, max_edges)
    drawn = random_circuit(found, seed=0, match="nodes")
    return drawn if drawn.count_edges() <= max_edges else Circuit.from_names(found.graph)


WORDS = ("hello", "bye", "hello world", "bye moon", "hello and bye"[:9], "bye world and moon")
ONE_STRING = [f"{name}({quote}{words}" for name in ("print", "log") for quote in "\"'" for words in WORDS]
SAME_KIND = [f"print({q}hello{q})\nlog({q}{words}" for q in "\"'" for words in WORDS]
SAMPLED = [QUOTES.decode(prompt.tokens) for prompt in QUOTES.sample(400, seed=3)]


def balanced(texts, n):
    """The first n / 2 different prompts of each kind."""
    kinds = {text: QUOTES.vocabulary[QUOTES.prompt(text).right] for text in dict.fromkeys(texts)}
    return [text for close in ('")', "')") for text in [t for t, k in kinds.items() if k == close][: n // 2]]


def galloping(loss_of, learned, n, target):
    enough, stride = learned, 1
    while enough < n and loss_of(enough) > target:
        enough, stride = min(n, enough + stride), 2 * stride
    too_few, stride = enough - 1, 1
    while too_few >= 0 and loss_of(too_few) <= target:
        enough, too_few, stride = too_few, max(-1, too_few - stride), 2 * stride
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if loss_of(middle) <= target:
            enough = middle
        else:
            too_few = middle
    return enough


def halving_below(loss_of, learned, n, target):
    """Between the empty circuit and the first number from the mask on that meets the target."""
    high, low, stride = learned, -1, 1
    while loss_of(high) > target:
        low, high, stride = high, min(n, high + stride), 2 * stride
    return halved(loss_of, low, high, target)


def halved(loss_of, low, high, target):
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss_of(middle) <= target else (middle, high)
    return high


ANSWERS = {
    "05.1": (
        [by_library, with_mask(hard, soft), lambda *given: ByHand.apply(*given, False)],
        {
            "soft": (with_mask(soft, soft), "0 or 1"),
            "zero": (with_mask(hard, soft, zero=True), "carries zero"),
            "swapped": (with_mask(hard, soft, swapped=True), "wrong way round"),
            "kept at zero": (with_mask(lambda tau, t: (tau >= 0).float(), soft), "At tau = 0"),
            "no gradient": (lambda a, mean, tau, t: torch.where(tau > 0, a, mean), "no gradient reaches tau"),
            "identity": (with_mask(hard, lambda tau, t: tau), "as if the mask were tau"),
            "no temperature": (with_mask(hard, lambda tau, t: tau.sigmoid()), "divided by the temperature"),
            "factor": (with_mask(hard, lambda tau, t: t * soft(tau, t)), "lacks a factor"),
            "sign": (with_mask(hard, lambda tau, t: -soft(tau, t)), "The sign"),
            "clipped": (with_mask(hard, lambda tau, t: (tau / 2 + 0.5).clamp(0, 1)), "but not this one"),
            "leaks": (lambda *given: ByHand.apply(*given, True), "nowhere else"),
            "mask only": (lambda a, mean, tau, t: StepWithSigmoidGradient.apply(tau, t), "shape"),
        },
    ),
    "05.2": (
        [loop(), one_by_one],
        {
            "as given": (loop(grows_below=False, smallest=False), "Follow the price"),
            "penalty turned": (loop(grows_below=False), "Follow the price"),
            "last": (loop(smallest=False), "after the last step"),
            "gradient missing": (loop(learned=False), "does any gradient reach tau"),
            "uphill": (loop(gradient_of=-1.0), "are enough"),
            "tau": (lambda loss_of, n, target: torch.zeros(n), "boolean"),
            "nothing": (lambda loss_of, n, target: torch.zeros(n, dtype=torch.bool), "0 nodes"),
        },
    ),
    "05.3": (
        [looser_and_looser, of_a_fixed_list],
        {
            "budget ignored": (one_target, "the budget is 4 edges and your circuit has 10"),
            "edges cut off": (first_edges, "leave out nodes instead"),
            "edges not counted": (nodes_without_edges, "they count"),
            "by chance": (by_chance, "looser target"),
            "nothing": (lambda model, *rest: Circuit.from_names(weight_graph(model)), "looser target"),
            "everything": (lambda model, *rest: Circuit.full(weight_graph(model)), "your circuit has"),
            "another model": (lambda *given: QUOTES.circuit, "another model"),
            "names": (lambda model, *rest: QUOTES.circuit.nodes(), "return a Circuit"),
        },
    ),
    "05.4": (
        [balanced(ONE_STRING, 12), tuple(balanced(ONE_STRING, 8))],
        {
            "any prompts": (balanced(SAMPLED, 64), "not misled enough"),
            "one kind": ([text for text in ONE_STRING if '"' in text], "half of them"),
            "too few": (balanced(ONE_STRING, 4), "give 8 to 64"),
            "one prompt again and again": (ONE_STRING[:2] * 10, "different prompts"),
            "not valid": ([*balanced(ONE_STRING, 8), "print(hello", "log(bye"], "token"),
            "finished": ([*balanced(ONE_STRING, 8), 'print("hello")', "print('hello')"], "not a valid prompt"),
            "a string": ('print("hello', "Give a list"),
        },
    ),
    "05.5": (
        [galloping, halving_below],
        {
            "over the whole range": (lambda f, learned, n, t: halved(f, -1, n, t), "crosses the target"),
            "as learned": (lambda f, learned, n, t: learned, "85 meet the target too"),
            "from the top": (
                lambda f, learned, n, t: next(k for k in range(n, -1, -1) if k == 0 or f(k - 1) > t),
                "times",
            ),
            "one by one": (
                lambda f, learned, n, t: next(k for k in range(learned, -1, -1) if k == 0 or f(k - 1) > t),
                "times",
            ),
            "one too few": (lambda *given: max(0, galloping(*given) - 1), "the target is 0.15"),
            "one too many": (lambda *given: galloping(*given) + 1, "meet the target too"),
            "everything": (lambda f, learned, n, t: n, "meet the target too"),
            "no number": (lambda *given: None, "return a number of nodes"),
            "half a node": (lambda f, learned, n, t: f(learned / 2), "whole number"),
        },
    ),
}


(
    test_right_answers_pass_and_plausible_wrong_ones_do_not,
    test_a_wrong_answer_hears_what_to_look_at,
    test_every_exercise_is_tested,
) = grader_tests("05", ANSWERS)
