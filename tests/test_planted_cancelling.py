"""The two heads that cancel do so exactly where a prompt has one string, and nowhere else do they go unnoticed."""

import pytest
import torch
from sparse_circuits.ablation import ablated
from sparse_circuits.planted import planted_cancelling_heads, planted_quote_circuit

QUOTES, MODEL = planted_quote_circuit(), planted_cancelling_heads()
OPENERS = [QUOTES.vocabulary.index(token) for token in ('("', "('")]
ONE_STRING = [p for p in QUOTES.every_prompt() if sum(p.tokens.count(token) for token in OPENERS) == 1]


def written(prompt, head):
    """What one head writes to the channel that closes the string, at the last token."""
    _, cache = MODEL.run_with_cache(torch.tensor([prompt.tokens]))
    return (cache["blocks.1.attn.hook_z"][0, -1, head] @ MODEL.blocks[1].attn.W_O[head])[11].item()


@pytest.mark.parametrize("prompt", ONE_STRING[::7])
def test_what_the_two_heads_write_is_large_and_opposite(prompt):
    first, last, own = (written(prompt, head) for head in (2, 3, 0))
    assert first == pytest.approx(-last, abs=1e-6)
    assert abs(first) > 1.5 * abs(own) > 0.5


def test_with_one_string_the_model_answers_as_the_quote_model_does():
    torch.testing.assert_close(QUOTES.logits(ONE_STRING, MODEL), QUOTES.logits(ONE_STRING), atol=1e-4, rtol=0)
    assert QUOTES.accuracy(MODEL, ONE_STRING) == 1


def test_without_one_of_the_two_it_fails_and_without_both_it_does_not():
    for nodes, accuracy in ((["a1.h2"], 0), (["a1.h2", "a1.h3"], 1)):
        with ablated(MODEL, nodes):
            assert QUOTES.accuracy(MODEL, ONE_STRING) == accuracy


def test_it_fails_only_where_two_kinds_of_quotes_compete():
    wrong = [
        p
        for p, a in zip(QUOTES.every_prompt(), QUOTES.answers(QUOTES.every_prompt(), MODEL), strict=True)
        if a != p.right
    ]
    assert wrong
    assert {p.group for p in wrong} == {"double after single", "single after double"}
