"""The addresses that derive from `repository.url` in `_config.yml`, and the files that have to spell them out.

python -m book_tools.address --sync    rewrite them
python -m book_tools.address --check   fail where --sync would change something

In the prose only the addresses of a known form are the book's own: launch links, badges and installation commands. The
home files (`HOME_FILES`) speak of this repository alone: every address of a repository or of its site in them is ours.
"""

import re
import sys
from pathlib import Path

from sparse_circuits.checkpoints import write_atomically

from book_tools.project import Book

GITHUB = "https://github.com/"
OWNER_AND_NAME = r"[\w-]+/[\w-]+(?:\.[\w-]+)*"
HOME_FILES = ("CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", ".github/**/*.yml")
BADGES = "/actions/workflows/"


def colab_address(book: Book, notebook: str) -> str:
    """Return the address that opens a notebook, named without its suffix, in Colab."""
    return f"{colab_folder(book)}{notebook}.ipynb"


def colab_folder(book: Book) -> str:
    """Return what the Colab addresses of all notebooks begin with."""
    path = book.repository.removeprefix(GITHUB)
    return f"https://colab.research.google.com/github/{path}/blob/{book.branch}/notebooks/"


def site_address(book: Book) -> str:
    """Return the address that GitHub Pages gives the built site."""
    owner, name = book.repository.removeprefix(GITHUB).split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def home_files(book: Book) -> list[Path]:
    """Return the files in which every address of a repository is the book's own."""
    return sorted(path for pattern in HOME_FILES for path in book.root.glob(pattern))


def files_with_addresses(book: Book) -> list[Path]:
    """Return every file that spells out an address which derives from the settings; notebooks have their own tool."""
    return sorted({*book.pages(), *home_files(book)})


def current_text(book: Book, path: Path) -> str:
    """Return the text of a file with the addresses that the settings ask for."""
    text = with_current_addresses(book, path.read_text(encoding="utf-8"))
    return with_home_addresses(book, text) if path in home_files(book) else text


def with_current_addresses(book: Book, text: str) -> str:
    """Return `text` with every launch link, badge and installation address set to that of the book."""
    colab = rf"https://colab\.research\.google\.com/github/{OWNER_AND_NAME}/blob/[\w.-]+/notebooks/"
    text = re.sub(colab, colab_folder(book), text)
    text = re.sub(rf"{re.escape(GITHUB)}{OWNER_AND_NAME}(?={BADGES})", book.repository, text)
    return re.sub(rf"git\+{re.escape(GITHUB)}{OWNER_AND_NAME}", f"git+{book.repository}", text)


def with_home_addresses(book: Book, text: str) -> str:
    """Return the text of a home file with every address of a repository and of a site set to that of the book."""
    text = re.sub(rf"{re.escape(GITHUB)}{OWNER_AND_NAME}", book.repository, text)
    return re.sub(r"https://[\w-]+\.github\.io/[\w.-]+/", site_address(book), text)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if arguments not in (["--sync"], ["--check"]):
        sys.exit(__doc__)
    book = Book()
    stale = [path for path in files_with_addresses(book) if current_text(book, path) != path.read_text("utf-8")]
    for path in stale:
        if arguments == ["--sync"]:
            write_atomically(path, current_text(book, path).encode())
        else:
            name = path.relative_to(book.root)
            print(f"{name} names another repository than _config.yml; run 'make sync'.", file=sys.stderr)
    return int(bool(stale) and arguments == ["--check"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
