"""The tokenizer loses nothing and keeps apart what must stay apart; the split is by file and the same everywhere."""

import io
import keyword
import tokenize

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_circuits.tasks.code import code_tokens, is_held_out, source_files, stdlib_directory
from sparse_circuits.tasks.tokenizer import START, load_tokenizer, train_tokenizer

TOKENIZER = load_tokenizer()


@given(st.text())
def test_every_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text(alphabet="ab_ 1\n\"'()[]{}:,;=+-*/.#@\\"))
def test_quotes_brackets_and_line_ends_are_tokens_of_their_own(text):
    for token in TOKENIZER.tokens(text):
        if set(token) & set("\"'()[]{}\n"):
            assert len(token) == 1


def test_indentation_is_one_token_up_to_sixteen_spaces():
    for depth in range(1, 5):
        spaces = " " * 4 * depth
        assert TOKENIZER.tokens(f"\n{spaces}return") == ["\n", spaces, "return"]


def test_every_keyword_is_one_token_with_and_without_a_space():
    for word in keyword.kwlist:
        assert TOKENIZER.tokens(word) == [word]
        assert TOKENIZER.tokens(f" {word}") == [f" {word}"]


def test_vocabulary_size_and_single_tokens():
    assert 1000 <= TOKENIZER.d_vocab <= 2048
    assert TOKENIZER.token(TOKENIZER.start_id) == START
    assert TOKENIZER.token(TOKENIZER.id("(")) == "("
    with pytest.raises(ValueError, match="'a b c' is 3 tokens"):
        TOKENIZER.id("a b c")
    with pytest.raises(ValueError, match="Token id 99999 is outside"):
        TOKENIZER.token(99999)


def test_training_is_repeatable_and_needs_room():
    texts = ["def f(x):\n    return x\n" * 5]
    one, two = (train_tokenizer(texts, 300) for _ in range(2))
    assert one.encode(texts[0]) == two.encode(texts[0])
    with pytest.raises(ValueError, match="vocabulary_size is 200"):
        train_tokenizer(texts, 200)


def test_the_splits_share_no_file_and_no_tests():
    train, held_out = source_files("train"), source_files("held_out")
    assert not train.keys() & held_out.keys()
    assert 0.03 < len(held_out) / (len(train) + len(held_out)) < 0.1
    assert all(is_held_out(name) for name in held_out)
    assert not any("test" in name.split("/") or "tests" in name.split("/") for name in (*train, *held_out))
    with pytest.raises(ValueError, match="split is 'valid'"):
        source_files("valid")


def test_the_stream_is_real_code():
    stream = code_tokens("held_out")
    assert stream.dtype == torch.int64
    assert (stream == TOKENIZER.start_id).sum() == len(source_files("held_out"))
    files = TOKENIZER.decode(stream.tolist())
    assert files == "".join(source_files("held_out").values())
    first = next(iter(source_files("held_out").values()))
    assert list(tokenize.generate_tokens(io.StringIO(first).readline))


def test_a_library_without_source_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_CIRCUITS_STDLIB", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no standard-library source"):
        stdlib_directory()
