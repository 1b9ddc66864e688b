"""Every grader of chapter 10 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
from helpers import grader_tests
from sparse_circuits.transcoder import Transcoder, TranscoderConfig


def half_way(pre, norms, k):
    values = (pre.relu() * norms).flatten().sort(descending=True).values
    n = k * len(pre)
    return values[n - 1 : n + 1].mean() / norms


def library(pre, norms, k):
    cfg = TranscoderConfig(n_layers=1, d_model=pre.shape[1], d_transcoder=pre.shape[1], k=k)
    transcoder = Transcoder(cfg).double()
    with torch.no_grad():
        transcoder.W_enc.copy_(torch.eye(pre.shape[1])[None])
        transcoder.W_dec[0][:, 0].copy_(torch.diag(norms))
    transcoder.calibrate(pre[:, None])
    return transcoder.threshold[0]


def at_the_next(pre, norms, k):
    return (pre.relu() * norms).flatten().sort(descending=True).values[k * len(pre)] / norms


def at_the_last(pre, norms, k):
    return (pre.relu() * norms).flatten().sort(descending=True).values[k * len(pre) - 1] / norms


def undivided(pre, norms, k):
    return half_way(pre, norms, k) * norms


def norms_ignored(pre, norms, k):
    return half_way(pre, torch.ones_like(norms), k)


def budget_of_one_position(pre, norms, k):
    return (pre.relu() * norms).flatten().sort(descending=True).values[k] / norms


def by_feature(pre, norms, k):
    return pre.quantile(1 - k / pre.shape[1], dim=0)


def one_number(pre, norms, k):
    return half_way(pre, norms, k)[0]


def fvu(y, guess):
    return (y - guess).pow(2).sum() / (y - y.mean(0)).pow(2).sum()


def fvu_by_variances(y, guess):
    return float((y - guess).pow(2).mean(0).sum() / y.var(0, correction=0).sum())


def decode(activations, W_dec, b_dec):
    written = []
    for target in range(len(W_dec)):
        parts = [activations[:, m] @ W_dec[m][:, target - m] for m in range(target + 1)]
        written.append(sum(parts) + b_dec[target])
    return torch.stack(written, 1)


def colleague(activations, W_dec, b_dec, columns=False, backwards=True, once=False):
    written = torch.zeros(len(activations), *b_dec.shape, dtype=b_dec.dtype)
    for layer, W in enumerate(W_dec):
        for target in range(0 if backwards else layer, len(W_dec)):
            column = target - layer if columns and target >= layer else min(target, W.shape[1] - 1)
            written[:, target] += activations[:, layer] @ W[:, column]
            if not once or layer == 0:
                written[:, target] += b_dec[target]
    return written


def own_layer_alone(activations, W_dec, b_dec):
    return torch.stack([activations[:, m] @ W[:, 0] for m, W in enumerate(W_dec)], 1) + b_dec


def last_one_stays(activations, W_dec, b_dec):
    written = b_dec.repeat(len(activations), 1, 1)
    for layer, W in enumerate(W_dec):
        for column in range(W.shape[1]):
            if activations[:, layer].any():
                written[:, layer + column] = b_dec[layer + column] + activations[:, layer] @ W[:, column]
    return written


def without_direction(y, direction):
    unit = direction / direction.norm()
    return y - ((y - y.mean(0)) @ unit)[:, None] * unit


def at_zero(y, direction):
    return y - torch.outer(y @ direction, direction) / direction.pow(2).sum()


def not_normalised(y, direction):
    return y - ((y - y.mean(0)) @ direction)[:, None] * direction


def halved(y, direction):
    return (y + without_direction(y, direction)) / 2


def fold(W_enc, b_enc, W_dec, b_dec, read, wrote):
    return W_enc / read, b_enc, W_dec * wrote, b_dec * wrote


ANSWERS = {
    "10.1": (
        [half_way, library, at_the_next],
        {
            "at the last": (at_the_last, "one activation is missing"),
            "not divided": (undivided, "Divide"),
            "norms ignored": (norms_ignored, "others than the largest writers"),
            "budget of one position": (budget_of_one_position, "features are active per position"),
            "by feature": (by_feature, "With 40 positions"),
            "one number": (one_number, "a threshold for each feature"),
        },
    ),
    "10.2": (
        [fvu, fvu_by_variances],
        {
            "of squares": (lambda y, guess: (y - guess).pow(2).sum() / y.pow(2).sum(), "A large mean"),
            "one mean": (lambda y, guess: (y - guess).pow(2).sum() / (y - y.mean()).pow(2).sum(), "one mean over all"),
            "by channel": (
                lambda y, guess: ((y - guess).pow(2).sum(0) / (y - y.mean(0)).pow(2).sum(0)).mean(),
                "A small channel",
            ),
            "explained": (lambda y, guess: 1 - fvu(y, guess), "the share that is left"),
            "root": (lambda y, guess: fvu(y, guess).sqrt(), "Variances are squares"),
            "absolute": (lambda y, guess: (y - guess).abs().sum() / (y - y.mean(0)).abs().sum(), "and yours is"),
        },
    ),
    "10.3": (
        [decode, lambda a, W, b: colleague(a, W, b, True, False, True)],
        {
            "as given": (colleague, "once"),
            "bias mended": (lambda a, W, b: colleague(a, W, b, once=True), "before its own"),
            "backwards mended": (lambda a, W, b: colleague(a, W, b, backwards=False, once=True), "the wrong vector"),
            "columns mended": (lambda a, W, b: colleague(a, W, b, columns=True, once=True), "before its own"),
            "own layer": (own_layer_alone, "the wrong vector to layer 1"),
            "last one stays": (last_one_stays, "adds up"),
        },
    ),
    "10.4": (
        [without_direction, at_zero],
        {
            "nothing spoiled": (lambda y, direction: y, "the answer can be read"),
            "the mean": (lambda y, direction: y.mean(0).expand_as(y), "of the variance unexplained"),
            "not normalised": (not_normalised, "of the variance unexplained"),
            "moved": (lambda y, direction: y - 0.01 * direction, "the answer can be read"),
            "half": (halved, "the answer can be read"),
            "a row": (lambda y, direction: y[0], "of shape"),
        },
    ),
    "10.5": (
        [fold, lambda W, b, V, c, read, wrote: [W * (1 / read), b.clone(), wrote * V, wrote * c]],
        {
            "multiplied": (lambda W, b, V, c, r, w: (W * r, b, V * w, c * w), "now they come as they are"),
            "bias of the encoder": (lambda W, b, V, c, r, w: (W / r, b / r, V * w, c * w), "Leave it"),
            "decoder divided": (lambda W, b, V, c, r, w: (W / r, b, V / w, c * w), "what they write"),
            "bias forgotten": (lambda W, b, V, c, r, w: (W / r, b, V * w, c), "`b_dec` is written too"),
            "both in the decoder": (lambda W, b, V, c, r, w: (W / r, b, V * w / r, c * w), "what they write"),
            "two of them": (lambda W, b, V, c, r, w: (W / r, V * w), "four tensors"),
        },
    ),
}

test_right_and_wrong, test_notes, test_all_exercises = grader_tests("10", ANSWERS)
