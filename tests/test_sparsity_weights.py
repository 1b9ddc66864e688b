"""Weight sparsity: which entries are kept, how many, and when."""

from dataclasses import replace

import pytest
import torch
from helpers import nonzeros
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import WeightSparsity, sparse_weights, sparsify

CONFIG = TransformerConfig(d_vocab=30, n_ctx=16, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32)
SPARSITY = WeightSparsity(density=1 / 8, expansion=2)


def connections_of(kind: str, weight: torch.Tensor) -> list[torch.Tensor]:
    """List the connections that each neuron or channel of a weight owns, spelled out index by index."""
    if kind == "W_in":
        return [weight[:, neuron] for neuron in range(weight.shape[1])]
    if kind == "W_out":
        return [weight[neuron] for neuron in range(weight.shape[0])]
    heads = range(weight.shape[0])
    if kind == "W_O":
        return [weight[head, channel, :] for head in heads for channel in range(weight.shape[1])]
    return [weight[head, :, channel] for head in heads for channel in range(weight.shape[2])]


def test_the_budget_is_the_density_of_each_weight():
    model = Transformer(CONFIG)
    counts = SPARSITY.counts(model)
    assert counts["W_E"] == counts["W_U"] == 30 * 16 // 4
    assert counts["W_pos"] == 16 * 16 // 4
    for layer in range(2):
        for kind in ("W_Q", "W_K", "W_V", "W_O"):
            assert counts[f"blocks.{layer}.attn.{kind}"] == 16 * 16 // 8
        for kind in ("W_in", "W_out"):
            assert counts[f"blocks.{layer}.mlp.{kind}"] == 16 * 32 // 8
    assert len(counts) == 3 + 2 * 6
    sparsify(model, SPARSITY)
    assert nonzeros(model) == counts


def test_width_leaves_the_number_of_nonzeros_as_it_is():
    def totals(expansion):
        width = 16 * expansion
        cfg = replace(CONFIG, d_model=width, n_heads=width // 8, d_mlp=2 * width)
        counts = WeightSparsity(density=0.5 / expansion**2, expansion=expansion).counts(Transformer(cfg))
        return counts["W_E"], counts["blocks.0.attn.W_Q"], counts["blocks.0.mlp.W_in"]

    assert totals(1) == totals(2) == totals(4)


def test_what_is_kept_is_what_was_largest():
    model = Transformer(CONFIG, seed=1)
    before = {name: weight.detach().clone() for name, weight in sparse_weights(model)}
    sparsify(model, SPARSITY)
    for name, weight in sparse_weights(model):
        kept = weight != 0
        assert torch.equal(weight[kept], before[name][kept])
        assert before[name][kept].abs().min() > before[name][~kept].abs().max()


def test_biases_sinks_and_the_bigram_table_stay_dense():
    model = Transformer(replace(CONFIG, attention_sink=True, bigram_table=True))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    sparsify(model, WeightSparsity(density=1e-4))
    sparse = {name for name, _ in sparse_weights(model)}
    for name, weight in model.named_parameters():
        assert bool(weight.all()) == (name not in sparse)
        assert weight.any()


@pytest.mark.parametrize("floor", [1, 2, 4])
def test_every_neuron_and_channel_keeps_its_floor(floor):
    model = Transformer(CONFIG, seed=3)
    sparsity = WeightSparsity(density=0.3, floor=floor)
    with torch.no_grad():
        for _, weight in sparse_weights(model):
            weight.view(-1)[: weight.numel() // 2] *= 100
    before = {name: weight.detach().clone() for name, weight in sparse_weights(model)}
    sparsify(model, sparsity)
    assert nonzeros(model) == sparsity.counts(model)
    for name, weight in sparse_weights(model):
        kind = name.rpartition(".")[2]
        if kind in ("W_E", "W_pos", "W_U"):
            continue
        owned = zip(connections_of(kind, weight), connections_of(kind, before[name]), strict=True)
        for after, was in owned:
            assert after.count_nonzero() >= floor
            largest = was.abs().topk(floor).indices
            assert torch.equal(after[largest], was[largest])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0}, "density is 0; give a share above 0 and at most 1"),
        ({"density": 1.5}, "density is 1.5"),
        ({"density": float("nan")}, "density is nan"),
        ({"density": 0.5, "expansion": 0.5}, "expansion is 0.5; give 1 or more"),
        ({"density": 0.5, "floor": -1}, "floor is -1"),
        ({"density": 0.5, "floor": 1.5}, "floor is 1.5"),
        ({"density": 0.5, "anneal_from": 0.6}, "Annealing goes from 0.6 to 0.5"),
        ({"density": 0.5, "anneal_to": 1.2}, "Annealing goes from 0.01 to 1.2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        WeightSparsity(**settings)
