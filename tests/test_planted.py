"""The planted circuits against Python's own parser, all their prompts, and logits computed by hand in float64."""

import ast
import itertools
import math
import re
from collections import Counter

import pytest
import torch
from sparse_circuits.circuit import Circuit
from sparse_circuits.editing import cut_edges, keep_edges
from sparse_circuits.graph import weight_graph
from sparse_circuits.model import Transformer
from sparse_circuits.planted import Prompt, planted_bracket_circuit, planted_quote_circuit

PLANTED = {"quotes": planted_quote_circuit(), "brackets": planted_bracket_circuit()}
POSITION_EDGE = "blocks.1.ln1.hook_normalized[7] -> blocks.1.attn.hook_k[0]"
EPS = 1e-5


def parses(program: str) -> bool:
    try:
        ast.parse(program)
    except SyntaxError:
        return False
    return True


@pytest.fixture(params=PLANTED)
def planted(request):
    return PLANTED[request.param]


def test_right_answers_make_valid_python_and_wrong_ones_do_not(planted):
    for prompt in planted.sample(1500, seed=5) + planted.every_prompt(16):
        text = planted.decode(prompt.tokens)
        assert not parses(text)
        assert parses(text + planted.vocabulary[prompt.right])
        assert not parses(text + planted.vocabulary[prompt.wrong])


@pytest.mark.parametrize(("name", "max_tokens", "prompts"), [("quotes", 16, 2056), ("brackets", 32, 65_534)])
def test_every_valid_prompt_is_answered_right_with_room_to_spare(name, max_tokens, prompts):
    planted = PLANTED[name]
    every = planted.every_prompt(max_tokens)
    assert len({prompt.tokens for prompt in every}) == len(every) == prompts
    logits = planted.logits(every)
    right = torch.tensor([prompt.right for prompt in every])[:, None]
    best_other = logits.scatter(1, right, -torch.inf).max(-1).values
    assert (logits.gather(1, right)[:, 0] - best_other).min() > 3
    assert planted.accuracy(prompts=planted.sample(4000, seed=1)) == 1.0


def test_the_lists_of_prompts_are_complete():
    """Every string of tokens that a regular expression accepts is listed, and nothing else; longer ones are counted."""
    quotes, brackets = PLANTED["quotes"], PLANTED["brackets"]
    call = r"(print|log)\((%s)"
    double, single = '"hello( world)*', "'hello( world)*"
    closed, opened = call % f"{double}\"|{single}'" + r"\)\n", call % f"{double}|{single}"
    tokens = [quotes.vocabulary.index(t) for t in ("print", "log", '("', "('", '")', "')", "\n", "hello", " world")]
    accepted = {
        sequence
        for length in range(3, 6)
        for sequence in itertools.product(tokens, repeat=length)
        if re.fullmatch(f"({closed})*{opened}", quotes.decode(sequence))
    }
    assert accepted == {prompt.tokens for prompt in quotes.every_prompt(5)}
    by_calls = Counter(1 + prompt.tokens.count(6) for prompt in quotes.every_prompt())
    assert by_calls == {n: 4**n * math.comb(16 - (5 * n - 2) + n, n) for n in (1, 2, 3)}

    value = r"(1|\[1(, 1)*\])"
    unfinished = re.compile(rf"x = \[({value}(, {value})*|({value}, )*\[1(, 1)*)")
    symbols = [brackets.vocabulary.index(t) for t in ("[", "]", ", ", "1")]
    accepted = {
        (0, *sequence)
        for length in range(2, 8)
        for sequence in itertools.product(symbols, repeat=length)
        if unfinished.fullmatch(brackets.decode((0, *sequence)))
    }
    assert accepted == {prompt.tokens for prompt in brackets.every_prompt(8)}


def test_tokens_counted_as_one_have_the_same_embedding():
    words = PLANTED["quotes"].model.W_E[7:12]
    numbers = PLANTED["brackets"].model.W_E[5:8]
    assert torch.equal(words, words[:1].expand_as(words))
    assert torch.equal(numbers, numbers[:1].expand_as(numbers))


