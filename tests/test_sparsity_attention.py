"""Gates open where scores say so, pass the gradient of the published equations, and are counted edge by edge."""

from dataclasses import replace

import pytest
import torch
from ablation_oracle import random_model, random_tokens
from sparse_circuits.checkpoints import load_model, save_model
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity.attention import (
    AttentionGate,
    closed_attention,
    expected_density,
    gated,
    kept_scores,
    open_edges,
)
from sparse_circuits.two_way import TwoWayPrompts

TOKENS = random_tokens(0, 3, 6)


def causal_scores(seed, shape=(2, 2, 4, 4)):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.masked_fill(torch.ones(shape[-2:]).triu(1).bool(), -torch.inf)


def test_the_pattern_is_the_softmax_where_the_score_is_above_minus_the_bias():
    model = gated(random_model(1), bias=0.2).eval()
    _, cache = model.run_with_cache(TOKENS)
    for layer, block in enumerate(model.blocks):
        scores = cache[f"blocks.{layer}.attn.hook_attn_scores"]
        sink = block.attn.sink.view(1, -1, 1, 1).exp()
        weights = scores.exp() / (scores.exp().sum(-1, keepdim=True) + sink)
        expected = torch.where(scores > -0.2, weights, 0)
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        torch.testing.assert_close(pattern, expected)
        assert 0 < (expected > 0).double().mean() < 0.58  # some causal pairs are closed
        z = torch.einsum("bhqk,bkhd->bqhd", expected, cache[f"blocks.{layer}.attn.hook_v"])
        torch.testing.assert_close(cache[f"blocks.{layer}.attn.hook_z"], z)


def test_a_change_of_the_scores_reaches_the_gate():
    model = gated(random_model(0), bias=0.0).eval()
    place = "blocks.0.attn.hook_attn_scores"
    seen = {}
    hooks = [(place, lambda scores, hook: scores - 100)]
    hooks.append(("blocks.0.attn.hook_pattern", lambda pattern, hook: seen.update(pattern=pattern)))
    model.run_with_hooks(TOKENS, fwd_hooks=hooks)
    assert not seen["pattern"].any()


def test_gates_with_a_large_bias_change_nothing_and_evaluation_draws_nothing():
    dense = random_model(1).eval()
    torch.testing.assert_close(gated(dense, bias=100.0)(TOKENS), dense(TOKENS))
    model = gated(dense, bias=0.0)
    assert torch.equal(model(TOKENS), model(TOKENS))
    model.train()
    assert not torch.equal(model(TOKENS), model(TOKENS))


def test_a_gate_is_drawn_with_the_probability_of_its_logit():
    gate = AttentionGate(0.5).train()
    scores = torch.tensor([-2.0, -0.5, 0.0, 1.0, -torch.inf]).expand(40_000, -1)
    torch.manual_seed(0)
    drawn = gate(torch.ones_like(scores), scores)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), (scores[0] + 0.5).sigmoid(), atol=0.01, rtol=0)


def gate_with_noise(pattern, scores, bias, seed):
    torch.manual_seed(seed)
    return AttentionGate(bias).train()(pattern, scores)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_reference_layer(seed):
    """d loss / d score = p ((g (1 - g) + hard) <dO, v> - <dO, O>): the backward pass of the authors' kernel."""
    scores = causal_scores(seed).requires_grad_()
    value, upstream = causal_scores(seed + 10, (2, 2, 4, 3)).nan_to_num(neginf=0.3), torch.randn(2, 2, 4, 3).double()
    output = gate_with_noise(scores.softmax(-1), scores, 0.4, seed) @ value
    (gradient,) = torch.autograd.grad((output * upstream).sum(), scores)
    torch.manual_seed(seed)
    noise = torch.rand_like(scores).logit()
    g, p = (scores + 0.4 + noise).sigmoid().detach(), scores.softmax(-1).detach()
    hard = (scores + 0.4 + noise > 0).double()
    along, whole = upstream @ value.transpose(-1, -2), (upstream * output).sum(-1, keepdim=True).detach()
    torch.testing.assert_close(gradient, p * ((g * (1 - g) + hard) * along - whole))


