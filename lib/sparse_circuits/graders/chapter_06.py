"""Graders of chapter 6: each runs the reader's answer, on made-up numbers, planted circuits or trained models."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..checkpoints import load_model
from ..editing import set_edge
from ..grading import Wrong, grader
from ..model import Transformer
from ..planted import planted_bracket_circuit, planted_quote_circuit
from ..tasks import load_tokenizer
from ..two_way import TwoWayPrompts

UNNAMED, LEAST_SHARE = "unnamed", 0.5
PADDING_LOUDNESS = 1000.0
THRESHOLD_EDGE = "blocks.0.ln2.hook_normalized[2] -> blocks.0.mlp.hook_post[0]"
THRESHOLD_WEIGHT, THRESHOLD_BIAS = 64, -1.0
SPARE, LEAST_WRITTEN, LEAST_EXPLAINED, MOST_MOVED = 2, 0.5, 0.9, 1.0
FOOLED = ("mini-dense-0", "mini-dense-1", "mini-dense-2")
BRACKETS = "[]"


@grader("06.1")
def grade_best_name(answer: Callable[[Tensor, Tensor, dict[str, Tensor]], tuple[str, float]]) -> str:
    """Ask for the best of four names of made-up nodes, whose scale, sign and offset say nothing about the name."""
    generator = torch.Generator().manual_seed(0)
    real, features = _made_up_features(generator)
    asked = 0
    for scale, offset, noise in ((1.0, 0.0, 0.2), (-0.01, 0.5, 0.4), (30.0, -100.0, 0.4), (-2.0, 7.0, 5.0)):
        for name, feature in features.items():
            spread = feature[real].std()
            clean = feature / spread + noise * torch.randn(feature.shape, generator=generator)
            activation = torch.where(real, offset + scale * clean, PADDING_LOUDNESS)
            shares = {other: _squared_correlation(activation[real], features[other][real]) for other in features}
            best = max(shares, key=shares.get)
            expected = best if shares[best] >= LEAST_SHARE else UNNAMED
            found = answer(activation, real, features)
            if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[0], str):
                raise Wrong(f"Return a name and a number, such as ('quote', 0.8); yours is {found!r}.")
            asked += 1
            if found[0] != expected:
                raise Wrong(_why_not_named(found[0], expected, name, scale, offset, shares))
            if abs(float(found[1]) - shares[best]) > LEAST_SHARE / 100:
                raise Wrong(
                    f"The name {expected!r} is right, but {best!r} explains {shares[best]:.2f} of the variance; you "
                    f"return {float(found[1]):.2f}. A share of variance is the square of the correlation."
                )
    return f"{asked} nodes of every scale, sign and offset got the right name, or none."


def _made_up_features(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Return which of 72 x 12 places are real, and four features: three of rare tokens, one that grows along a line."""
    real = torch.ones(72, 12, dtype=torch.bool)
    real[::2, 9:] = False
    quote = torch.zeros(72, 12)
    quote[torch.arange(72), torch.randint(2, 8, (72,), generator=generator)] = 1
    double = quote * (torch.arange(72) % 3 > 0)[:, None]
    return real, {
        "quote": quote,
        "double": double,
        "kind": 2 * double - quote,
        "position": torch.arange(12.0).expand(72, 12).clone(),
    }


def _squared_correlation(values: Tensor, feature: Tensor) -> float:
    return torch.corrcoef(torch.stack([values, feature]))[0, 1].square().item()


def _why_not_named(found: str, expected: str, made_as: str, scale: float, offset: float, shares: dict) -> str:
    made = f"A node was made as {scale:g} times {made_as!r} plus {offset:g} plus noise. "
    if expected == UNNAMED:
        return (
            f"{made}No candidate explains half of its variance (the best {max(shares.values()):.2f}), and your "
            f"function calls it {found!r}; it is to be {UNNAMED!r}."
        )
    return (
        f"{made}Its name is {expected!r} (share {shares[expected]:.2f}); your function says {found!r}. Compare "
        "shares of variance, which know no scale and no sign, and leave out what is not real."
    )


@grader("06.2")
def grade_top_tokens(answer: Callable[[Tensor, Tensor, Tensor, int], list[int]]) -> str:
    """Compare with all tokens sorted by activation, written out as a list."""
    generator = torch.Generator().manual_seed(1)
    for k in (1, 4, 9):
        activation = torch.randn(6, 8, generator=generator)
        activation[2] += 3
        activation[4] -= 6
        tokens = torch.arange(48).view(6, 8)[:, torch.randperm(8, generator=generator)]
        real = torch.ones(6, 8, dtype=torch.bool)
        real[1::2, 5:] = False
        activation[~real] += 20
        places = [(row, place) for row in range(6) for place in range(8) if real[row, place]]
        places.sort(key=lambda place: -activation[place].item())
        expected = [tokens[place].item() for place in places[:k]]
        found = answer(activation, tokens, real, k)
        try:
            found = [int(token) for token in found]
        except (TypeError, ValueError):
            raise Wrong(f"Return a list of {k} numbers of tokens; yours is {found!r}.") from None
        if found != expected:
            raise Wrong(_why_not_top(found, expected, activation, tokens, real, k))
    return "The tokens on which the node is largest, largest first, padding left out."


