"""Contrast pairs: what is the same, what differs, and what Python says about each answer."""

import ast
import keyword
from itertools import product

import pytest
import torch
from python_oracle import execute, scan
from sparse_circuits.tasks import CONTRAST_TASKS, contrast_pairs
from sparse_circuits.tasks.contrast_registry import NAMES, WORDS
from sparse_circuits.tasks.contrast_syntax import CALLS
from sparse_circuits.tasks.draw import pool
from sparse_circuits.tasks.tokenizer import load_tokenizer

# Endings that mend any prompt of the grammar tasks after a legal answer, as the tests check.
ENDINGS = [
    "".join(parts)
    for parts in product(
        ("", " x", "x", " 1", "(x)", "None", " x == 1"),
        ("", ")", "]", "}", "])", "})", "]]", "}]"),
        ("", ":", ":\n    pass", ":\n        pass", "\n    pass", "\n        pass", " 1", ""),
    )
]

PUBLISHED = pool(
    "single_double_quote final_kwarg set_or_string set_or_string_fixedvarname class_init with_as bracket_brace "
    "with_open bracket_counting for_while else_elif fstring_brace if_ternary var_swap indent_for lambda_func "
    "if_equals enumerate_range var_if while_return_true "
)

every_task = pytest.mark.parametrize("name", sorted(CONTRAST_TASKS))
every_split = pytest.mark.parametrize("split", ["train", "test"])


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def completable(text: str) -> bool:
    """Whether one of the endings makes the text a program."""
    return any(parses(text + ending) for ending in ENDINGS)


def shown(name: str) -> list[str]:
    return [task.name for task in CONTRAST_TASKS.values() if task.shown_by == name]


def pairs(name: str, split: str, n: int = 40):
    return contrast_pairs(name, n, 7, split=split).pairs


def right_programs(pair) -> tuple[str, str]:
    positive, negative = pair.prompts
    return (
        positive + pair.answer_positive + pair.ending_positive,
        negative + pair.answer_negative + pair.ending_negative,
    )


def wrong_programs(pair) -> tuple[str, str]:
    positive, negative = pair.prompts
    return (
        positive + pair.answer_negative + pair.ending_negative,
        negative + pair.answer_positive + pair.ending_positive,
    )


def test_the_tasks_are_those_of_the_published_list():
    assert [task.number for task in sorted(CONTRAST_TASKS.values(), key=lambda task: task.number)] == [*range(1, 21)]
    assert {name: task.number for name, task in CONTRAST_TASKS.items()} == {
        name: i + 1 for i, name in enumerate(PUBLISHED)
    }
    for task in CONTRAST_TASKS.values():
        assert len(task.description) > 30
        assert task.differs


@every_task
@every_split
def test_prompts_differ_in_the_cue_alone(name, split):
    tokenizer = load_tokenizer()
    batch = contrast_pairs(name, 40, 3, split=split)
    longest = int(batch.lengths.max())
    assert batch.positive.shape == batch.negative.shape == (40, longest)
    assert longest <= 64
    assert batch.positive.dtype == batch.answer_positive.dtype == torch.int64
    assert (batch.answer_positive != batch.answer_negative).all()
    for row, pair in enumerate(batch.pairs):
        length = int(batch.lengths[row])
        where = batch.cue[row].nonzero().flatten().tolist()
        assert 1 <= len(where) <= 4
        assert where == list(range(where[0], where[-1] + 1))
        assert where[-1] < length
        for tokens, prompt in zip((batch.positive[row], batch.negative[row]), pair.prompts, strict=True):
            assert tokens[0] == tokenizer.start_id
            assert (tokens[length:] == tokenizer.start_id).all()
            assert tokens[1:length].tolist() == tokenizer.encode(prompt)
            assert tokenizer.start_id not in tokens[1:length]
        # Nothing outside the cue differs: the texts before and after it are the same tokens in both prompts.
        shared = tokenizer.decode(batch.positive[row, 1 : where[0]])
        assert pair.before.startswith(shared) or shared == pair.before
        assert tokenizer.decode(batch.positive[row, where[-1] + 1 : length]) == tokenizer.decode(
            batch.negative[row, where[-1] + 1 : length]
        )
        assert tokenizer.token(int(batch.answer_positive[row])) == pair.answer_positive
        assert tokenizer.token(int(batch.answer_negative[row])) == pair.answer_negative


