"""The shortcut of cross-layer transcoders: as exact as the circuit, cheaper, and wrong about what causes what."""

import pytest
import torch
from sparse_circuits.attribution_graph import attribute
from sparse_circuits.dictionary_objective import DictionaryLearning
from sparse_circuits.feature_interventions import set_features
from sparse_circuits.planted.two_hop import OFF, ON, Z, planted_two_hop, second_hop_share, two_hop_transcoder
from sparse_circuits.training import TrainingConfig
from sparse_circuits.transcoder import TranscoderConfig
from sparse_circuits.transcoder_scores import score_transcoder
from sparse_circuits.transcoder_training import train_transcoder

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


@pytest.mark.slow
def test_a_price_on_features_trains_the_shortcut_across_layers_only(model):
    def tokens(step):
        return torch.randint(8, (64, 1), generator=torch.Generator().manual_seed(step)).repeat(1, 2)

    shares = {}
    for cross_layer in (True, False):
        config = TranscoderConfig.of(model, 6, k=2, activation="jumprelu", cross_layer=cross_layer)
        training = TrainingConfig(
            steps=1500, batch_size=64, learning_rate=1e-2, weight_decay=0.0, log_every=1500, checkpoint_every=1500
        )
        learning = DictionaryLearning(sparsity=0.1, steps_at_once=100)
        run = train_transcoder(model, tokens, config, training, EVERY, learning, progress=False)
        shares[cross_layer] = second_hop_share(run.transcoder, model), run.scores.fvu
    print(shares)
    assert shares[True][0] < 0.5 < shares[False][0]
