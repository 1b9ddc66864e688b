"""Train the tokenizer of the book on the standard library's training split and store it.

    python -m book_tools.tokenizer

Every shipped model and every claim of the chapters belongs to the tokenizer it was made with: run this only to start
over, and with the Python version of the lock.
"""

from sparse_circuits.checkpoints import data_path
from sparse_circuits.tasks.code import source_files
from sparse_circuits.tasks.tokenizer import CodeTokenizer, save_tokenizer, train_tokenizer


def trained() -> CodeTokenizer:
    """Return the tokenizer that the training split of the running interpreter's library gives."""
    return train_tokenizer(source_files("train").values())


if __name__ == "__main__":
    save_tokenizer(trained(), data_path("tokenizer", "tokenizer.json"))