@every_task
def test_an_answer_does_not_change_how_the_prompt_is_cut(name):
    tokenizer = load_tokenizer()
    batch = contrast_pairs(name, 20, 5)
    for row, pair in enumerate(batch.pairs):
        length = int(batch.lengths[row])
        for tokens, prompt in zip((batch.positive[row], batch.negative[row]), pair.prompts, strict=True):
            for answer, text in (
                (batch.answer_positive[row], pair.answer_positive),
                (batch.answer_negative[row], pair.answer_negative),
            ):
                assert tokenizer.encode(prompt + text) == [*tokens[1:length].tolist(), int(answer)]


@every_task
@every_split
def test_the_right_answers_complete_to_a_program(name, split):
    for pair in pairs(name, split):
        for program in right_programs(pair):
            assert parses(program), program


@pytest.mark.parametrize("name", [name for name in shown("syntax") if name != "single_double_quote"])
@every_split
def test_no_ending_mends_the_wrong_answer(name, split):
    for pair in pairs(name, split, 3):
        positive, negative = pair.prompts
        assert completable(positive + pair.answer_positive)
        assert completable(negative + pair.answer_negative)
        assert not completable(positive + pair.answer_negative), positive
        assert not completable(negative + pair.answer_positive), negative


@pytest.mark.parametrize("name", [name for name in shown("syntax, positive") if name != "indent_for"])
@every_split
def test_no_ending_mends_the_wrong_answer_in_the_positive_prompt(name, split):
    for pair in pairs(name, split, 3):
        positive, negative = pair.prompts
        assert completable(positive + pair.answer_positive)
        assert completable(negative + pair.answer_negative)
        assert not completable(positive + pair.answer_negative), positive
        assert completable(negative + pair.answer_positive), "`shown_by` says that this one is legal"


@every_split
def test_bracket_brace_a_list_takes_no_colon(split):
    for pair in pairs("bracket_brace", split, 5):
        assert completable(pair.prompts[0] + ":")
        assert completable(pair.prompts[1] + ",")
        assert not completable(pair.prompts[1] + ":")
        nodes = [
            {type(node) for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Dict | ast.Set)}
            for program in right_programs(pair)
        ]
        assert nodes == [{ast.Dict}, set()]


@every_split
def test_single_double_quote_the_wrong_quote_leaves_the_string_open(split):
    for pair in pairs("single_double_quote", split):
        for program in wrong_programs(pair):
            assert not parses(program), program


@every_split
def test_bracket_counting_the_newline_ends_the_flat_list_only(split):
    for pair in pairs("bracket_counting", split, 10):
        nested, flat = pair.prompts
        assert parses(flat + "\n")
        assert not parses(nested + "\n")
        assert parses(nested + "]\n")
        assert not completable(flat + "]")


@every_split
def test_indent_for_the_wrong_indentation_is_an_error_or_two_levels(split):
    for pair in pairs("indent_for", split):
        deep, shallow = (prompt.splitlines()[-1] for prompt in pair.prompts)
        assert not parses(wrong_programs(pair)[0])
        for header, answer in ((deep, pair.answer_positive), (shallow, pair.answer_negative)):
            assert len(answer) == len(header) - len(header.lstrip()) + 4


@pytest.mark.parametrize("name", ["set_or_string", "set_or_string_fixedvarname"])
@every_split
def test_set_or_string_the_wrong_operation_fails(name, split):
    for pair in pairs(name, split):
        for program in right_programs(pair):
            execute(program)
        with pytest.raises(TypeError):
            execute(wrong_programs(pair)[0])
        with pytest.raises(AttributeError):
            execute(wrong_programs(pair)[1])


@every_split
def test_class_init_stores_the_parameter_of_the_same_name(split):
    for pair in pairs("class_init", split):
        for field, right, wrong in zip(
            (pair.positive, pair.negative), right_programs(pair), wrong_programs(pair), strict=True
        ):
            definition = next(node for node in ast.walk(ast.parse(right)) if isinstance(node, ast.FunctionDef))
            values = {argument.arg: i for i, argument in enumerate(definition.args.args[1:])}
            for program, expected in ((right, True), (wrong, False)):
                made = next(value for value in execute(program)[0].values() if isinstance(value, type))
                assert (vars(made(**values))[field] == values[field]) is expected