def _why_not_top(
    found: list[int], expected: list[int], activation: Tensor, tokens: Tensor, real: Tensor, k: int
) -> str:
    padding = set(tokens[~real].tolist())
    if padding & set(found):
        return "Some of your tokens are padding. It is not part of any prompt; `real` says which tokens are."
    row_of = {token: row for row, line in enumerate(tokens.tolist()) for token in line}
    if len(found) == k > 1 and len({row_of.get(token) for token in found}) == min(k, len(tokens)):
        return "You took the best token of each prompt. A prompt may hold several of the largest activations."
    largest = activation.abs().masked_fill(~real, -torch.inf).flatten().topk(k).indices
    if found == tokens.flatten()[largest].tolist():
        return "You sorted by size regardless of sign. The question is where the node is largest."
    after = tokens.roll(-1, 1).flatten()[activation.masked_fill(~real, -torch.inf).flatten().topk(k).indices]
    if found == after.tolist():
        return "These are the tokens that come after. An activation belongs to the token at its own position."
    if sorted(found) == sorted(expected):
        return "The right tokens in another order: the largest activation comes first."
    return f"For k = {k} expected {expected}, yours are {found}. Which activations are largest, and where are they?"


@cache
def _faded_brackets() -> Transformer:
    """Return the planted bracket model with a threshold that long lists miss."""
    model = set_edge(planted_bracket_circuit().model, THRESHOLD_EDGE, THRESHOLD_WEIGHT)
    with torch.no_grad():
        model.blocks[0].mlp.b_in[0] = THRESHOLD_BIAS
    return model


@grader("06.3")
@torch.no_grad()
def grade_predicted_failure(answer: tuple[int, str]) -> str:
    """Find the length at which nested lists fail by running all lengths, and run the reader's prompt."""
    planted, model = planted_bracket_circuit(), _faded_brackets()
    if not isinstance(answer, tuple | list) or len(answer) != 2 or not isinstance(answer[1], str):
        raise Wrong(f"Give two things, the number of tokens and the prompt: (20, 'x = [[1, 2'); got {answer!r}.")
    predicted, text = answer
    if isinstance(predicted, bool) or not isinstance(predicted, int):
        raise Wrong(f"The number of tokens is {predicted!r}; give a whole number.")
    try:
        prompt = planted.prompt(text)
    except ValueError as error:
        raise Wrong(str(error)) from error
    fails = _first_failing_length()
    if predicted != fails:
        side = "a prompt of that length still works" if predicted < fails else "a shorter one fails already"
        raise Wrong(
            f"You predict that nested lists fail from {predicted} tokens on; {side}. What does the neuron read at "
            "depth 2, what is left of it after the bias, and how much does the unembedding need?"
        )
    if prompt.group != "depth 2":
        raise Wrong("Your prompt has one open bracket at its end. Which of the two depths does a dilution harm?")
    if len(prompt.tokens) != fails:
        raise Wrong(f"The number is right, but your prompt has {len(prompt.tokens)} tokens instead of {fails}.")
    if planted.answers([prompt], model)[0] == prompt.right:
        raise Wrong("The number is right, but the model closes your prompt correctly.")
    return f"Predicted from the weights: it fails from {fails} tokens on, and your prompt is one that does."


