"""Transcoders compute what they say, are measured as an independent computation has it, and resume exactly."""

from dataclasses import replace

import pytest
import torch
from ablation_oracle import random_model
from graph_oracle import random_transcoder
from sparse_circuits.activation_cache import ActivationCache, mlp_activations
from sparse_circuits.dictionary_objective import DictionaryLearning, Scales, SparseReconstruction, initialise
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.training import TrainingConfig
from sparse_circuits.transcoder import Transcoder, TranscoderConfig, model_fingerprint
from sparse_circuits.transcoder_scores import score_transcoder, spliced
from sparse_circuits.transcoder_training import train_transcoder
from torch.testing import assert_close

MODEL = TransformerConfig(d_vocab=12, n_ctx=8, n_layers=2, d_model=8, n_heads=2, d_head=4, d_mlp=16)
TRAINING = TrainingConfig(
    steps=60, batch_size=64, learning_rate=1e-2, weight_decay=0.0, log_every=20, checkpoint_every=20
)


def windows(i, n=8):
    return torch.randint(12, (n, 9), generator=torch.Generator().manual_seed(i))


@pytest.fixture(scope="module")
def model():
    return Transformer(MODEL, seed=1).eval().requires_grad_(False)


def by_hand(transcoder, inputs):
    """Return activations and reconstruction of inputs (n, layer, d_model), layer by layer."""
    cfg, activations, written = transcoder.cfg, [], [b.repeat(len(inputs), 1) for b in transcoder.b_dec]
    for layer in range(cfg.n_layers):
        pre = inputs[:, layer] @ transcoder.W_enc[layer].T + transcoder.b_enc[layer]
        activations.append(torch.where(pre > transcoder.threshold[layer], pre, 0))
        for column, target in enumerate(range(layer, cfg.n_layers if cfg.cross_layer else layer + 1)):
            written[target] = written[target] + activations[layer] @ transcoder.W_dec[layer][:, column]
    return torch.stack(activations, 1), torch.stack(written, 1)


@pytest.mark.parametrize("options", [{}, {"cross_layer": False, "input_hook": "hook_resid_mid"}])
def test_scores_against_an_independent_computation(options):
    model = random_model(5, density=0.9).requires_grad_(False)
    transcoder = random_transcoder(model, 5, features=40, **options)
    held_out = torch.randint(9, (5, 7), generator=torch.Generator().manual_seed(0))
    scores = score_transcoder(model, transcoder, held_out, batch_size=2)
    tokens = held_out[:, :-1]
    _, cache = model.run_with_cache(tokens)
    stacked = [
        torch.stack([cache[f"blocks.{i}.{place}"].flatten(0, 1) for i in range(2)], 1)
        for place in (transcoder.cfg.input_hook, "hook_mlp_out")
    ]
    activations, written = by_hand(transcoder, stacked[0])
    for layer in range(2):
        y = stacked[1][:, layer]
        unexplained = ((y - written[:, layer]) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
        assert float(scores.fvu_by_layer[layer]) == pytest.approx(float(unexplained), rel=1e-10)
        active = activations[:, layer] != 0
        assert float(scores.l0_by_layer[layer]) == pytest.approx(float(active.sum()) / 30)
        assert float(scores.dead_by_layer[layer]) == pytest.approx(float((~active.any(0)).float().mean()))
    # The replacement model, written out: features read what the replaced MLPs leave them.
    x, parts = model.W_E[tokens] + (0 if model.W_pos is None else model.W_pos[:6]), []
    for block in model.blocks:
        x = x + block.attn(block.ln1(x))
        read = block.ln2(x) if transcoder.cfg.input_hook == "ln2.hook_normalized" else x
        parts.append(read.flatten(0, 1))
        padded = torch.stack([*parts, *[torch.zeros_like(parts[0])] * (2 - len(parts))], 1)
        x = x + by_hand(transcoder, padded)[1][:, len(parts) - 1].view(x.shape)
    replaced = model.ln_final(x) @ model.W_U + model.b_U + model.W_bigram[tokens]
    with spliced(model, transcoder):
        assert_close(model(tokens), replaced, rtol=0, atol=1e-10)
    own, other = model(tokens).log_softmax(-1), replaced.log_softmax(-1)
    for log_probabilities, stated in ((own, scores.cross_entropy), (other, scores.spliced_cross_entropy)):
        losses = [-log_probabilities[n, p, held_out[n, p + 1]] for n in range(5) for p in range(6)]
        assert stated == pytest.approx(float(sum(losses) / 30), rel=1e-10)
    assert scores.kl == pytest.approx(float((own.exp() * (own - other)).sum(-1).mean()), rel=1e-9)
    assert scores.n_positions == 30 and "FVU" in repr(scores)
    with pytest.raises(ValueError, match=r"\(0, 7\)"):
        score_transcoder(model, transcoder, held_out[:0])


def test_batch_topk_keeps_the_largest_writers_and_thresholds_repeat_it():
    cfg = TranscoderConfig(n_layers=2, d_model=4, d_transcoder=10, k=3)
    transcoder = Transcoder(cfg).train()
    with torch.no_grad():
        for W_dec in transcoder.W_dec:
            W_dec.normal_(generator=torch.Generator().manual_seed(1))
    inputs = torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(2))
    coded = transcoder(inputs)
    for layer in range(2):
        norms = torch.tensor([float((W**2).sum()) ** 0.5 for W in transcoder.W_dec[layer].detach()])
        weighed = (coded.pre[:, layer].detach().relu() * norms).flatten()
        kept = (coded.activations[:, layer] != 0).flatten()
        assert int(kept.sum()) == 150
        assert weighed[kept].min() > weighed[~kept].max()
    transcoder.calibrate(inputs)
    assert torch.equal(transcoder.eval()(inputs).activations, coded.activations)
    as_jumprelu = transcoder.as_jumprelu()
    assert torch.equal(as_jumprelu(inputs).reconstruction, transcoder(inputs).reconstruction)


