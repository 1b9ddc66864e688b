"""Which inputs of a linear layer to keep: their magnitude, weighed by what is known of their channel.

First used in chapter 15. Inputs are x, shape (token, channel), and weights W, shape (channel, output): the layer is
x @ W. All criteria are a magnitude times a factor for each channel, so a factor common to all channels changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

INLIERS = (0.005, 0.995)


def magnitude(x: Float[Tensor, "token channel"], weight: Float[Tensor, "channel output"]) -> Tensor:
    """Return 1 for every channel: the score is |x| (ACT of arXiv 2509.22166, section 3)."""
    return x.new_ones(x.shape[-1])


def clact(x: Float[Tensor, "token channel"], weight: Float[Tensor, "channel output"]) -> Float[Tensor, " channel"]:
    """Return the length of each channel over all tokens that are given.

    Notes
    -----
    CLACT of arXiv 2509.22166: the score of token i and channel t is |x_it| ||x_:t|| / ||x_i:||. The last norm is the
    same for all channels of a token, so it cannot change what is kept, and is left out here. The first is taken over
    all tokens of the run: what is kept of a token depends on the other prompts and on later tokens. With one token
    alone the score is x² and keeps what the magnitude keeps.
    """
    return x.norm(dim=0)


def amber(x: Float[Tensor, "token channel"], weight: Float[Tensor, "channel output"]) -> Float[Tensor, " channel"]:
    """Return the length of each channel's standardised weights, relative to the shortest.

    Notes
    -----
    Amber-Pruner, arXiv 2508.02128: the weights are standardised with mean and standard deviation of those between
    their 0.5 % and 99.5 % quantiles, then the factor is ||W_j|| / min_k ||W_k||.
    """
    low, high = torch.quantile(weight.flatten(), torch.tensor(INLIERS).to(weight))
    inliers = weight[(weight >= low) & (weight <= high)]
    lengths = ((weight - inliers.mean()) / inliers.std()).norm(dim=1)
    return lengths / lengths.min()


def weight_aware(
    x: Float[Tensor, "token channel"], weight: Float[Tensor, "channel output"]
) -> Float[Tensor, " channel"]:
    """Return the length of each channel's weights: the score is |x_j| ||W_j||, the size of what x_j adds to the output.

    Notes
    -----
    WINA, arXiv 2505.19427; the mirror image of the Wanda score of weights.
    """
    return weight.norm(dim=1)


CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "magnitude": magnitude,
    "CLACT": clact,
    "Amber-Pruner": amber,
    "weight-aware": weight_aware,
}
# A control and no criterion: entries stay by lot.
RANDOM = "random"


def scores(criterion: str, x: Float[Tensor, "*rows channel"], weight: Float[Tensor, "channel output"]) -> Tensor:
    """Return the score of every input, shape of `x`: the larger ones of a group stay.

    Parameters
    ----------
    criterion : str
        A name in `CRITERIA`, or `"random"`: numbers drawn anew with the same seed at each call, the control.
    x : float tensor, shape (..., channel)
        The inputs; all leading dimensions are tokens.
    weight : float tensor, shape (channel, output)
        The weights of the layer.

    Raises
    ------
    ValueError
        If there is no such criterion, or the weights are for another number of channels.
    """
    if weight.ndim != 2 or x.shape[-1] != weight.shape[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}; give (channel, output).")
    if criterion == RANDOM:
        return torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    if criterion not in CRITERIA:
        raise ValueError(f"There is no criterion {criterion!r}; choose one of {[*CRITERIA, RANDOM]}.")
    return x.abs() * CRITERIA[criterion](x.reshape(-1, x.shape[-1]), weight)
