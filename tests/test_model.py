"""The model against TransformerLens's own native model, and against arithmetic written out in float64."""

import math
from dataclasses import replace

import pytest
import torch
from sparse_circuits import explore, weight_graph
from sparse_circuits.model import PRESETS, Transformer, TransformerConfig
from sparse_circuits.sparsity import sparse_weights

CONFIG = TransformerConfig(d_vocab=50, n_ctx=16, n_layers=2, d_model=32, n_heads=4, d_head=8, d_mlp=64)
TOKENS = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(1))


def with_random_vectors(model: Transformer) -> Transformer:
    """Give biases, sinks and tables values, so that a test sees them used."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def native_bridge_with_weights_of(model: Transformer):
    """Return a TransformerLens native bridge that holds the same weights."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    cfg = model.cfg
    shape = {
        name: getattr(cfg, name) for name in ("d_model", "d_head", "n_heads", "n_layers", "n_ctx", "d_vocab", "d_mlp")
    }
    bridge = TransformerBridge.boot_native(
        TransformerBridgeConfig(
            **shape,
            act_fn="silu" if cfg.gated_mlp else cfg.act_fn,
            gated_mlp=cfg.gated_mlp,
            normalization_type="RMSPre",
            seed=0,
        )
    )
    state = {
        "embed.weight": model.W_E,
        "pos_embed.weight": model.W_pos,
        "unembed.weight": model.W_U.T,
        "unembed.bias": model.b_U,
    }
    for layer, block in enumerate(model.blocks):
        attn, mlp = block.attn, block.mlp
        for letter in "QKV":
            state[f"blocks.{layer}.attn.{letter.lower()}.weight"] = (
                getattr(attn, f"W_{letter}").transpose(1, 2).flatten(0, 1)
            )
            state[f"blocks.{layer}.attn.{letter.lower()}.bias"] = getattr(attn, f"b_{letter}").flatten()
        state[f"blocks.{layer}.attn.o.weight"] = attn.W_O.flatten(0, 1).T
        state[f"blocks.{layer}.attn.o.bias"] = attn.b_O
        for letters in ("in", "out", "gate")[: 3 if cfg.gated_mlp else 2]:
            state[f"blocks.{layer}.mlp.{letters}.weight"] = getattr(mlp, f"W_{letters}").T
            if not cfg.gated_mlp:
                state[f"blocks.{layer}.mlp.{letters}.bias"] = getattr(mlp, f"b_{letters}")
    assert state.keys() == bridge.state_dict().keys()
    bridge.load_state_dict({name: weight.detach().clone() for name, weight in state.items()})
    return bridge.eval()


