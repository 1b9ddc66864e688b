"""Mini-Python against Python itself: `compile`, `exec`, `tokenize`, `ast` and `sys.settrace`."""

import ast
import hashlib
import os
import random
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from python_oracle import execute, line_starts, scan, scopes_at_lines
from sparse_circuits.tasks import MiniPython, mini_python_tokens
from sparse_circuits.tasks.draw import Draw
from sparse_circuits.tasks.mini.pieces import code
from sparse_circuits.tasks.tokenizer import load_tokenizer

CONSTRUCTS = (
    "Assign AugAssign For While If IfExp FunctionDef ClassDef Lambda With Return Break Continue Pass ListComp SetComp "
    "DictComp JoinedStr FormattedValue List Dict Set Tuple Subscript Attribute Call Compare BoolOp BinOp UnaryOp "
    "keyword Constant In Eq NotEq Lt Gt LtE GtE Add Sub Mult FloorDiv Mod And Or Not USub Is"
)


def programs(n: int, seed: int = 0):
    source = MiniPython(seed)
    return [source.program() for _ in range(n)]


SAMPLE = programs(80, seed=11)
MANY = programs(500)


@pytest.mark.parametrize("program", SAMPLE, ids=range(len(SAMPLE)))
def test_values_and_output_are_those_of_python(program):
    variables, output = execute(program.text, program.files)
    assert output == program.output
    for name, value in program.variables.items():
        assert variables[name] == value
        assert type(variables[name]) is type(value)
    assert {name for name, value in variables.items() if isinstance(value, int | str | list | dict | set)} == set(
        program.variables
    )


@pytest.mark.parametrize("program", SAMPLE, ids=range(len(SAMPLE)))
def test_quotes_brackets_and_indentation_are_those_of_the_tokenize_module(program):
    quote, depth, bracket, indent = scan(program.text)
    truth = program.truth
    assert len(truth) == len(program.text)
    assert truth.quote.tolist() == quote
    assert truth.depth.tolist() == depth
    assert truth.bracket.tolist() == bracket
    assert all(mine == theirs for mine, theirs in zip(truth.indent.tolist(), indent, strict=True) if theirs is not None)
    assert sum(theirs is not None for theirs in indent) > len(program.text) / 2


@pytest.mark.parametrize("program", SAMPLE, ids=range(len(SAMPLE)))
def test_bound_names_and_types_are_those_of_the_running_program(program):
    starts = line_starts(program.text)
    scopes = scopes_at_lines(program.text, program.files)
    assert scopes
    for line, names in scopes.items():
        if line == 1:
            assert names == {}
            continue
        bound = {
            name: kind for name, kind in program.truth.bound[starts[line - 1] - 1].items() if not name.startswith("__")
        }
        assert set(bound) == set(names), (line, program.text)
        for name, kind in bound.items():
            assert names[name].replace("NoneType", "None") in kind.split(" | "), (line, name, program.text)


def test_token_truth_is_the_state_after_the_last_character_of_each_token():
    tokenizer = load_tokenizer()
    for program in programs(20):
        truth = program.token_truth(tokenizer)
        ids = tokenizer.encode(program.text)
        assert len(truth) == len(ids)
        for i in (0, len(ids) // 2, len(ids) - 1):
            end = len(tokenizer.decode(ids[: i + 1]))
            assert truth.depth[i] == program.truth.depth[end - 1]
            assert truth.quote[i] == program.truth.quote[end - 1]
            assert truth.bound[i] == program.truth.bound[end - 1]


def test_programs_are_many_and_use_the_language():
    made = MANY
    assert len({program.text for program in made}) == len(made)
    found = {type(node).__name__ for program in made for node in ast.walk(ast.parse(program.text))}
    assert set(CONSTRUCTS.split()) <= found
    joined = "\n".join(program.text for program in made)
    for idiom in (
        "while True:",
        "return True",
        "= set()",
        ".add(",
        'f"',
        "f'",
        "else:",
        "elif ",
        "enumerate(",
        "=None",
    ):
        assert idiom in joined, idiom
    depths = [int(program.truth.depth.max()) for program in made]
    assert max(depths) >= 4
    levels = [int(program.truth.indent.max()) for program in made]
    assert max(levels) >= 3
    kinds = {kind for program in made for bound in program.truth.bound for kind in bound.values()}
    assert {"int", "str", "list", "set", "dict", "bool", "function", "type", "file"} <= kinds


def test_the_name_alone_does_not_tell_the_type():
    types: dict[str, set[str]] = {}
    for program in MANY:
        for name, value in program.variables.items():
            types.setdefault(name, set()).add(type(value).__name__)
    for name in ("current", "result", "value", "x"):
        assert {"int", "str", "list", "set"} <= types[name]


def test_both_quotes_are_equally_likely():
    text = "".join(program.text for program in MANY)
    single, double = text.count("'"), text.count('"')
    assert 0.8 < single / double < 1.25


def test_the_same_seed_gives_the_same_programs_under_another_hash_seed():
    script = (
        "import hashlib; from sparse_circuits.tasks import MiniPython; m = MiniPython(5);"
        "ps = [m.program() for _ in range(100)];"
        "print(hashlib.sha256(repr([(p.text, p.output) for p in ps]).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    other = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    here = repr([(program.text, program.output) for program in programs(100, seed=5)])
    assert hashlib.sha256(here.encode()).hexdigest() == other


def test_a_list_under_another_name_does_not_grow_while_a_loop_walks_over_it():
    for program in MANY:
        for loop in ast.walk(ast.parse(program.text)):
            if not isinstance(loop, ast.For):
                continue
            walked = {node.id for node in ast.walk(loop.iter) if isinstance(node, ast.Name)}
            variables = execute(program.text, program.files)[0]
            identities = {id(variables[name]) for name in walked if isinstance(variables.get(name), list)}
            grown = {
                call.func.value.id
                for call in ast.walk(loop)
                if isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr == "append"
                and isinstance(call.func.value, ast.Name)
            }
            assert not identities & {id(variables[name]) for name in grown if name in variables}, program.text


def test_seeds_give_different_programs_and_the_sequence_can_be_resumed():
    first, second = programs(30, seed=1), programs(30, seed=2)
    assert not {program.text for program in first} & {program.text for program in second}
    later = MiniPython(1)
    later.made = 10
    assert later.program().text == first[10].text


def test_the_token_stream_is_the_programs_behind_start_tokens():
    tokenizer = load_tokenizer()
    stream = mini_python_tokens(3000, seed=3)
    assert stream.shape == (3000,)
    assert stream.dtype == torch.int64
    assert torch.equal(stream[:1000], mini_python_tokens(1000, seed=3))
    starts = (stream == tokenizer.start_id).nonzero().flatten().tolist()
    assert starts[0] == 0
    texts = [tokenizer.decode(stream[a + 1 : b]) for a, b in pairwise(starts)]
    assert texts == [program.text for program in programs(len(texts), seed=3)]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="longest is 2"):
        MiniPython(0, longest=2)
    with pytest.raises(ValueError, match="n_tokens is 0"):
        mini_python_tokens(0, seed=0)
    with pytest.raises(ValueError, match="holds a quote"):
        code("print(1)")
    with pytest.raises(TypeError, match="seed contains"):
        Draw(1.5)
    with pytest.raises(ValueError, match="3 different items"):
        Draw(0).sample((1, 2), 3)


def test_draws_follow_the_documented_generator():
    uniform = random.Random("a:1").random
    draw = Draw("a", 1)
    assert [draw.below(10) for _ in range(50)] == [int(uniform() * 10) for _ in range(50)]