@every_split
def test_fstring_brace_a_value_is_inserted_by_the_f_string_alone(split):
    for pair in pairs("fstring_brace", split):
        positive, negative = right_programs(pair)
        execute(positive)
        execute(negative)
        assert any(isinstance(node, ast.FormattedValue) for node in ast.walk(ast.parse(positive)))
        assert "{" not in negative
        useless, untouched = wrong_programs(pair)
        nodes = list(ast.walk(ast.parse(useless)))
        assert any(isinstance(node, ast.JoinedStr) for node in nodes)
        assert not any(isinstance(node, ast.FormattedValue) for node in nodes)
        constants = [node.value for node in ast.walk(ast.parse(untouched)) if isinstance(node, ast.Constant)]
        assert any("{" in str(value) for value in constants)


@every_split
def test_var_swap_exchanges_two_values(split):
    for pair in pairs("var_swap", split):
        before = execute(pair.before)[0]
        for programs, is_swap in ((right_programs(pair), True), (wrong_programs(pair), False)):
            for program in programs:
                statement = ast.parse(program).body[-1]
                left = [name.id for name in statement.targets[0].elts]
                right = [name.id for name in statement.value.elts]
                assert (left == right[::-1]) is is_swap
                after = execute(program)[0]
                assert [after[name] for name in left] == [before[name] for name in right]


@every_split
def test_enumerate_range_fits_the_loop_variables(split):
    for pair in pairs("enumerate_range", split):
        two, one = right_programs(pair)
        execute(two)
        loop_name = pair.negative.strip()
        assert isinstance(execute(one)[0][loop_name], int)
        with pytest.raises(TypeError):
            execute(pair.prompts[0] + " range(3):\n    pass\n")
        items = ast.parse(two).body[-1].iter.args[0].id
        assert isinstance(execute(pair.prompts[1] + f" enumerate({items}):\n    pass\n")[0][loop_name], tuple)


@every_split
def test_with_open_reads_what_is_there_and_writes_what_is_not(split):
    for pair in pairs("with_open", split):
        positive, negative = right_programs(pair)
        name = positive[len(pair.before) :].partition(positive[len(pair.before) - 1])[0]
        given = {name: "kept"}
        assert "kept" in execute(positive, given)[0].values()
        execute(negative, given)
        with pytest.raises(KeyError):
            execute(wrong_programs(pair)[1], given)


@every_task
def test_sampling_is_seeded_and_goes_on(name):
    long, short = contrast_pairs(name, 30, 1), contrast_pairs(name, 10, 1)
    assert long.pairs[:10] == short.pairs
    assert contrast_pairs(name, 10, 2).pairs != short.pairs
    assert len({pair.prompts for pair in contrast_pairs(name, 100, 4).pairs}) > 60


def variables_and_words(name: str, split: str) -> tuple[set[str], set[str]]:
    variables, words = set(), set()
    for pair in contrast_pairs(name, 60, 0, split=split).pairs:
        for program in right_programs(pair):
            for node in ast.walk(ast.parse(program)):
                if isinstance(node, ast.Name):
                    variables.add(node.id)
                elif isinstance(node, ast.arg):
                    variables.add(node.arg)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    words.update(node.value.split())
    return variables & set(NAMES), words & set(WORDS)


@every_task
def test_train_and_test_share_no_variable_and_no_word(name):
    (names, words), (test_names, test_words) = (variables_and_words(name, split) for split in ("train", "test"))
    # A function that is called may have the name of a variable of the other split.
    assert names & test_names <= set(CALLS) | ({"current"} if name == "set_or_string_fixedvarname" else set())
    if name != "with_open":
        assert not words & test_words


def test_the_names_are_single_tokens_with_and_without_a_space():
    tokenizer = load_tokenizer()
    for name in NAMES:
        assert len(tokenizer.encode(name)) == len(tokenizer.encode(f" {name}")) == 1
        assert not keyword.iskeyword(name)


def test_strings_of_the_other_quote_stand_before_some_prompts():
    distracted = 0
    for pair in pairs("single_double_quote", "train", 100):
        quote = scan(right_programs(pair)[0])[0]
        assert quote[len(pair.prompts[0]) - 1] == '"'
        assert quote[len(pair.prompts[0])] == ""
        distracted += "'" in quote
    assert 10 < distracted < 90


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no contrast task 'quotes'"):
        contrast_pairs("quotes", 1, 0)
    with pytest.raises(ValueError, match="split is 'held_out'"):
        contrast_pairs("var_swap", 1, 0, split="held_out")
    with pytest.raises(ValueError, match="n is 0"):
        contrast_pairs("var_swap", 0, 0)
    with pytest.raises(ValueError, match="raise `longest`"):
        contrast_pairs("var_swap", 1, 0, longest=5)