def test_gradient_of_jumprelu():
    cfg = TranscoderConfig(n_layers=1, d_model=1, d_transcoder=3, k=1, activation="jumprelu", bandwidth=0.5)
    transcoder = Transcoder(cfg)
    with torch.no_grad():
        transcoder.threshold.copy_(torch.tensor([[1.0, 1.0, 2.0]]))
    pre = torch.tensor([[[1.2, 2.0, 1.9]], [[0.9, 0.1, 2.1]]], requires_grad=True)
    gradient = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])
    (transcoder.activate(pre) * gradient).sum().backward()
    assert pre.grad.tolist() == [[[1.0, 2.0, 0.0]], [[0.0, 0.0, 6.0]]]
    # - theta / bandwidth times the gradients of what lies within a quarter of the threshold.
    assert_close(transcoder.threshold.grad, torch.tensor([[-2.0 * (1 + 4), 0.0, -4.0 * (3 + 6)]]))


def test_folding_scales_changes_no_activation():
    transcoder = random_transcoder(random_model(4), 4)
    inputs = torch.randn(6, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    read, given = torch.tensor([2.0, 5.0]).double(), torch.tensor([0.5, 3.0]).double()
    folded = transcoder.folded(read, given)(inputs * read[:, None])
    assert_close(folded.activations, transcoder(inputs).activations)
    assert_close(folded.reconstruction, transcoder(inputs).reconstruction * given[:, None])


@pytest.mark.parametrize(("n_features", "k", "rate"), [(6, 2, 0.5), (64, 4, 0.125)])
def test_first_weights_fit_the_data_and_fire_at_the_rate(model, n_features, k, rate):
    activations = mlp_activations(model, windows(0, 40)[:, :-1]).flatten(0, 1)
    scaled = Scales.of(activations).apply(activations)
    assert_close(scaled[:, 0].pow(2).mean((0, 2)), torch.ones(2))
    assert_close(scaled[:, 1].var((0), correction=0).mean(-1), torch.ones(2))
    transcoder = Transcoder(TranscoderConfig.of(model, n_features, k=k))
    initialise(transcoder, scaled, DictionaryLearning())
    rates = (transcoder.pre_activations(scaled[:, 0]) > 0).float().mean(0)
    assert_close(rates, torch.full_like(rates, rate), rtol=0, atol=0.03)
    left = (scaled[:, 1] - transcoder(scaled[:, 0]).reconstruction).pow(2).mean((0, 2))
    assert (left < 1).all()
    constant = torch.ones(4, 2, 1, 3)
    assert Scales.of(constant).targets.tolist() == [1.0]


def test_the_cache_gives_each_position_once_and_the_same_to_each_step(model):
    cache = ActivationCache(model, windows, batch_size=16, steps_at_once=8)
    steps = [cache(step) for step in range(16)]
    again = ActivationCache(model, windows, batch_size=16, steps_at_once=8)
    assert torch.equal(again(11), steps[11])
    read = torch.cat([windows(i)[:, :-1] for i in range(4)])
    _, kept = model.run_with_cache(read)
    expected = torch.stack([kept[f"blocks.{i}.hook_mlp_out"].flatten(0, 1) for i in range(2)], 1)
    found = torch.cat(steps)[:, 1]
    order, other = (x.flatten(1)[:, 0].argsort() for x in (expected, found))
    assert_close(found[other], expected[order])
    with pytest.raises(ValueError, match="batch_size is 0"):
        ActivationCache(model, windows, batch_size=0)
    with pytest.raises(ValueError, match="'hook_pre'"):
        mlp_activations(model, read, "hook_pre")
    broken = Transformer(MODEL).eval()
    broken.W_E.data[3] = torch.nan
    with pytest.raises(ValueError, match="is nan; give finite activations"):
        ActivationCache(broken, windows, batch_size=16)(0)


def test_training_explains_most_resumes_exactly_and_tells_thresholds(model, tmp_path):
    config, held_out = TranscoderConfig.of(model, 32, k=4), windows(1000, 16)
    settings = {"learning": DictionaryLearning(dead_after=200, steps_at_once=8), "progress": False}
    whole = train_transcoder(model, windows, config, TRAINING, held_out, directory=tmp_path / "whole", **settings)
    assert [row["step"] for row in whole.log] == [20, 40, 60]
    assert whole.log[-1]["tokens"] == 60 * 64
    assert whole.scores.fvu == pytest.approx(whole.log[-1]["held_out_fvu"], abs=1e-3)
    assert whole.scores.fvu < 0.4 and whole.scores.l0 == pytest.approx(4, abs=0.6)
    assert whole.transcoder.cfg.activation == "jumprelu" and not whole.transcoder.training

    def stopping(i):
        if i > 30:
            raise KeyboardInterrupt
        return windows(i)

    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train_transcoder(model, stopping, config, TRAINING, held_out, directory=stopped, **settings)
    resumed = train_transcoder(model, windows, config, TRAINING, held_out, directory=stopped, **settings)
    for name, weight in whole.transcoder.state_dict().items():
        assert torch.equal(weight, resumed.transcoder.state_dict()[name]), name
    with pytest.raises(ValueError, match="learning"):
        changed = settings | {"learning": DictionaryLearning(dead_after=300, steps_at_once=8)}
        train_transcoder(model, windows, config, TRAINING, held_out, directory=stopped, **changed)
    other = Transformer(MODEL, seed=2)
    with pytest.raises(ValueError, match="SHA-256"):
        train_transcoder(other, windows, config, TRAINING, held_out, progress=False)


def test_jumprelu_and_per_layer_transcoders_train(model):
    config = TranscoderConfig.of(model, 32, activation="jumprelu", cross_layer=False, k=4)
    learning = DictionaryLearning(sparsity=0.1, steps_at_once=8, dead_weight=1e-4)
    run = train_transcoder(model, windows, config, TRAINING, windows(1000, 16), learning, progress=False)
    assert run.log[-1]["held_out_fvu"] < 0.5
    assert run.log[-1]["l0"] < run.log[0]["l0"] + 1
    assert [len(W[0]) for W in run.transcoder.W_dec] == [1, 1]


def test_dead_features_learn_what_the_others_leave_over():
    cfg = TranscoderConfig(n_layers=1, d_model=2, d_transcoder=2, k=1)
    transcoder = Transcoder(cfg).train()
    with torch.no_grad():
        transcoder.W_enc.copy_(torch.tensor([[[2.0, 0.0], [1.0, 0.0]]]))
        transcoder.W_dec[0].copy_(torch.tensor([[[1.0, 0.0]], [[0.1, 0.0]]]))
    activations = torch.tensor([[[[1.0, 0.0]], [[2.0, 1.0]]]]).repeat(4, 1, 1, 1)
    one = torch.ones(1)
    objective = SparseReconstruction(transcoder, Scales(one, one), DictionaryLearning(dead_after=5), steps=1)
    first, measures = objective(transcoder, activations, 0)
    assert objective.silent_for.tolist() == [[0, 4]] and float(measures["dead_share"]) == 0
    objective(transcoder, activations, 1)
    copy = SparseReconstruction(transcoder, Scales(one, one), DictionaryLearning(dead_after=5), steps=1)
    copy.load_state_dict(objective.state_dict())
    second, measures = copy(transcoder, activations, 2)
    # What is left is (0, 1); the dead feature writes 1 * (0.1, 0), so (0.01 + 1) / 1 of it stays.
    assert (second - first).item() == pytest.approx(1.01 / 32)
    assert float(measures["dead_share"]) == 0.5 and float(measures["l0"]) == 1
    second.backward()
    assert transcoder.W_dec[0].grad[1].abs().sum() > 0


def test_fingerprint_and_bad_settings(model):
    assert model_fingerprint(model) == model_fingerprint(Transformer(MODEL, seed=1).double())
    assert model_fingerprint(model) != model_fingerprint(Transformer(MODEL, seed=2))
    good = {"n_layers": 2, "d_model": 8, "d_transcoder": 16}
    for bad, message in (
        ({"d_transcoder": 0}, "d_transcoder is 0"),
        ({"k": 17}, "k is 17, but a layer has 16"),
        ({"bandwidth": -1.0}, "bandwidth is -1"),
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"input_hook": "hook_mlp_in"}, "input_hook is 'hook_mlp_in'"),
    ):
        with pytest.raises(ValueError, match=message):
            TranscoderConfig(**good | bad)
    for bad, message in (
        ({"initial_rate": 2.0}, "initial_rate is 2"),
        ({"dead_after": 0}, "dead_after is 0"),
        ({"sparsity": -1.0}, "sparsity is -1"),
        ({"dead_k": 0}, "dead_k is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            DictionaryLearning(**bad)
    transcoder = Transcoder(TranscoderConfig(**good))
    with pytest.raises(ValueError, match=r"\(3, 2, 7\)"):
        transcoder(torch.zeros(3, 2, 7))
    with pytest.raises(ValueError, match="Layer 2 is out of range"):
        transcoder.check_feature(2, 0)
    assert replace(transcoder.cfg, k=2).k == 2