def test_the_circuits_have_their_published_size():
    quotes, brackets = PLANTED["quotes"], PLANTED["brackets"]
    assert (quotes.circuit.count_nodes(), quotes.circuit.count_edges()) == (13, 10)
    assert (brackets.circuit.count_nodes(), brackets.circuit.count_edges()) == (6, 4)
    for planted in PLANTED.values():
        assert set(planted.carries) == set(Circuit.full(weight_graph(planted.model)).edges())
        assert len(planted.channels) == planted.model.cfg.d_model
        assert len(planted.vocabulary) == planted.model.cfg.d_vocab


def test_the_circuit_alone_solves_the_task_and_every_edge_of_it_is_needed(planted):
    assert planted.accuracy(keep_edges(planted.model, planted.circuit)) == 1.0
    for edge in planted.circuit.edges():
        assert planted.accuracy(cut_edges(planted.model, [edge])) < 1.0
    for edge in (~planted.circuit).edges():
        assert planted.accuracy(cut_edges(planted.model, [edge])) == 1.0
    assert planted.accuracy(Transformer(planted.model.cfg, seed=0)) < 1.0


def test_cutting_the_position_edge_breaks_exactly_the_prompts_with_an_earlier_other_string():
    quotes = PLANTED["quotes"]
    every = quotes.every_prompt()
    answers = quotes.answers(every, cut_edges(quotes.model, [POSITION_EDGE]))
    broken = {prompt for prompt, answer in zip(every, answers, strict=True) if answer != prompt.right}
    assert broken == {prompt for prompt in every if {2, 3} <= set(prompt.tokens)}
    assert Counter(prompt.group for prompt in broken) == {"double after single": 660, "single after double": 660}


def test_the_other_edges_begin_lines_end_lines_and_open_strings():
    quotes = PLANTED["quotes"]
    name = quotes.vocabulary.index
    newline, start = name("\n"), {name("print"), name("log")}

    def follow(prompt: Prompt, tokens: tuple[int, ...], right: int) -> Prompt:
        return Prompt(prompt.tokens + tokens, right, prompt.wrong, prompt.group)

    every = [prompt for prompt in quotes.every_prompt() if len(prompt.tokens) <= 14]
    ends = [follow(prompt, (prompt.right,), newline) for prompt in every]
    called = [[token for token in prompt.tokens if token in start][-1] for prompt in every]
    lines = [follow(p, (p.right, newline), last) for p, last in zip(every, called, strict=True)]
    assert quotes.accuracy(prompts=ends) == quotes.accuracy(prompts=lines) == 1.0
    for edge in (~quotes.circuit).edges():
        assert quotes.accuracy(cut_edges(quotes.model, [edge]), prompts=ends + lines) < 1.0
    opening = [Prompt((token,), name('("'), name("('"), "opening") for token in start]
    assert quotes.accuracy(prompts=opening) == 1.0


def test_quote_logits_equal_a_calculation_by_hand():
    r"""`print("hello")\nlog('bye`: eight tokens, the logits of the two closing tokens and of ` and`."""
    quotes = PLANTED["quotes"]
    tokens = quotes.encode('print("hello")\nlog(\'bye')
    assert [quotes.vocabulary[token] for token in tokens] == ["print", '("', "hello", '")', "\n", "log", "('", "bye"]

    def rms(square: float) -> float:
        return math.sqrt(square / 14 + EPS)

    stored = quotes.model.W_pos[:, 7:9].tolist()
    kind_of, name_of = {1: 1, 6: -1}, {0: 1, 5: -1}
    scores, values, name_scores, name_values = [], [], [], []
    for p, (position, balance) in enumerate(stored[:8]):
        assert (position, balance) == pytest.approx((p / 15, math.sqrt(1 - (p / 15) ** 2)), abs=1e-7)
        kind, name, place = kind_of.get(p, 0), name_of.get(p, 0), position**2 + balance**2
        here, signed = 0.5 / rms(1 + place) * abs(kind), 0.5 / rms(1 + place) * kind
        norm = rms(1 + place + abs(name) + here**2 + signed**2)
        scores.append(4 * (2 * here + 1.25 * position) / norm)
        values.append(0.5 * signed / norm)
        name_scores.append(4 * (2 * abs(name) + 1.25 * position) / norm)
        name_values.append(0.5 * name / norm)

    def attended(scores: list[float], values: list[float]) -> float:
        weights = [math.exp(score) for score in scores]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    close, call = attended(scores, values), attended(name_scores, name_values)
    final = rms(1 + sum(x * x for x in stored[7]) + close**2 + call**2)
    expected = {"')": -8 * close / final, '")': 8 * close / final, " and": 10.0, "print": 3 + 2 * call / final}
    with torch.no_grad():
        logits = quotes.model.double()(torch.tensor([tokens]))[0, -1]
    quotes.model.float()
    for token, value in expected.items():
        assert logits[quotes.vocabulary.index(token)].item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("text", "depth"), [("x = [[1, 2], [3", 2), ("x = [[1, 2], 3", 1)])
