"""Interventions on features in the model itself: the test of what an attribution graph predicts.

First used in chapter 11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from .model import Transformer
from .transcoder import OUTPUT_HOOK, Transcoder, check_belongs


@contextmanager
def set_features(
    model: Transformer, transcoder: Transcoder, values: Mapping[tuple[int, int, int], float]
) -> Iterator[Transformer]:
    """Give features other activations, for as long as the context lasts.

    The MLPs stay. To what each gives is added what the changed features would write more, or less: new minus present
    activation times their decoders. The present activation is that of the run inside the context, so that features of
    late layers see what changed in early ones; attention and norms are not frozen.

    Parameters
    ----------
    model : Transformer
        The model.
    transcoder : Transcoder
        One of this model, in its precision.
    values : mapping of (layer, position, feature) to float
        New activations; 0 takes a feature out. They hold for every prompt of a batch.

    Raises
    ------
    ValueError
        If the transcoder is not one of this model, a layer or feature is out of range or a position negative.
    IndexError
        In the run, if a position is beyond the prompt.
    """
    check_belongs(transcoder, model)
    by_layer: dict[int, list[tuple[int, int, float]]] = {}
    for (layer, position, feature), value in values.items():
        transcoder.check_feature(layer, feature)
        if position < 0:
            raise ValueError(f"The position of feature {feature} of layer {layer} is {position}; count from 0.")
        by_layer.setdefault(layer, []).append((position, feature, float(value)))
    changes: dict[int, dict[int, Tensor]] = {}

    def read(layer: int):
        def hook_function(x: Tensor, hook) -> None:
            changes[layer] = {}
            for position, feature, value in by_layer[layer]:
                if position >= x.shape[1]:
                    raise IndexError(f"Position {position} is beyond the prompt, which has {x.shape[1]} positions.")
                pre = x[:, position] @ transcoder.W_enc[layer, feature] + transcoder.b_enc[layer, feature]
                change = value - pre * (pre > transcoder.threshold[layer, feature])
                for column, target in enumerate(transcoder.target_layers(layer)):
                    written = changes[layer].setdefault(target, x.new_zeros(x.shape))
                    written[:, position] += change[:, None] * transcoder.W_dec[layer][feature, column]

        return hook_function

    def write(target: int):
        def hook_function(output: Tensor, hook) -> Tensor:
            return output + sum(of_layer[target] for of_layer in changes.values() if target in of_layer)

        return hook_function

    hooks = [(f"blocks.{layer}.{transcoder.cfg.input_hook}", read(layer)) for layer in by_layer]
    hooks += (
        [(f"blocks.{layer}.{OUTPUT_HOOK}", write(layer)) for layer in range(min(by_layer), model.cfg.n_layers)]
        if by_layer
        else []
    )
    try:
        with model.hooks(fwd_hooks=hooks):
            yield model
    finally:
        changes.clear()
