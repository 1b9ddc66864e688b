"""The task loss against cross-entropy by hand, and answers at half the cost against the whole forward pass."""

import math
import re

import pytest
import torch
from sparse_circuits.ablation import ablated, hooks_are_alike_everywhere
from sparse_circuits.ablation_values import location_sizes, mean_values, norm_scales, resample_values, zero_values
from sparse_circuits.metrics import two_way_task_loss
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.planted import planted_bracket_circuit, planted_quote_circuit
from sparse_circuits.tasks import contrast_pairs, load_tokenizer
from sparse_circuits.two_way import TwoWayPrompts, task_prompts, two_way_loss

OPTIONS = [{}, {"attention_sink": True}, {"bigram_table": True}, {"activation_density": 0.25}]
OPTIONS.append({name: value for options in OPTIONS for name, value in options.items()})


def small_model(**options) -> Transformer:
    """A model in float64 whose every parameter is random."""
    model = Transformer(TransformerConfig(20, 24, 3, 16, 2, 4, 32, **options)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.4, generator=generator)
    return model


def random_prompts(n: int = 50) -> TwoWayPrompts:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(20, (n, 24), generator=generator)
    position = torch.randint(20, (n,), generator=generator)
    return TwoWayPrompts(tokens, position, torch.arange(n) % 20, (torch.arange(n) + 7) % 20)


