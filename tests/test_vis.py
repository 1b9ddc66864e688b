"""CircuitsVis figures: small, the same in every run, and without a word to any other host."""

import json
import re
import sys

import pytest
import torch
from sparse_circuits.vis import attention_heads, colored_tokens, watched

TOKENS = ["def", " f", "(<", "</script>"]


@pytest.fixture
def attention() -> torch.Tensor:
    scores = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf).softmax(-1)


def properties(html: str) -> dict:
    return json.loads(re.search(r"const properties = (.*);\n", html)[1])


def test_the_output_is_small_and_the_same_each_time(attention: torch.Tensor) -> None:
    html = attention_heads(attention, TOKENS)._repr_html_()
    assert html == attention_heads(attention + 1e-7, tuple(TOKENS))._repr_html_()
    assert html != attention_heads(attention.flip(0), TOKENS)._repr_html_()
    assert len(html) < 2000


def test_the_data_are_the_attention_rounded_to_three_decimals(attention: torch.Tensor) -> None:
    shown = properties(attention_heads(attention, TOKENS)._repr_html_())
    torch.testing.assert_close(torch.tensor(shown["attention"]), attention, rtol=0, atol=5.01e-4)
    assert shown["tokens"] == TOKENS


def test_no_token_ends_the_script(attention: torch.Tensor) -> None:
    for figure in (attention_heads(attention, TOKENS), colored_tokens(TOKENS, torch.arange(4.0))):
        assert figure.html(with_script=False).count("</script") == 1
        assert figure.html(with_script=True).count("</script") == 1


def test_nothing_reaches_for_the_network(attention: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    stored = attention_heads(attention, TOKENS).html(with_script=False)
    assert "http" not in stored
    assert "unpkg" not in attention_heads(attention, TOKENS).html(with_script=True)


def test_the_script_is_in_the_output_only_where_somebody_watches(
    attention: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert not watched()
    figure = attention_heads(attention, TOKENS)
    assert len(figure._repr_html_()) < 2000
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    assert len(figure._repr_html_()) > 1_000_000
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert watched()


@pytest.mark.parametrize(
    ("attention", "tokens", "message"),
    [
        (torch.zeros(3, 3), ["a", "b", "c"], r"shape \(3, 3\) for 3 tokens; give \(head, query, key\)"),
        (torch.zeros(1, 2, 3, 3), ["a", "b", "c"], "of one prompt"),
        (torch.zeros(2, 3, 3), ["a", "b"], "for 2 tokens"),
        (torch.full((1, 1, 1), torch.nan), ["a"], "not finite"),
    ],
)
def test_wrong_attention_is_refused(attention: torch.Tensor, tokens: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_heads(attention, tokens)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\) for 1 tokens"):
        colored_tokens(["a"], torch.zeros(2))


def test_whole_numbers_are_written_short():
    attention = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])
    assert '"attention":[[[1,0],[0.25,0.75]]]' in attention_heads(attention, ["a", "b"])._repr_html_()