@pytest.mark.parametrize("changes", [{"act_fn": "gelu"}, {"act_fn": "relu"}, {"gated_mlp": True}])
def test_logits_and_every_cached_activation_equal_the_native_bridge(changes):
    model = with_random_vectors(Transformer(replace(CONFIG, **changes), seed=3))
    bridge = native_bridge_with_weights_of(model)
    with torch.no_grad():
        logits, cache = model.run_with_cache(TOKENS)
        expected_logits, expected_cache = bridge.run_with_cache(TOKENS)
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
    assert len(cache) == 2 + (17 + model.cfg.gated_mlp) * CONFIG.n_layers + 2
    for name, activation in cache.items():
        if name.endswith("hook_attn_scores"):
            # The native bridge fires this hook after the softmax; its pattern is the way to check ours.
            activation, name = activation.softmax(-1), name.replace("hook_attn_scores", "hook_pattern")
        expected = expected_cache[name].reshape(activation.shape)
        torch.testing.assert_close(
            activation, expected, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def logits_by_loops(model: Transformer, tokens: list[int]) -> torch.Tensor:
    """Compute the logits of one sequence head by head and query by query, in float64, with sink and bigram table."""
    weights = {name: weight.double() for name, weight in model.state_dict().items()}
    cfg = model.cfg

    def normalised(vector):
        return vector / math.sqrt(float((vector**2).mean()) + cfg.rms_eps)

    residual = [weights["W_E"][t] + (weights["W_pos"][p] if cfg.positions else 0) for p, t in enumerate(tokens)]
    for layer in range(cfg.n_layers):
        attn = {name.rpartition(".")[2]: w for name, w in weights.items() if name.startswith(f"blocks.{layer}.attn.")}
        mlp = {name.rpartition(".")[2]: w for name, w in weights.items() if name.startswith(f"blocks.{layer}.mlp.")}
        read = [normalised(vector) for vector in residual]
        written = [attn["b_O"].clone() for _ in residual]
        for head in range(cfg.n_heads):
            q, k, v = ([x @ attn[f"W_{letter}"][head] + attn[f"b_{letter}"][head] for x in read] for letter in "QKV")
            for query in range(len(tokens)):
                weight = [math.exp(float(q[query] @ k[key]) / math.sqrt(cfg.d_head)) for key in range(query + 1)]
                total = sum(weight) + (math.exp(float(attn["sink"][head])) if cfg.attention_sink else 0)
                for key in range(query + 1):
                    written[query] += weight[key] / total * v[key] @ attn["W_O"][head]
        residual = [vector + out for vector, out in zip(residual, written, strict=True)]
        for position, vector in enumerate(residual):
            pre = normalised(vector) @ mlp["W_in"] + mlp["b_in"]
            post = pre * 0.5 * (1 + torch.erf(pre / math.sqrt(2))) if cfg.act_fn == "gelu" else pre.clamp(min=0)
            residual[position] = vector + post @ mlp["W_out"] + mlp["b_out"]
    logits = torch.stack([normalised(vector) @ weights["W_U"] + weights["b_U"] for vector in residual])
    return logits + weights["W_bigram"][tokens] if cfg.bigram_table else logits


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("attention_sink", [True, False])
@pytest.mark.parametrize("bigram_table", [True, False])
def test_every_option_equals_loops_in_float64(positions, attention_sink, bigram_table):
    options = {"positions": positions, "attention_sink": attention_sink, "bigram_table": bigram_table, "act_fn": "gelu"}
    model = with_random_vectors(Transformer(TransformerConfig(**{**CONFIG.to_dict(), **options}), seed=4))
    with torch.no_grad():
        logits = model(TOKENS[:1, :7])[0]
    torch.testing.assert_close(logits.double(), logits_by_loops(model, TOKENS[0, :7].tolist()), atol=1e-5, rtol=0)


def test_attention_never_looks_ahead():
    model = Transformer(CONFIG)
    changed = TOKENS.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % CONFIG.d_vocab
    with torch.no_grad():
        assert torch.equal(model(TOKENS)[:, :8], model(changed)[:, :8])


def test_hooks_change_the_run_and_leave_no_trace():
    model = Transformer(CONFIG)
    with torch.no_grad():
        before = model(TOKENS)
        cut = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: torch.zeros_like(z))])
        assert not torch.allclose(before, cut)
        assert torch.equal(before, model(TOKENS))


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, same, other = Transformer(CONFIG, seed=5), Transformer(CONFIG, seed=5), Transformer(CONFIG, seed=6)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.W_E, same.W_E)
    assert not torch.equal(one.W_E, other.W_E)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"d_model": 0}, "d_model is 0"), ({"n_heads": 2.0}, "n_heads is 2.0"), ({"act_fn": "tanh"}, "act_fn is 'tanh'")],
)
def test_bad_configurations_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**{**CONFIG.to_dict(), **change})


def test_presets():
    for name in PRESETS:
        assert TransformerConfig.preset(name, d_vocab=100, n_ctx=8).n_ctx == 8
    with pytest.raises(ValueError, match="no preset 'large'"):
        TransformerConfig.preset("large", d_vocab=100)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(1, 17, dtype=torch.long), "17 tokens, the model reads 16"),
        (torch.zeros(4, dtype=torch.long), "shape \\(4,\\)"),
        (torch.zeros(1, 4), "torch.float32"),
    ],
)
def test_bad_tokens_are_named(tokens, message):
    with pytest.raises(ValueError, match=message):
        Transformer(CONFIG)(tokens)


def test_a_gated_model_is_stored_with_its_gate_and_has_no_weight_graph():
    gated = Transformer(replace(CONFIG, gated_mlp=True))
    assert gated.cfg.to_dict()["gated_mlp"] is True
    assert "gated_mlp" not in CONFIG.to_dict()
    assert dict(sparse_weights(gated)).keys() >= {"blocks.0.mlp.W_gate", "blocks.0.mlp.W_in"}
    with pytest.raises(ValueError, match=r"gated MLPs, which have no place in the weight graph; give"):
        weight_graph(gated)
    with pytest.raises(ValueError, match=r"gated MLPs, which the page cannot run; give"):
        explore(gated)
