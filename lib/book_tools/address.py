"""The addresses that derive from `repository.url` in `_config.yml`, and the pages that have to spell them out.

python -m book_tools.address --sync    rewrite them
python -m book_tools.address --check   fail where --sync would change something
"""

import re
import sys

from book_tools.project import Book

OWNER_AND_NAME = r"[\w.-]+/[\w.-]+"


def colab_address(book: Book, notebook: str) -> str:
    """Return the address that opens a notebook, named without its suffix, in Colab."""
    return f"{colab_folder(book)}{notebook}.ipynb"


def colab_folder(book: Book) -> str:
    """Return what the Colab addresses of all notebooks begin with."""
    path = book.repository.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{path}/blob/{book.branch}/notebooks/"


def with_current_addresses(book: Book, text: str) -> str:
    """Return `text` with every Colab and installation address of a repository set to that of the book."""
    colab = rf"https://colab\.research\.google\.com/github/{OWNER_AND_NAME}/blob/[\w.-]+/notebooks/"
    text = re.sub(colab, colab_folder(book), text)
    return re.sub(rf"git\+https://github\.com/{OWNER_AND_NAME}", f"git+{book.repository}", text)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if arguments not in (["--sync"], ["--check"]):
        sys.exit(__doc__)
    book, stale = Book(), 0
    for page in book.pages():
        text = page.read_text(encoding="utf-8")
        current = with_current_addresses(book, text)
        if current == text:
            continue
        stale += 1
        if arguments == ["--sync"]:
            page.write_text(current, encoding="utf-8")
        else:
            print(f"{page.name} names another repository than _config.yml; run 'make sync'.", file=sys.stderr)
    return int(stale > 0 and arguments == ["--check"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