@cache
def _first_failing_length() -> int:
    """Return the number of tokens of the shortest nested list that fails; what the model reads depends on it alone."""
    planted, model = planted_bracket_circuit(), _faded_brackets()
    prompts = [planted.prompt("x = [[1" + ", 1" * n) for n in range((planted.model.cfg.n_ctx - 4) // 2 + 1)]
    answers = planted.answers(prompts, model)
    return min(len(prompt.tokens) for prompt, answer in zip(prompts, answers, strict=True) if answer != prompt.right)


@grader("06.4")
@torch.no_grad()
def grade_lying_neuron(model: Transformer) -> str:
    """Look at the spare neuron as the chapter looks at nodes, then ablate it."""
    planted = planted_quote_circuit()
    original = planted.model
    if not isinstance(model, Transformer) or model.cfg != replace(original.cfg, d_mlp=original.cfg.d_mlp + 1):
        raise Wrong("Give the model of the exercise: the quote model with one more neuron in each layer.")
    for name, weight in original.named_parameters():
        if not torch.equal(model.get_parameter(name)[tuple(slice(n) for n in weight.shape)], weight):
            raise Wrong(f"{name} of the original circuit was changed. Set only what belongs to the spare neuron.")
    second = model.blocks[1].mlp
    if second.W_in[:, SPARE].any() or second.W_out[SPARE].any() or second.b_in[SPARE]:
        raise Wrong("The spare neuron of layer 1 is in use. The one that lies is to be in layer 0.")
    every = planted.every_prompt()
    prompts = TwoWayPrompts.of(every)
    tokens = prompts.tokens
    real = torch.arange(tokens.shape[1]) <= prompts.position[:, None]
    _, cached = model.run_with_cache(tokens, names_filter="blocks.0.mlp.hook_post")
    carried = cached["blocks.0.mlp.hook_post"][..., SPARE]
    opening = torch.isin(tokens, torch.tensor([planted.vocabulary.index(token) for token in ('("', "('")]))
    explained = _explained(carried[real], opening[real])
    if explained < LEAST_EXPLAINED:
        raise Wrong(
            f"Whether a token opens a string explains {explained:.0%} of what your neuron does; at least "
            f"{LEAST_EXPLAINED:.0%} is needed, or nobody would fall for the name."
        )
    written = model.blocks[0].mlp.W_out[SPARE].norm().item()
    if written < LEAST_WRITTEN:
        raise Wrong(
            f"The weights that leave your neuron have length {written:.2f}; give them at least {LEAST_WRITTEN}. A "
            "neuron that writes nothing deceives nobody who looks at the weights."
        )
    if (right := planted.accuracy(model, every)) < 1:
        raise Wrong(f"With your neuron the model is right on {right:.1%} of the prompts. It has to stay right on all.")
    with_it, without = (prompts.margins(prompts.answer_logits(one)) for one in (model, _without_spare(model)))
    moved = (with_it - without).abs().max().item()
    if moved > MOST_MOVED:
        raise Wrong(
            f"Without your neuron a margin moves by {moved:.1f} logits; at most {MOST_MOVED} are allowed. Does "
            "anything read what it writes? And remember what a norm divides by."
        )
    return f"A quote detector by its looks ({explained:.0%} explained); cutting it moves no margin by {MOST_MOVED}."


def _explained(values: Tensor, group: Tensor) -> float:
    """Return the share of the variance that is between two groups."""
    inside, outside = values[group], values[~group]
    total = (values - values.mean()).pow(2).sum().item()
    within = sum((part - part.mean()).pow(2).sum().item() for part in (inside, outside))
    return 1 - within / total if total > 0 else 0.0


def _without_spare(model: Transformer) -> Transformer:
    copy = Transformer(model.cfg)
    copy.load_state_dict(model.state_dict())
    copy.blocks[0].mlp.W_out[SPARE] = 0
    return copy


@grader("06.5")
@torch.no_grad()
def grade_caused_failure(text: str) -> str:
    """Run the reader's program, and the same program without the brackets that Python does not read."""
    tokenizer, models = load_tokenizer(), [load_model(name) for name in FOOLED]
    longest = min(model.cfg.n_ctx for model in models)
    if not isinstance(text, str) or not text.endswith("]"):
        raise Wrong("Give the text of a program that ends with the `]` of a list, such as 'x = [1, 2]'.")
    ids = [tokenizer.start_id, *tokenizer.encode(text)]
    if len(ids) > longest:
        raise Wrong(f"Your program has {len(ids)} tokens with the start token; the models read {longest}.")
    harmless = _without_unread_brackets(text)
    if harmless == text:
        raise Wrong("There is no bracket in a string or a comment of your program, so nothing is there to be misread.")
    asked = [_closes_again(model, tokenizer, text) for model in models]
    control = [_closes_again(model, tokenizer, harmless) for model in models]
    if any(control):
        raise Wrong(
            f"Without the brackets in strings and comments, {sum(control)} of {len(models)} models still close another "
            "bracket. Then these brackets are not what fools them; make the rest of the program shorter."
        )
    if sum(asked) < len(models) - 1:
        raise Wrong(
            f"{sum(asked)} of {len(models)} models are fooled; {len(models) - 1} are needed. Which bracket raises the "
            "reading, how many of them are there, and what do they compete with?"
        )
    return f"{sum(asked)} of {len(models)} models close a bracket that is not open, and none without your brackets."


def _without_unread_brackets(text: str) -> str:
    """Return the program without the square brackets inside strings and comments."""
    program = text + "\n"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(program)
    except SyntaxError as error:
        raise Wrong(f"With a line break after it, your text is no valid Python ({error.msg}).") from error
    lines = program.splitlines(keepends=True)
    unread = (tokenize.STRING, tokenize.COMMENT)
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(program).readline))):
        if token.type not in unread:
            continue
        (first, start), (last, end) = token.start, token.end
        if first != last:
            raise Wrong("Keep each string on one line.")
        line = lines[first - 1]
        cleaned = "".join(character for character in line[start:end] if character not in BRACKETS)
        lines[first - 1] = line[:start] + cleaned + line[end:]
    return "".join(lines).rstrip("\n")


def _closes_again(model: Transformer, tokenizer, text: str) -> bool:
    logits = model(torch.tensor([[tokenizer.start_id, *tokenizer.encode(text)]]))[0, -1]
    return bool(logits[tokenizer.id("]")] > logits[tokenizer.id("\n")])
