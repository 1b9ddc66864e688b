"""Graders of chapter 10: each runs the reader's function on random activations beside one that is written out here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..grading import Wrong, grader

CLOSE = 1e-9
MOST_UNEXPLAINED = 0.05


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _tensor(found: object, like: Tensor, what: str) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != like.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise Wrong(f"Return {what} of shape {tuple(like.shape)}, not {shape}.")
    found = found.detach().to(like)
    if not found.isfinite().all():
        raise Wrong("Some of your numbers are not finite.")
    return found


@grader("10.1")
def grade_thresholds(answer: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """See which activations stay above the reader's thresholds, and whether they are the largest writers."""
    for n, features, k in ((40, 12, 3), (25, 30, 2), (60, 8, 1)):
        pre, norms = _random(n, features, seed=n), _random(features, seed=k).abs() + 0.2
        found = _tensor(answer(pre.clone(), norms.clone(), k), norms, "a threshold for each feature, a tensor")
        weighed = pre.relu() * norms
        values = weighed.flatten().sort(descending=True).values
        kept, active = weighed >= values[k * n - 1], pre > found
        # What is next in line may pass by a rounding error.
        next_in_line = (weighed - values[k * n]).abs() < CLOSE
        if torch.equal(active & ~next_in_line, kept):
            continue
        case = f"with {n} positions, {features} features and k = {k}"
        share = active.sum().item() / n
        if torch.equal(active, weighed > values[k * n - 1]):
            raise Wrong(f"Close: {case} one activation is missing, for the last that stays equals your cut. Go below.")
        if torch.equal(active & ~next_in_line, pre > values[k * n - 1]) or torch.equal(
            active & ~next_in_line, pre > values[k * n - 1 : k * n + 1].mean()
        ):
            raise Wrong("Your cut is on activation times norm, and a threshold is on the activation. Divide.")
        if abs(share - k) > 1 / n:
            raise Wrong(f"{case.capitalize()}, {share:.2f} features are active per position, not {k}.")
        raise Wrong(f"{case.capitalize()}, the budget is right, but others than the largest writers stay.")
    return "Exactly the largest writers stay, k of them per position on average."


@grader("10.2")
def grade_fvu(answer: Callable[[Tensor, Tensor], float]) -> str:
    """Compare with the definition, on outputs whose channels differ in mean and in size."""
    for n, d, noise in ((50, 4, 0.1), (200, 7, 0.5), (30, 3, 1.5)):
        y = _random(n, d, seed=n) * torch.arange(1, d + 1) + 3 * torch.arange(d)
        guess = y + noise * _random(n, d, seed=d)
        missed = (y - guess).pow(2)
        error, variance = missed.sum().item(), (y - y.mean(0)).pow(2).sum().item()
        try:
            found = float(answer(y.clone(), guess.clone()))
        except TypeError as wrong_type:
            raise Wrong("Return one number.") from wrong_type
        if abs(found - error / variance) <= 1e-6:
            continue
        by_channel = missed.sum(0) / (y - y.mean(0)).pow(2).sum(0)
        others = {
            "You divide by the squares of the outputs. A large mean makes that large, and any guess look good.": (
                error / y.pow(2).sum().item()
            ),
            "You take one mean over all channels. The means of the channels differ, and that is no variance.": (
                error / (y - y.mean()).pow(2).sum().item()
            ),
            "You take a ratio for each channel and then the mean. A small channel then counts as a large one.": (
                by_channel.mean().item()
            ),
            "That is the share explained. What is asked for is the share that is left.": 1 - error / variance,
            "That is a root. Variances are squares.": (error / variance) ** 0.5,
        }
        for note, value in others.items():
            if abs(found - value) <= 1e-6:
                raise Wrong(note)
        raise Wrong(f"For outputs of shape ({n}, {d}) it is {error / variance:.4f}, and yours is {found:.4f}.")
    return "Right for three sets of outputs; 0 is perfect, and the mean output has 1."


def reference_decode(activations: Tensor, W_dec: Sequence[Tensor], b_dec: Tensor) -> Tensor:
    """Return what features write to each layer: column c of layer m's decoder goes to layer m + c."""
    written = b_dec.repeat(len(activations), 1, 1)
    for layer, W in enumerate(W_dec):
        for column in range(W.shape[1]):
            written[:, layer + column] += activations[:, layer] @ W[:, column]
    return written


