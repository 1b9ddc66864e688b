"""Byte-level BPE for Python source, trained by the project and shipped in `data/tokenizer/`.

Byte-pair encoding (Sennrich et al., arXiv 1508.07909v5) joins the most frequent neighbours first. A splitter runs
before it, so that what a circuit has to read stays whole: every quote and every bracket is one token, a newline is
one token, and the indentation that follows it is one token of spaces.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..checkpoints import data_path, write_atomically

START = "<|start|>"
VOCABULARY_SIZE = 2048

# Comments and docstrings outnumber code, so rare keywords would fall apart into pieces. Each keyword, and each
# builtin that the contrast tasks turn on, is shown to the trainer often enough to become one token.
WHOLE_WORDS = (
    *keyword.kwlist,
    "enumerate",
    "range",
    "len",
    "print",
    "open",
    "list",
    "dict",
    "set",
    "str",
    "int",
    "sum",
)
WHOLE_WORD_REPEATS = 2000

PIECES = Regex(
    r"\n"  # a line end
    r"| {2,}"  # indentation, or any other run of spaces
    r"|[\"'(){}\[\]]"  # one quote or one bracket
    r"| ?[:,;]"
    r"| ?[^\W\d]+"  # a word: letters and underscores
    r"| ?\d"
    r"| ?[^\s\w\"'(){}\[\]:,;]+"  # a run of operator characters
    r"|\s"
)


class CodeTokenizer:
    """Encode Python source as integers and back, without loss.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        A trained byte-level BPE tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.d_vocab: int = tokenizer.get_vocab_size()
        self.start_id: int = tokenizer.token_to_id(START)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`; no start token is added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, encoded on all cores."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; the start token decodes to nothing."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """Return the text of one token, the start token as `<|start|>`.

        Raises
        ------
        ValueError
            If the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.d_vocab:
            raise ValueError(f"Token id {token_id} is outside the vocabulary; give 0 to {self.d_vocab - 1}.")
        return START if token_id == self.start_id else self.decode([token_id])

    def tokens(self, text: str) -> list[str]:
        """Return `text` cut into the texts of its tokens."""
        return [self.token(i) for i in self.encode(text)]

    def id(self, text: str) -> int:
        """Return the id of the one token that `text` is.

        Raises
        ------
        ValueError
            If `text` is not exactly one token.
        """
        ids = self.encode(text)
        if len(ids) != 1:
            raise ValueError(f"{text!r} is {len(ids)} tokens, {self.tokens(text)}; give the text of a single token.")
        return ids[0]


@lru_cache
def load_tokenizer() -> CodeTokenizer:
    """Return the tokenizer that the shipped models use.

    Raises
    ------
    FileNotFoundError
        If the installed package lacks `data/tokenizer/tokenizer.json`.
    """
    path = data_path("tokenizer", "tokenizer.json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; install the package again, or restore the file from git.")
    return CodeTokenizer(Tokenizer.from_file(str(path)))


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE) -> CodeTokenizer:
    """Train a tokenizer of `vocabulary_size` tokens (256 bytes and the start token among them) on `texts`.

    Raises
    ------
    ValueError
        If `vocabulary_size` leaves no room for a merge.
    """
    if vocabulary_size <= 257:
        raise ValueError(f"vocabulary_size is {vocabulary_size}; give more than 257 (256 bytes and the start token).")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    whole_words = " ".join(WHOLE_WORDS) + "\n" + "\n".join(WHOLE_WORDS) + "\n"
    tokenizer.train_from_iterator(chain(texts, [whole_words * WHOLE_WORD_REPEATS]), trainer)
    return CodeTokenizer(tokenizer)


def save_tokenizer(tokenizer: CodeTokenizer, path: Path) -> None:
    """Write the tokenizer as JSON, all at once or not at all."""
    write_atomically(path, tokenizer._tokenizer.to_str(pretty=True).encode())
