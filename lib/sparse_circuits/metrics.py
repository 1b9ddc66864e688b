"""Numbers that say how well a model, or a circuit, does. Losses are in nats."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def next_token_loss(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos_and_one"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the next token, in nats per token.

    Parameters
    ----------
    logits : float tensor, shape (batch, pos, d_vocab)
        Predictions at positions 0 to pos - 1.
    tokens : int tensor, shape (batch, pos + 1)
        The sequence; position p + 1 is the target of the logits at p.

    Raises
    ------
    ValueError
        If `tokens` does not have exactly one position more than `logits`.
    """
    if tokens.shape[1] != logits.shape[1] + 1:
        raise ValueError(
            f"logits have {logits.shape[1]} positions and tokens {tokens.shape[1]}; "
            "give the whole sequence as tokens and the logits of all but its last position."
        )
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def stream_loss(model: nn.Module, stream: Int[Tensor, " n_tokens"], length: int, batch_size: int = 64) -> float:
    """Return a model's mean next-token loss over a whole token stream, in nats per token.

    The stream is cut into windows of `length` tokens that share one token at each seam, so that every token but the
    first is predicted exactly once; what does not fill a window at the end is left out.

    Parameters
    ----------
    model : module
        Maps int tokens (batch, pos) to logits (batch, pos, d_vocab).
    stream : int tensor, shape (n_tokens,)
        The tokens.
    length : int
        Positions per window that are predicted; at most the model's `n_ctx`.
    batch_size : int
        Windows per forward pass.

    Raises
    ------
    ValueError
        If the stream does not fill one window.
    """
    if len(stream) <= length:
        raise ValueError(f"The stream has {len(stream)} tokens, one window needs {length + 1}; give a longer stream.")
    device = next(model.parameters()).device
    windows = stream.unfold(0, length + 1, length)
    losses = [
        next_token_loss(model(batch[:, :-1].to(device)), batch.to(device)).item() * len(batch)
        for batch in windows.split(batch_size)
    ]
    return sum(losses) / len(windows)