@grader("10.3")
def grade_decoder(answer: Callable[[Tensor, Sequence[Tensor], Tensor], Tensor]) -> str:
    """Switch on one feature at a time and see where it writes; then all."""
    for n_layers, features, d in ((3, 4, 5), (2, 3, 2), (4, 2, 3)):
        W_dec = [_random(features, n_layers - m, d, seed=m) for m in range(n_layers)]
        b_dec = _random(n_layers, d, seed=9)
        silent = torch.zeros(1, n_layers, features, dtype=torch.float64)

        def run(activations: Tensor, W_dec=W_dec, b_dec=b_dec) -> Tensor:
            copies = [W.clone() for W in W_dec]
            expected = reference_decode(activations, W_dec, b_dec)
            return _tensor(answer(activations.clone(), copies, b_dec.clone()), expected, "what is written, a tensor")

        rest = run(silent)
        if not torch.allclose(rest, b_dec[None], atol=CLOSE):
            raise Wrong(
                f"With {n_layers} layers and no active feature, each layer should get its own `b_dec`, once. How often "
                "do you add it?"
            )
        for layer in range(n_layers):
            one = silent.clone()
            one[0, layer, 0] = 1.0
            change = run(one)[0] - b_dec
            if (change[:layer].abs() > CLOSE).any():
                raise Wrong(f"A feature of layer {layer} writes to a layer before its own.")
            for column, (got, expected) in enumerate(zip(change[layer:], W_dec[layer][0], strict=True)):
                if not torch.allclose(got, expected, atol=CLOSE):
                    raise Wrong(
                        f"A feature of layer {layer} writes the wrong vector to layer {layer + column}. Column 0 of "
                        "its decoder is for its own layer."
                    )
        mixed = _random(6, n_layers, features, seed=3).relu()
        if not torch.allclose(run(mixed), reference_decode(mixed, W_dec, b_dec), atol=CLOSE):
            raise Wrong("One feature alone is right, but several together are not: what they write adds up.")
    return "Every feature writes to its own layer and the later ones, and each layer gets its bias once."


@grader("10.4")
def grade_spoiled(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Measure what the reader's reconstruction explains, and what can still be read along the direction."""
    worst = 0.0
    for n, d in ((200, 16), (300, 40)):
        direction = _random(d, seed=d)
        unit = torch.nn.functional.normalize(direction, dim=0)
        y = 2 * _random(n, d, seed=n)
        y = y - (y @ unit)[:, None] * unit + 1.5 * _random(n, 1, seed=n + 1).sign() * unit * (0.05 * d) ** 0.5 + 1.0
        guess = _tensor(answer(y.clone(), direction.clone()), y, "a reconstruction, a tensor")
        fvu = ((y - guess).pow(2).sum() / (y - y.mean(0)).pow(2).sum()).item()
        answers, rest = y @ unit, guess @ unit
        left = (rest.std() / answers.std()).item()
        if fvu > MOST_UNEXPLAINED:
            raise Wrong(f"It leaves {fvu:.3f} of the variance unexplained; at most {MOST_UNEXPLAINED} is asked for.")
        if left > 1e-3:
            raise Wrong(
                f"Along the direction it still varies {left:.3f} times as much as the outputs do, so the answer can "
                "be read. It should say the same at every position."
            )
        worst = max(worst, fvu)
    return f"It explains {100 * (1 - worst):.0f} % of the variance, and the answer is gone. No FVU would have told."


@grader("10.5")
def grade_folding(answer: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]) -> str:
    """Run the folded weights on unscaled inputs: same activations, outputs in units of the targets."""
    for features, d, read, wrote in ((6, 4, 2.0, 5.0), (5, 3, 0.3, 0.1), (4, 7, 8.0, 0.5)):
        W_enc, W_dec = _random(features, d, seed=1), _random(features, d, seed=2)
        b_enc, b_dec = _random(features, seed=3), _random(d, seed=4)
        x = read * _random(20, d, seed=5)
        pre = (x / read) @ W_enc.T + b_enc
        active = pre * (pre > 0.1)
        folded = answer(W_enc.clone(), b_enc.clone(), W_dec.clone(), b_dec.clone(), read, wrote)
        if not isinstance(folded, tuple | list) or len(folded) != 4:
            raise Wrong("Return four tensors: W_enc, b_enc, W_dec and b_dec.")
        new = [
            _tensor(part, old, f"`{name}`")
            for name, part, old in zip(
                ("W_enc", "b_enc", "W_dec", "b_dec"), folded, (W_enc, b_enc, W_dec, b_dec), strict=True
            )
        ]
        new_pre = x @ new[0].T + new[1]
        if not torch.allclose(new_pre, pre, atol=CLOSE):
            biased = not torch.allclose(new[1], b_enc)
            raise Wrong(
                "The pre-activations have changed"
                + (
                    ": `b_enc` is in units of pre-activations, not of inputs. Leave it."
                    if biased
                    else f". Training saw inputs divided by {read}; now they come as they are."
                )
            )
        written = wrote * (active @ W_dec)
        if not torch.allclose(active @ new[2], written, atol=CLOSE):
            raise Wrong("The activations are right, but what they write is not in units of the unscaled targets.")
        if not torch.allclose(new[3], wrote * b_dec, atol=CLOSE):
            raise Wrong("`b_dec` is written too: it has the units of the targets.")
    return "The same activations, so the same thresholds, and outputs in the model's own units."