def some_masks(model: Transformer, share: float = 0.3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {place: torch.rand(n, generator=generator) < share for place, n in location_sizes(model).items()}


def contexts(model: Transformer, prompts: TwoWayPrompts):
    """Ways to change a model, and whether each does the same at every position of every prompt."""
    tokens, masks = prompts.tokens, some_masks(model)
    means = mean_values(model, tokens.flip(0), "others")
    at_each = mean_values(model, tokens.flip(0), "others", by_position=True)
    halves = {place: mask.double() / 2 for place, mask in masks.items()}
    edges = {f"blocks.2.attn.{kind}": torch.rand(shape) < 0.5 for kind, shape in (("W_Q", (16, 8)), ("W_O", (8, 16)))}
    yield "zeros", ablated(model, masks, values=zero_values()), True
    yield "means", ablated(model, masks, values=means), True
    yield "half means", ablated(model, halves, values=means), True
    yield "means by position", ablated(model, masks, values=at_each), False
    yield "resampled", ablated(model, masks, values=resample_values(model, tokens.flip(0), "others")), False
    yield "some positions", ablated(model, masks, values=means, positions=[3, 5]), False
    yield "edges", ablated(model, edges=edges, values=means), False
    yield "frozen norms", ablated(model, masks, values=means, norm_scales=norm_scales(model, tokens)), False
    ramp = torch.arange(24).double()[:, None]
    own = [("blocks.2.hook_attn_out", lambda activation, hook: activation * ramp)]
    yield "a hook of the reader", model.hooks(fwd_hooks=own), False


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_equal_those_of_the_whole_forward_pass_whatever_hooks_are_there(options, monkeypatch):
    monkeypatch.setattr("sparse_circuits.two_way.WORK_OF_A_RUN", 1)
    model, prompts = small_model(**options), random_prompts()
    rows = torch.arange(len(prompts))
    assert len(prompts.by_length(model)) == 4

    def check(alike: bool) -> torch.Tensor:
        assert hooks_are_alike_everywhere(model) == alike
        answers, whole = prompts.answer_logits(model), model(prompts.tokens)[rows, prompts.position]
        torch.testing.assert_close(answers, whole, atol=1e-11, rtol=1e-11)
        return whole

    bare = check(True)
    for name, context, alike in contexts(model, prompts):
        with context:
            changed = check(alike)
        assert (changed - bare).abs().max() > 1e-3, name
    check(True)
    assert all(handle.is_permanent for point in model.hook_dict.values() for handle in point.fwd_hooks)


def test_only_what_the_answers_need_is_computed():
    model, prompts = small_model(), random_prompts(8)
    shapes = {}

    def note(activation, hook):
        shapes[hook.name] = tuple(activation.shape)

    note.alike_everywhere = True
    names = ["blocks.1.hook_resid_post", "blocks.2.attn.hook_v", "blocks.2.attn.hook_pattern", "blocks.2.mlp.hook_post"]
    with model.hooks(fwd_hooks=[(name, note) for name in names]):
        prompts.answer_logits(model)
    length = int(prompts.position.max()) + 1
    assert length < prompts.tokens.shape[1]
    assert [shapes[name] for name in names] == [(8, length, 16), (8, length, 2, 4), (8, 2, 1, length), (8, 1, 32)]


def test_gradients_reach_masks_as_in_the_whole_forward_pass(monkeypatch):
    monkeypatch.setattr("sparse_circuits.two_way.WORK_OF_A_RUN", 1)
    model, prompts = small_model(attention_sink=True, activation_density=0.5), random_prompts()
    means = mean_values(model, prompts.tokens, "themselves")
    masks = {place: torch.full((n,), 0.4).double().requires_grad_() for place, n in location_sizes(model).items()}
    rows = torch.arange(len(prompts))

    def gradients(answers) -> tuple[torch.Tensor, ...]:
        with ablated(model, masks, values=means):
            return torch.autograd.grad(prompts.losses(answers()).mean(), list(masks.values()))

    short = gradients(lambda: prompts.answer_logits(model))
    whole = gradients(lambda: model(prompts.tokens)[rows, prompts.position])
    for a, b in zip(short, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_the_loss_equals_the_two_way_task_loss_and_a_sum_term_by_term():
    batch = contrast_pairs("single_double_quote", 20, seed=4)
    cfg = TransformerConfig(load_tokenizer().d_vocab, batch.positive.shape[1], 2, 16, 2, 8, 32)
    model, prompts = Transformer(cfg, seed=5), TwoWayPrompts.of(batch)
    with torch.no_grad():
        model.W_U.mul_(10)
        sides = [model(half) for half in (batch.positive, batch.negative)]
        logits = prompts.answer_logits(model).double()
    theirs = two_way_task_loss(*sides, batch.answer_positive, batch.answer_negative, batch.position)
    terms = []
    for row, right, wrong in zip(logits.tolist(), prompts.right.tolist(), prompts.wrong.tolist(), strict=True):
        terms.append(-math.log(math.exp(row[right]) / (math.exp(row[right]) + math.exp(row[wrong]))))
    assert two_way_loss(model, prompts) == pytest.approx(theirs.item(), abs=1e-5)
    assert two_way_loss(model, prompts) == pytest.approx(math.fsum(terms) / len(terms), abs=1e-5)
    assert max(terms) - min(terms) > 0.1


def test_both_halves_of_a_pair_stand_side_by_side():
    batch, prompts = contrast_pairs("for_while", 6, seed=1), task_prompts("for_while", 6, seed=1)
    assert len(prompts) == 12
    for i in range(6):
        assert torch.equal(prompts.tokens[2 * i], batch.positive[i])
        assert torch.equal(prompts.tokens[2 * i + 1], batch.negative[i])
        assert prompts.right[2 * i] == prompts.wrong[2 * i + 1] == batch.answer_positive[i]
        assert prompts.wrong[2 * i] == prompts.right[2 * i + 1] == batch.answer_negative[i]
    part = prompts[torch.tensor([3, 1])]
    assert torch.equal(part.tokens, prompts.tokens[[3, 1]])
    assert torch.equal(part.right, prompts.right[[3, 1]])


@pytest.mark.parametrize("make", [planted_quote_circuit, planted_bracket_circuit])
def test_planted_prompts_are_read_after_their_last_token(make):
    planted = make()
    sample = planted.sample(60, seed=1)
    prompts = TwoWayPrompts.of(sample)
    torch.testing.assert_close(
        prompts.answer_logits(planted.model).detach(), planted.logits(sample), atol=1e-5, rtol=1e-5
    )
    assert (prompts.margins(planted.logits(sample)) > 3).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": torch.zeros(0, 5, dtype=torch.long)}, "tokens have shape (0, 5); give at least one prompt"),
        ({"tokens": torch.zeros(5, dtype=torch.long)}, "tokens have shape (5,); give at least one prompt"),
        ({"right": torch.zeros(2, dtype=torch.long)}, "right has shape (2,), there are 3 prompts; give one per prompt"),
        ({"position": torch.tensor([0, 1, 5])}, "position goes from 0 to 5, the prompts have 5 tokens; count"),
        ({"position": torch.tensor([-1, 1, 2])}, "position goes from -1 to 2"),
    ],
)
def test_prompts_that_do_not_fit_together_are_refused(changes, message):
    good = {"tokens": torch.zeros(3, 5, dtype=torch.long)} | {
        name: torch.zeros(3, dtype=torch.long) for name in ("position", "right", "wrong")
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        TwoWayPrompts(**good | changes)
