"""Every grader of chapter 8 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
from helpers import grader_tests
from sparse_circuits.sparsity import ConstraintController


def gate(pattern, scores, bias, noise):
    total = scores + bias + noise
    soft = total.sigmoid()
    return pattern * (soft - soft.detach() + (total > 0).to(soft))


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, total):
        ctx.save_for_backward(total)
        return (total > 0).to(total)

    @staticmethod
    def backward(ctx, gradient):
        soft = ctx.saved_tensors[0].sigmoid()
        return gradient * soft * (1 - soft)


def by_function(pattern, scores, bias, noise):
    return pattern * Step.apply(scores + bias + noise)


def without_slope(pattern, scores, bias, noise):
    return pattern * (scores + bias + noise > 0)


def scaled_up(pattern, scores, bias, noise):
    kept = gate(pattern, scores, bias, noise)
    return kept / kept.sum(-1, keepdim=True).clamp_min(1e-30)


def pattern_detached(pattern, scores, bias, noise):
    return gate(pattern.detach(), scores, bias, noise)


def soft_gate(pattern, scores, bias, noise):
    return pattern * (scores + bias + noise).sigmoid()


def without_noise(pattern, scores, bias, noise):
    return gate(pattern, scores, bias, torch.zeros_like(noise))


def slope_of_quiet(pattern, scores, bias, noise):
    soft = (scores + bias).sigmoid()
    return pattern * (soft - soft.detach() + (scores + bias + noise > 0).to(soft))


def identity_slope(pattern, scores, bias, noise):
    total = (scores + bias + noise).clamp(min=-50)
    return pattern * (total - total.detach() + (total > 0).to(total))


def gates_alone(pattern, scores, bias, noise):
    return gate(torch.ones_like(pattern), scores, bias, noise)


def mask_of_pattern(pattern, scores, bias, noise):
    return pattern * (pattern > 0.1)


def everything_detached(pattern, scores, bias, noise):
    return gate(pattern, scores, bias, noise).detach()


def shares(gates):
    length = gates.shape[-1]
    opened = gates.tril().sum().item()
    per_pattern = opened / gates[..., 0, 0].numel()
    return (
        100 * per_pattern / (length * (length + 1) / 2),
        100 * per_pattern / length**2,
        opened / (len(gates) * length),
    )


def by_mean(gates):
    length = gates.shape[-1]
    gates = gates.tril().double()
    return [
        200 * length / (length + 1) * gates.mean().item(),
        100 * gates.mean(),
        gates.sum((1, 2, 3, 4)).mean() / length,
    ]


def no_diagonal(gates):
    length = gates.shape[-1]
    causal, square, token = shares(gates)
    return causal * (length + 1) / (length - 1), square, token


def update(log_multiplier, average, loss, limit, rate=0.1, decay=0.9):
    violation = loss / limit - 1
    average = violation if average is None else decay * average + (1 - decay) * violation
    return min(5.0, max(-5.0, log_multiplier + rate * average)), average


def by_library(log_multiplier, average, loss, limit, rate=0.1, decay=0.9):
    controller = ConstraintController(limit, rate, decay)
    controller.load_state_dict({"log_multiplier": log_multiplier, "average": average})
    controller.update(loss)
    return controller.log_multiplier, controller.average


def changed(sign=1, swapped=False, bounded=True, relative=True, averaged=True):
    """Return an update with some of the mistakes that the exercise is about."""

    def update(log_multiplier, average, loss, limit, rate=0.1, decay=0.9):
        violation = loss / limit - 1 if relative else loss - limit
        kept = 1 - decay if swapped else decay
        if average is None or not averaged:
            average = violation
        average = kept * average + (1 - kept) * violation
        log_multiplier = log_multiplier + sign * rate * average
        return (min(5.0, max(-5.0, log_multiplier)) if bounded else log_multiplier), average

    return update


def lost(slack, share, cost):
    return min(1.0, slack / (share * cost))


ANSWERS = {
    "08.1": (
        [gate, by_function],
        {
            "no slope": (without_slope, "the gate has no slope"),
            "scaled up": (scaled_up, "scale the open weights up"),
            "pattern detached": (pattern_detached, "the pattern has lost its own"),
            "soft": (soft_gate, "Forwards a gate is 0 or 1"),
            "no noise": (without_noise, "ignore the noise"),
            "slope elsewhere": (slope_of_quiet, "the slopes are not those of"),
            "slope one": (identity_slope, "the slopes are not those of"),
            "gates alone": (gates_alone, "Multiply the weights by them"),
            "by weight": (mask_of_pattern, "An edge is open where"),
            "detached": (everything_detached, "no gradient can go back"),
            "nothing": (lambda *arguments: 0, "Return the gated pattern"),
        },
    ),
    "08.2": (
        [shares, by_mean],
        {
            "above the diagonal": (
                lambda gates: (100 * gates.mean().item(), 100 * gates.mean().item(), 1.0),
                "above the diagonal",
            ),
            "no diagonal": (no_diagonal, "percent of causal pairs"),
            "swapped": (lambda gates: (shares(gates)[1], shares(gates)[0], shares(gates)[2]), "Over how many"),
            "per head": (lambda gates: (*shares(gates)[:2], shares(gates)[2] / gates.shape[2]), "edges per token"),
            "shares": (lambda gates: tuple(part / 100 for part in shares(gates)), "percent of causal pairs"),
            "all prompts": (lambda gates: (*shares(gates)[:2], shares(gates)[2] * len(gates)), "edges per token"),
            "two numbers": (lambda gates: shares(gates)[:2], "three are asked for"),
            "one number": (lambda gates: 1.0, "a tuple of three numbers"),
        },
    ),
    "08.3": (
        [update, by_library],
        {
            "as given": (changed(sign=-1, swapped=True, bounded=False), "the multiplier falls"),
            "sign mended alone": (changed(swapped=True, bounded=False), "Which part of it is old"),
            "sign and average": (changed(bounded=False), "between -5 and 5"),
            "sign left": (changed(sign=-1), "the multiplier falls"),
            "absolute": (changed(relative=False), "the new average should be"),
            "no average": (changed(averaged=False), "the new average should be"),
            "one number": (lambda *arguments, **named: 0.1, "Return two numbers"),
            "without a first update": (
                lambda log, average, loss, limit, rate, decay: (
                    log + rate * (decay * average + (1 - decay) * (loss / limit - 1)),
                    average,
                ),
                "also when `average` is None",
            ),
        },
    ),
    "08.4": (
        [torch.full((8,), -3.01), torch.full((2,), -3.1), [-3.0, -3.05, -3.0]],
        {
            "as given": (torch.full((8,), -2.0), "Close them all"),
            "far below": (torch.full((8,), -6.0), "How far below zero"),
            "one open": (torch.tensor([-3.01, -3.01, -2.9]), "1 edges are open"),
            "masked": (torch.tensor([-3.01, -torch.inf]), "must be finite"),
            "one key": (torch.tensor([-3.01]), "2 to 32 keys"),
            "words": ("noise", "cannot be read"),
        },
    ),
    "08.5": (
        [lost, lambda slack, share, cost: sorted([0.0, slack / share / cost, 1.0])[1]],
        {
            "no end": (lambda slack, share, cost: slack / (share * cost), "more than there are"),
            "no cost": (lambda slack, share, cost: min(1.0, slack / share), "the loss rises by"),
            "no share": (lambda slack, share, cost: min(1.0, slack / cost), "the loss rises by"),
            "upside down": (lambda slack, share, cost: min(1.0, slack * share / cost), "the loss rises by"),
            "all": (lambda slack, share, cost: 1.0, "the loss rises by"),
            "words": (lambda slack, share, cost: "11 %", "return a number"),
        },
    ),
}

test_right_and_wrong, test_notes, test_all_exercises = grader_tests("08", ANSWERS)
