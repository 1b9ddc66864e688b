"""Every grader of chapter 3 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
from helpers import grader_tests, widened
from sparse_circuits.ablation import ablated
from sparse_circuits.ablation_masks import nodes_outside
from sparse_circuits.ablation_values import mean_values, zero_values
from sparse_circuits.circuit import Circuit
from sparse_circuits.circuit_scores import CircuitScore
from sparse_circuits.graph import weight_graph
from sparse_circuits.planted import planted_bracket_circuit, planted_cancelling_heads, planted_quote_circuit

QUOTES, BRACKETS = planted_quote_circuit(), planted_bracket_circuit()
CLAIMED = QUOTES.circuit.nodes()
BOTH_HEADS = [f"blocks.1.attn.hook_{kind}[{head}]" for head in (2, 3) for kind in "kv"]


def by_hook(model, tokens, reference, location, channel, value=None, after=0):
    """Mean ablation with a hook; `value` makes another number of the reference's and the prompts' activations."""
    _, far = model.run_with_cache(reference)
    _, own = model.run_with_cache(tokens)
    far, own = (cache[location].flatten(2)[..., channel] for cache in (far, own))
    new = far.mean() if value is None else value(far, own)

    def put(activation, hook):
        flat = activation.flatten(2).clone()
        flat[:, after:, channel] = new
        return flat.view_as(activation)

    return model.run_with_hooks(tokens, fwd_hooks=[(location, put)])


def by_library(model, tokens, reference, location, channel):
    with ablated(model, [f"{location}[{channel}]"], values=mean_values(model, reference, "reference")):
        return model(tokens)


def leaving_a_hook(model, tokens, reference, location, channel):
    logits = by_hook(model, tokens, reference, location, channel)
    model.add_hook(location, lambda activation, hook: activation * 0)
    return logits


def means(model, tokens, reference, lengths, location):
    real = torch.arange(reference.shape[1]) < lengths[:, None]
    return mean_values(model, reference, "reference", where=real).activations[location]


def summed_up(model, tokens, reference, lengths, location):
    _, cache = model.run_with_cache(reference)
    flat = cache[location].flatten(2)
    return sum(row[:n].sum(0) for row, n in zip(flat, lengths.tolist(), strict=True)) / lengths.sum()


def mean_of(model, prompts, location, where=slice(None)):
    _, cache = model.run_with_cache(prompts)
    return cache[location].flatten(2)[where].mean(0 if isinstance(where, torch.Tensor) else (0, 1))


def two_numbers(model, tokens, metric, circuit, values):
    score = CircuitScore(model, tokens, metric, values=values)
    return score(circuit), score(score.rest(circuit))


def with_contexts(model, tokens, metric, circuit, values):
    found = []
    for nodes in (nodes_outside(circuit), circuit):
        with ablated(model, nodes, values=values):
            found.append(metric(model(tokens)))
    return found


def spare(w_in=(0.0, 0.0), w_out=(0.0, 0.0), b_in=(0.0, 0.0), channel=2):
    """The bracket model with two more neurons that read one channel and write to channel 3."""
    model = widened(BRACKETS.model, d_mlp=3)
    with torch.no_grad():
        model.blocks[0].mlp.W_in[channel, 1:] = torch.tensor(w_in)
        model.blocks[0].mlp.W_out[1:, 3] = torch.tensor(w_out)
        model.blocks[0].mlp.b_in[1:] = torch.tensor(b_in)
    return model


def without_bias():
    model = spare((64.0, 64.0), (2.0, -2.0))
    with torch.no_grad():
        model.b_U.zero_()
    return model


ANSWERS = {
    "03.1": (
        [by_hook, by_library],
        {
            "zero": (lambda *given: by_hook(*given, value=lambda far, own: 0.0), "zero ablation"),
            "own batch": (lambda *given: by_hook(*given, value=lambda far, own: own.mean()), "over the reference"),
            "by position": (lambda *given: by_hook(*given, value=lambda far, own: far.mean(0)[:8]), "each position"),
            "by prompt": (
                lambda *given: by_hook(*given, value=lambda far, own: own.mean(1, keepdim=True)),
                "each prompt",
            ),
            "next channel": (lambda m, t, r, place, c: by_hook(m, t, r, place, c - 1), "of that layer"),
            "last position": (lambda *given: by_hook(*given, after=-1), "at every position"),
            "next layer": (
                lambda m, t, r, place, c: by_hook(m, t, r, place.replace(place[7], str((int(place[7]) + 1) % 3)), c),
                "of that layer",
            ),
            "hook returns nothing": (lambda m, t, *rest: m(t), "Nothing was ablated"),
            "hook stays": (leaving_a_hook, "leaves a hook"),
            "value only": (lambda m, t, r, place, c: mean_of(m, r, place), "has shape"),
        },
    ),
    "03.2": (
        [means, summed_up],
        {
            "own batch": (lambda m, t, r, n, place: mean_of(m, t, place), "under test"),
            "padding": (lambda m, t, r, n, place: mean_of(m, r, place), "padding"),
            "mean of means": (
                lambda m, t, r, n, place: torch.stack(
                    [means(m, t, r[i : i + 1], n[i : i + 1], place) for i in range(len(r))]
                ).mean(0),
                "one mean per prompt",
            ),
            "one token too many": (lambda m, t, r, n, place: means(m, t, r, n + 1, place), "counted twice"),
            "last token only": (
                lambda m, t, r, n, place: torch.stack(
                    [m.run_with_cache(r)[1][place].flatten(2)[i, n[i] - 1] for i in range(len(r))]
                ).mean(0),
                "left out, but other tokens",
            ),
            "single number": (lambda m, t, r, n, place: means(m, t, r, n, place).mean(), "has shape"),
        },
    ),
    "03.3": (
        [two_numbers, with_contexts],
        {
            "swapped": (lambda *given: two_numbers(*given)[::-1], "swapped"),
            "zero": (lambda m, t, f, c, values: two_numbers(m, t, f, c, zero_values()), "with zero"),
            "necessity twice": (lambda *given: (two_numbers(*given)[1],) * 2, "first number"),
            "sufficiency and its complement": (
                lambda *given: (two_numbers(*given)[0], 1 - two_numbers(*given)[0]),
                "Which nodes are ablated",
            ),
            "edges": (
                lambda m, t, f, c, values: (
                    CircuitScore(m, t, f, values=values, level="edges")(c),
                    f(m(t)),
                ),
                "second number",
            ),
            "share right": (
                lambda m, t, f, c, values: two_numbers(m, t, lambda logits: float(f(logits) > 0), c, values),
                "first number",
            ),
            "one number": (lambda *given: two_numbers(*given)[0], "Return two numbers"),
        },
    ),
    "03.4": (
        [
            spare((64.0, 64.0), (2.0, -2.0)),
            spare((64.0, 64.0), (-3.0, 3.0)),
            spare((-64.0, -64.0), (2.0, -2.0)),
        ],
        {
            "nothing set": (spare(), "not wrong enough"),
            "one neuron": (spare((64.0, 0.0), (-2.0, 0.0)), "whole, it has to be right"),
            "same sign": (spare((64.0, 64.0), (-2.0, -2.0)), "whole, it has to be right"),
            "helpful neuron": (spare((64.0, 0.0), (2.0, 0.0)), "usual test catches you"),
            "too small": (spare((64.0, 64.0), (0.1, -0.1)), "not wrong enough"),
            "constants": (spare(b_in=(5.0, 5.0), w_out=(2.0, -2.0)), "A constant equals its mean"),
            "not equal": (spare((64.0, 64.0), (2.0, -0.5)), "usual test catches you"),
            "original changed": (without_bias(), "was changed"),
            "another model": (BRACKETS.model, "three neurons"),
        },
    ),
    "03.5": (
        [[*CLAIMED, *BOTH_HEADS], [node for node in (*CLAIMED, *BOTH_HEADS) if "hook_q" not in node]],
        {
            "as claimed": (CLAIMED, "random halves of the rest"),
            "one head": ([*CLAIMED, *BOTH_HEADS[:2]], "Something is missing"),
            "values without keys": ([*CLAIMED, *BOTH_HEADS[1::2]], "random halves of the rest"),
            "queries too": (
                [*CLAIMED, *BOTH_HEADS, "blocks.1.attn.hook_q[2]", "blocks.1.attn.hook_q[3]"],
                "are enough",
            ),
            "everything": (Circuit.full(weight_graph(planted_cancelling_heads())).nodes(), "are enough"),
            "a string": (CLAIMED[0], "Give a list"),
            "no such node": (["blocks.1.attn.hook_v[9]"], "coordinates"),
        },
    ),
}


(
    test_right_answers_pass_and_plausible_wrong_ones_do_not,
    test_a_wrong_answer_hears_what_to_look_at,
    test_every_exercise_is_tested,
) = grader_tests("03", ANSWERS)