def test_the_gradient_is_that_of_finite_differences_of_the_surrogate():
    """With the draws held fixed, weights move by the softmax and gates by the sigmoid of logit plus noise."""
    scores, upstream = causal_scores(5, (1, 1, 4, 4)), torch.randn(1, 1, 4, 4).double()
    torch.manual_seed(5)
    noise = torch.rand_like(scores).logit()
    p, hard = scores.softmax(-1), (scores + 0.4 + noise > 0).double()

    def surrogate(x):
        return ((x.softmax(-1) * hard + p * (x + 0.4 + noise).sigmoid()) * upstream).sum()

    moving = scores.clone().requires_grad_()
    output = gate_with_noise(moving.softmax(-1), moving, 0.4, 5)
    (gradient,) = torch.autograd.grad((output * upstream).sum(), moving)
    for i, j in torch.ones(4, 4).tril().nonzero().tolist():
        step = torch.zeros_like(scores)
        step[0, 0, i, j] = 1e-6
        difference = (surrogate(scores + step) - surrogate(scores - step)) / 2e-6
        assert float(gradient[0, 0, i, j]) == pytest.approx(float(difference), abs=1e-8)


def test_open_edges_are_counted_one_by_one():
    model = gated(random_model(0), bias=-0.1)
    edges = open_edges(model, TOKENS, batch_size=2)
    _, cache = model.eval().run_with_cache(TOKENS)
    for layer in range(2):
        scores = cache[f"blocks.{layer}.attn.hook_attn_scores"]
        for head in range(2):
            logits = [float(scores[b, head, q, k]) - 0.1 for b in range(3) for q in range(6) for k in range(q + 1)]
            assert float(edges.counts[layer, head]) == pytest.approx(sum(x > 0 for x in logits) / 3)
            probability = sum(float(torch.tensor(x).double().sigmoid()) for x in logits) / 3
            assert float(edges.expected[layer, head]) == pytest.approx(probability)
    open_per_prompt = float(edges.counts.sum())
    assert edges.of_allowed_pairs == pytest.approx(open_per_prompt / (2 * 2 * 21))
    assert edges.of_all_pairs == pytest.approx(open_per_prompt / (2 * 2 * 36))
    assert edges.per_token == pytest.approx(open_per_prompt / 6)
    assert edges.expected_of_allowed_pairs == pytest.approx(float(edges.expected.sum()) / (2 * 2 * 21))
    assert model.training is False


def test_without_gates_every_causal_pair_is_open():
    edges = open_edges(random_model(1), TOKENS)
    assert edges.of_allowed_pairs == edges.expected_of_allowed_pairs == 1


def test_the_expected_density_is_differentiable():
    model = gated(random_model(0), bias=0.3).eval()
    with kept_scores(model) as scores:
        model(TOKENS)
    density = expected_density(model, scores)
    assert density.mean().item() == pytest.approx(open_edges(model, TOKENS).expected_of_allowed_pairs)
    (gradient,) = torch.autograd.grad(density[0], scores[0])
    g = (scores[0] + 0.3).sigmoid().detach()
    torch.testing.assert_close(gradient, g * (1 - g) / (3 * 2 * 21))


def test_closed_attention_writes_its_bias_alone():
    model = random_model(1)
    with closed_attention(model), torch.no_grad():
        _, cache = model.run_with_cache(TOKENS)
    for layer in range(2):
        written = cache[f"blocks.{layer}.hook_attn_out"]
        torch.testing.assert_close(written, model.blocks[layer].attn.b_O.expand_as(written))


def test_answers_read_with_the_last_layer_cut_are_those_of_the_whole_run():
    model = gated(random_model(1), bias=0.1).eval()
    prompts = TwoWayPrompts(TOKENS, torch.tensor([2, 5, 3]), torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))
    expected = model(TOKENS)[torch.arange(3), prompts.position]
    torch.testing.assert_close(prompts.answer_logits(model), expected)


def test_gates_are_stored_with_the_model(tmp_path):
    model = gated(random_model(0), bias=0.7).eval()
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.cfg == model.cfg
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert "attention_gate_bias" not in random_model(0).cfg.to_dict()


@pytest.mark.parametrize("bias", [float("nan"), float("inf"), "3", True])
def test_bad_biases_are_named(bias):
    cfg = TransformerConfig.preset("minute", d_vocab=5)
    with pytest.raises(ValueError, match=r"attention_gate_bias is .*; give a finite number"):
        replace(cfg, attention_gate_bias=bias)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match=r"has gates with bias 3\.0 already; give one without"):
        gated(gated(random_model(0)))
    with pytest.raises(ValueError, match=r"tokens have shape \(0, 4\); give at least one prompt"):
        open_edges(random_model(0), torch.zeros(0, 4, dtype=torch.long))
    assert isinstance(gated(random_model(0)), Transformer)