def two_way_task_loss(
    logits_positive: Float[Tensor, "n d_vocab"] | Float[Tensor, "n pos d_vocab"],
    logits_negative: Float[Tensor, "n d_vocab"] | Float[Tensor, "n pos d_vocab"],
    answer_positive: Int[Tensor, " n"],
    answer_negative: Int[Tensor, " n"],
    position: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy over the two candidate tokens alone, in nats per prompt; chance is ln 2.

    The mean over the 2 n prompts: a positive prompt should give `answer_positive` and not `answer_negative`, a
    negative prompt the reverse. All other logits are ignored. The code released with arXiv 2511.13653
    (`last_token_contrast_loss_fn`) adds the two halves instead of averaging them, and its authors note that every
    stored loss is therefore off by a factor of two; compare with half of such a value.

    Parameters
    ----------
    logits_positive, logits_negative : float tensor, shape (n, d_vocab) or (n, pos, d_vocab)
        Logits of the positive and negative prompts, at the answer position or at all positions.
    answer_positive, answer_negative : int tensor, shape (n,)
        Ids of the two candidates of each pair.
    position : int tensor, shape (n,), optional
        The answer position of each pair (`ContrastBatch.position`); needed where the logits have all positions.

    Returns
    -------
    float tensor, shape ()
        Mean loss in nats, differentiable.

    Raises
    ------
    ValueError
        If the shapes disagree, or `position` is missing or superfluous.

    Examples
    --------
    >>> logits = torch.zeros(3, 10)
    >>> round(two_way_task_loss(logits, logits, torch.tensor([1, 1, 1]), torch.tensor([2, 2, 2])).item(), 4)
    0.6931
    """
    if logits_positive.shape != logits_negative.shape:
        raise ValueError(
            f"logits_positive has shape {tuple(logits_positive.shape)} and logits_negative "
            f"{tuple(logits_negative.shape)}; give the prompts of a pair the same length."
        )
    if logits_positive.ndim != (2 if position is None else 3):
        raise ValueError(
            f"logits have shape {tuple(logits_positive.shape)} and position is "
            f"{'missing' if position is None else 'given'}; give logits (n, d_vocab) alone, "
            "or logits (n, pos, d_vocab) with position (n,)."
        )
    n = len(logits_positive)
    for name, ids in (("answer_positive", answer_positive), ("answer_negative", answer_negative)):
        if ids.shape != (n,):
            raise ValueError(f"{name} has shape {tuple(ids.shape)}, the logits are for {n} pairs; give shape ({n},).")
    if position is not None:
        if position.shape != (n,):
            raise ValueError(f"position has shape {tuple(position.shape)}; give shape ({n},).")
        rows = torch.arange(n, device=logits_positive.device)
        logits_positive, logits_negative = logits_positive[rows, position], logits_negative[rows, position]
    candidates = torch.stack([answer_positive, answer_negative], dim=-1)
    right_minus_wrong = torch.cat(
        [
            logits_positive.gather(-1, candidates) @ logits_positive.new_tensor([1.0, -1.0]),
            logits_negative.gather(-1, candidates) @ logits_negative.new_tensor([-1.0, 1.0]),
        ]
    )
    return F.softplus(-right_minus_wrong).mean()


def logit_difference(
    logits: Float[Tensor, "n d_vocab"], right: Int[Tensor, " n"], wrong: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the logit of the right token minus that of the wrong one, for each prompt.

    Parameters
    ----------
    logits : float tensor, shape (n, d_vocab)
        Logits at the answer position.
    right, wrong : int tensor, shape (n,)
        Token ids.

    Returns
    -------
    float tensor, shape (n,)
        In nats; the two-way loss is `softplus` of its negative.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, there are no prompts, or a token is not in the vocabulary.
    """
    for name, ids in (("right", right), ("wrong", wrong)):
        _check_answers(logits, ids, name)
    candidates = torch.stack([right, wrong], dim=-1).to(logits.device)
    of_right, of_wrong = logits.gather(-1, candidates).unbind(-1)
    return of_right - of_wrong


def kl_divergence(
    logits_model: Float[Tensor, "... d_vocab"], logits_circuit: Float[Tensor, "... d_vocab"]
) -> Float[Tensor, ...]:
    """Return KL(model || circuit) in nats, summed over the vocabulary, for each prompt.

    Some public code takes the mean over the vocabulary instead, which divides by its size (the divergence of MIB's
    code, arXiv 2504.13151); multiply such a value by `d_vocab` to compare.

    Parameters
    ----------
    logits_model, logits_circuit : float tensor, shape (..., d_vocab)
        Logits of the intact and of the ablated model.

    Returns
    -------
    float tensor, shape (...)

    Raises
    ------
    ValueError
        If the shapes disagree, or there are no prompts.
    """
    _check_same_shape(logits_model, logits_circuit)
    model, circuit = logits_model.log_softmax(-1), logits_circuit.log_softmax(-1)
    return (model.exp() * (model - circuit)).sum(-1)


def match_with_model(logits: Float[Tensor, "n d_vocab"], logits_model: Float[Tensor, "n d_vocab"]) -> float:
    """Return the share of prompts on which both have the same most likely token, right or wrong.

    Raises
    ------
    ValueError
        If the shapes disagree, there are no prompts, or a logit is nan.
    """
    _check_same_shape(logits, logits_model)
    return (_first_choice(logits) == _first_choice(logits_model)).double().mean().item()


def match_with_label(logits: Float[Tensor, "n d_vocab"], label: Int[Tensor, " n"]) -> float:
    """Return the share of prompts on which the most likely token of the whole vocabulary is the label.

    Raises
    ------
    TypeError, ValueError
        If the shapes disagree, there are no prompts, a logit is nan, or a label is not in the vocabulary.
    """
    _check_answers(logits, label, "label")
    return (_first_choice(logits) == label.to(logits.device)).double().mean().item()


def _check_answers(logits: Tensor, ids: Tensor, name: str) -> None:
    if logits.ndim != 2 or ids.shape != logits.shape[:1]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and {name} {tuple(ids.shape)}; give logits (n, d_vocab) at the "
            f"answer position and {name} (n,)."
        )
    if not len(ids):
        raise ValueError("There are no prompts, the logits have shape (0, d_vocab); give at least one.")
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {ids.dtype}; give token ids, which are integers.")
    if ids.min() < 0 or ids.max() >= logits.shape[1]:
        raise ValueError(
            f"{name} goes from {ids.min()} to {ids.max()}, the vocabulary has {logits.shape[1]} tokens; give ids below "
            "that, from 0 on."
        )


def _check_same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or not a.numel():
        raise ValueError(
            f"The logits have shapes {tuple(a.shape)} and {tuple(b.shape)}; give both on the same prompts, one or more."
        )


def _first_choice(logits: Float[Tensor, "n d_vocab"]) -> Int[Tensor, " n"]:
    if logits.isnan().any():
        raise ValueError("A logit is nan, which has no rank; give the logits of a model with finite weights.")
    return logits.argmax(-1)
