"""Graders of chapter 1: each runs the reader's answer on inputs that the chapter did not show."""

from __future__ import annotations

import ast
import io
import math
import tokenize
from collections.abc import Callable

import torch
from torch import Tensor

from ..grading import Wrong, grader

CLOSING = {"(": ")", "[": "]", "{": "}"}
MAX_PROMPT_TOKENS = 100


def _same(found: object, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return (
        isinstance(found, Tensor)
        and found.shape == expected.shape
        and torch.allclose(found.double(), expected.double(), atol=tolerance)
    )


def _check_shape(found: object, expected: Tensor) -> None:
    if not isinstance(found, Tensor):
        raise Wrong(f"Your function returned {type(found).__name__}; return a tensor.")
    if found.shape != expected.shape:
        raise Wrong(f"Your result has shape {tuple(found.shape)}; it should have {tuple(expected.shape)}.")


def attention_by_loops(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, reach: Callable[[int, int], range] | None = None
) -> Tensor:
    """Return the mixed values of causal attention, one head and one query at a time, in float64.

    Parameters
    ----------
    q, k, v : float tensor, shape (batch, pos, head, d_head)
        Queries, keys and values.
    scale : float, optional
        What a match is multiplied by; 1 / sqrt(d_head) if not given.
    reach : callable, optional
        From the query's position and the length to the range of positions it may look at; up to its own if not given.
    """
    q, k, v = q.double(), k.double(), v.double()
    batch, length, heads, width = q.shape
    scale = 1 / math.sqrt(width) if scale is None else scale
    z = torch.zeros_like(v)
    for b in range(batch):
        for h in range(heads):
            for p in range(length):
                positions = list(reach(p, length) if reach else range(p + 1))
                matches = [math.exp(float(q[b, p, h] @ k[b, s, h]) * scale) for s in positions]
                for s, match in zip(positions, matches, strict=True):
                    z[b, p, h] += match / sum(matches) * v[b, s, h]
    return z


@grader("01.1")
def grade_attention(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Compare the answer with loops over every batch, head and query."""
    q, k, v = torch.randn(3, 2, 5, 3, 4)
    expected = attention_by_loops(q, k, v)
    found = answer(q, k, v)
    _check_shape(found, expected)
    if _same(found, expected):
        return "It agrees with loops over every head and query."
    if _same(found, attention_by_loops(q, k, v, reach=lambda p, length: range(length))):
        raise Wrong("Your attention looks ahead: a position must not see the ones after it.")
    if _same(found, attention_by_loops(q, k, v, scale=1.0)):
        raise Wrong("The matches are not scaled: look at what the equation divides q · k by.")
    if not torch.allclose(found[:, 0].double(), v[:, 0].double(), atol=1e-5):
        raise Wrong("Position 0 can only look at itself, so its z is its own v. Yours is not.")
    raise Wrong("The shape is right and the numbers are not. Does the softmax run over the keys? What is it scaled by?")


@grader("01.2")
def grade_previous_token_score(answer: Callable[[Tensor], Tensor]) -> str:
    """Try patterns with known scores, then a random one."""
    length, heads = 6, 3
    one_back = torch.diag(torch.ones(length - 1), -1)
    one_back[0, 0] = 1
    own = torch.eye(length)
    pattern = torch.stack([one_back, own, 0.5 * (one_back + own)]).expand(2, heads, length, length)
    expected = torch.tensor([1.0, 0.0, 0.5])
    found = answer(pattern)
    _check_shape(found, expected)
    if not _same(found, expected):
        listed = [round(value, 3) for value in found.tolist()]
        raise Wrong(
            "Three heads of which the first looks one back always, the second never and the third half of the time "
            f"should score 1, 0 and 0.5. Yours score {listed}."
        )
    random_pattern = torch.rand(4, 2, 7, 7).tril()
    random_pattern /= random_pattern.sum(-1, keepdim=True)
    by_loops = torch.stack(
        [torch.stack([random_pattern[b, h, p, p - 1] for b in range(4) for p in range(1, 7)]).mean() for h in range(2)]
    )
    if not _same(answer(random_pattern), by_loops):
        raise Wrong(
            "It is right on simple patterns and wrong on a random batch: take the mean over batch and positions."
        )
    return "It finds a perfect previous-token head, and none where there is none."


@grader("01.3")
def grade_mended_loss(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Compare the answer with the loss written out token by token."""
    logits, tokens = 3 * torch.randn(2, 5, 7), torch.randint(7, (2, 5))

    def by_loops(shift: int) -> float:
        losses = [
            -math.log(math.exp(float(logits[b, p, tokens[b, p + shift]])) / float(logits[b, p].exp().sum()))
            for b in range(2)
            for p in range(5 - shift)
        ]
        return sum(losses) / len(losses)

    found = float(answer(logits, tokens))
    if math.isclose(found, by_loops(1), rel_tol=1e-4):
        return "Each prediction is compared with the token that comes after it, once through the softmax."
    if math.isclose(found, by_loops(0), rel_tol=1e-4):
        raise Wrong("One mistake is mended. Which token do the logits at a position predict?")
    if found < math.log(7) and not math.isclose(found, by_loops(1) / math.log(2), rel_tol=1e-4):
        raise Wrong("The loss of very wrong logits should be large, yours is not. What does F.cross_entropy expect?")
    if math.isclose(found, by_loops(1) / math.log(2), rel_tol=1e-4):
        raise Wrong("That is the loss in bits; the exercise asks for nats.")
    raise Wrong(f"For one batch the loss should be {by_loops(1):.4f} nats; yours is {found:.4f}.")


@grader("01.4")
def grade_cost_of_each_head(answer: Callable) -> str:
    """Compare the answer with copies of the model in which the weights that a head writes with are zero."""
    from ..metrics import next_token_loss
    from ..model import Transformer, TransformerConfig

    cfg = TransformerConfig(d_vocab=11, n_ctx=8, n_layers=3, d_model=12, n_heads=2, d_head=6, d_mlp=16)
    model = Transformer(cfg, seed=1)
    tokens = torch.randint(11, (6, 9))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = torch.zeros(cfg.n_layers, cfg.n_heads)
    with torch.no_grad():
        whole = next_token_loss(model(tokens[:, :-1]), tokens)
        for layer in range(cfg.n_layers):
            for head in range(cfg.n_heads):
                silenced = Transformer(cfg, seed=1)
                silenced.blocks[layer].attn.W_O[head] = 0
                expected[layer, head] = next_token_loss(silenced(tokens[:, :-1]), tokens) - whole
    found = answer(model, tokens)
    _check_shape(found, expected)
    with torch.no_grad():
        if not torch.equal(next_token_loss(model(tokens[:, :-1]), tokens), whole):
            raise Wrong(
                "Your function leaves a hook on the model, so the next run differs. Remove it, or use run_with_hooks."
            )
    if any(not torch.equal(before[name], weight) for name, weight in model.state_dict().items()):
        raise Wrong("Your function changed the weights of the model. Replace the activation instead.")
    if _same(found, -expected):
        raise Wrong("The sign is turned round: a head that helps should have a positive cost.")
    if _same(found, expected + whole):
        raise Wrong("Those are the losses without each head. Subtract the loss of the whole model.")
    if not _same(found, expected):
        raise Wrong("Those are not the costs of single heads. Is exactly one head of one layer zero in each run?")
    return "It agrees with models whose heads were silenced by their output weights."


def closers_of(text: str) -> str:
    """Return the closing brackets that `text` still needs, innermost first.

    Raises
    ------
    Wrong
        If a bracket in the text closes one that is not open.
    """
    pending: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type != tokenize.OP:
                continue
            if token.string in CLOSING:
                pending.append(CLOSING[token.string])
            elif token.string in CLOSING.values() and (not pending or pending.pop() != token.string):
                raise Wrong(f"The bracket {token.string!r} in your text closes nothing.")
    except (tokenize.TokenError, IndentationError):
        # The text ends inside a bracket: that is what the exercise asks for.
        pass
    return "".join(reversed(pending))


@grader("01.5")
def grade_breaking_prompt(answer: str) -> str:
    """Check that the text can only be closed one way, and that the model would rather close it another."""
    from ..checkpoints import load_model
    from ..tasks.tokenizer import load_tokenizer

    if not isinstance(answer, str):
        raise Wrong(f"Your answer is a {type(answer).__name__}; give the text as a string.")
    tokenizer = load_tokenizer()
    ids = [tokenizer.start_id, *tokenizer.encode(answer)]
    if len(ids) > MAX_PROMPT_TOKENS:
        raise Wrong(f"Your text has {len(ids)} tokens; use at most {MAX_PROMPT_TOKENS}.")
    closers = closers_of(answer)
    if not closers:
        raise Wrong("No bracket is open at the end of your text, so none can be closed.")
    try:
        ast.parse(answer + closers)
    except SyntaxError as error:
        raise Wrong(f"With {closers!r} added, your text is not valid Python: {error.msg}.") from error
    with torch.no_grad():
        logits = load_model("code-dense")(torch.tensor([ids]))[0, -1]
    scores = {bracket: logits[tokenizer.id(bracket)].item() for bracket in CLOSING.values()}
    favourite = max(scores, key=scores.get)
    if favourite == closers[0]:
        raise Wrong(
            f"The model prefers {favourite!r} of the three closing brackets here, and that is right. Try another text."
        )
    return f"The right bracket is {closers[0]!r}; the model prefers {favourite!r}."