def test_bracket_logits_equal_a_calculation_by_hand(text, depth):
    brackets = PLANTED["brackets"]
    tokens = brackets.encode(text)
    unit = math.sqrt(1 + EPS)
    average = (depth - 1.5) / unit / len(tokens)
    norm = math.sqrt((4 + average**2) / 4 + EPS)
    nested = max(0.0, 64 * average / norm)
    nested_read = nested / math.sqrt((4 + average**2 + nested**2) / 4 + EPS)
    with torch.no_grad():
        logits = brackets.model.double()(torch.tensor([tokens]))[0, -1]
    brackets.model.float()
    assert logits[brackets.vocabulary.index("]]")].item() == pytest.approx(8 * nested_read, abs=1e-5)
    assert logits[brackets.vocabulary.index("]")].item() == 4.0


def test_samples_repeat_with_their_seed_and_reach_every_length(planted):
    assert planted.sample(50, seed=3) == planted.sample(50, seed=3) != planted.sample(50, seed=4)
    lengths = {len(prompt.tokens) for prompt in planted.sample(4000, seed=0)}
    assert min(lengths) == 3
    assert max(lengths) == planted.model.cfg.n_ctx
    assert len({prompt.group for prompt in planted.sample(200, seed=0)}) == len(
        {p.group for p in planted.every_prompt()}
    )


def test_text_and_tokens_undo_each_other(planted):
    for prompt in planted.sample(300, seed=9):
        assert tuple(planted.encode(planted.decode(prompt.tokens))) == prompt.tokens


def test_a_text_is_read_as_the_prompt_that_it_is(planted):
    prompts = planted.sample(300, seed=2) + planted.every_prompt(12)
    assert [planted.prompt(planted.decode(prompt.tokens)) for prompt in prompts] == prompts


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("quotes", 'print("', "end inside the last string"),
        ("quotes", 'print("hello")', "end inside the last string"),
        ("quotes", "print(\"hello')\nlog('bye", "one per line"),
        ("quotes", 'print("hello world' + " world" * 13, "17 tokens; the model reads 16"),
        ("brackets", "x = [1, ", "end after an item"),
        ("brackets", "x = [[1]]", "end after an item"),
        ("brackets", "x = [1]", "end after an item"),
        ("brackets", "x = [[[1", "end after an item"),
        ("brackets", "x = [1" + ", 1" * 15, "33 tokens; the model reads 32"),
    ],
)
def test_texts_that_are_no_prompts_are_refused_with_the_rule(name, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PLANTED[name].prompt(text)


def test_wrong_requests_are_refused_with_the_remedy(planted):
    with pytest.raises(ValueError, match="No token begins 'goodbye'"):
        planted.encode("goodbye")
    with pytest.raises(ValueError, match="ask for zero prompts or more"):
        planted.sample(-1, seed=0)
    with pytest.raises(ValueError, match="give at least one"):
        planted.accuracy(prompts=[])
    with pytest.raises(ValueError, match="ask for fewer"):
        planted.every_prompt(planted.model.cfg.n_ctx + 1)
    other = next(p for p in PLANTED.values() if p is not planted)
    with pytest.raises(ValueError, match=f"this task has {len(planted.vocabulary)}"):
        planted.accuracy(other.model)
