"""The shortcut of cross-layer transcoders: as exact as the circuit, cheaper, and wrong about what causes what."""

import math

import pytest
import torch
from sparse_circuits.activation_cache import mlp_activations
from sparse_circuits.attribution_graph import attribute
from sparse_circuits.dictionary_objective import DictionaryLearning, Scales, SparseReconstruction
from sparse_circuits.feature_interventions import set_features
from sparse_circuits.planted.two_hop import OFF, ON, Z, planted_two_hop, second_hop_share, two_hop_transcoder
from sparse_circuits.transcoder_scores import score_transcoder

EVERY = torch.arange(8)[:, None].repeat(1, 2)


@pytest.fixture(scope="module")
def model():
    return planted_two_hop()


def is_on(model):
    logits = model(EVERY[:, :1])[:, 0]
    return (logits[:, ON] > logits[:, OFF]).tolist()


def test_the_model_needs_both_hops(model):
    assert is_on(model) == [False] * 7 + [True]

    def without_z(output, hook):
        return output * (torch.arange(5) != Z)

    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", without_z)]):
        assert not any(is_on(model))


def test_the_shortcut_is_exact_and_sparser_and_hides_the_second_hop(model):
    honest, shortcut = (two_hop_transcoder(flag) for flag in (False, True))
    scores = [score_transcoder(model, transcoder, EVERY) for transcoder in (honest, shortcut)]
    for measured in scores:
        assert measured.fvu < 1e-10 and measured.kl < 1e-10
    # Of eight inputs two have z and one has y: three active features as it is, two by the shortcut.
    assert [float(measured.l0_by_layer.sum()) for measured in scores] == pytest.approx([3 / 8, 2 / 8])
    assert [second_hop_share(transcoder, model) for transcoder in (honest, shortcut)] == [1.0, 0.0]
    graph = attribute(model, honest, torch.tensor([ON]), logits=[ON])
    assert graph.edge("f0.0@0", "f1.0@0") == pytest.approx(1.0, abs=1e-5)
    misled = attribute(model, shortcut, torch.tensor([ON]), logits=[ON])
    assert misled.nodes.n_features == 1
    # Taking z out of the first layer turns the answer off, though the shortcut's graph has no edge that says so.
    with set_features(model, honest, {(0, 0, 0): 0.0}):
        assert not is_on(model)[ON]


def test_a_price_on_active_features_prefers_the_shortcut(model):
    activations = mlp_activations(model, EVERY[:, :1]).flatten(0, 1)
    learning = DictionaryLearning(sparsity=1.0, ramp=0.0, dead_weight=0.0)
    prices = []
    for shortcut in (False, True):
        transcoder, one = two_hop_transcoder(shortcut), torch.ones(2)
        objective = SparseReconstruction(transcoder, Scales(one, one), learning, steps=1)
        minimised, measures = objective(transcoder, activations, 0)
        assert float(measures["loss"]) < 1e-10
        prices.append(float(minimised))
    # Mean over eight inputs and two layers of tanh(4 * norm of what a feature writes): three features, or two.
    one, both = math.tanh(4), math.tanh(4 * math.sqrt(2))
    assert prices == pytest.approx([3 * one / 16, (one + both) / 16], rel=1e-5)
    assert prices[1] < 0.7 * prices[0]
