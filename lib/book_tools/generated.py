"""Write the pages that are made before each build of the site: claims, routes and status. None is committed.

python -m book_tools.generated
"""

from __future__ import annotations

from sparse_circuits.checkpoints import write_atomically

from book_tools import claims_page, routes_page, status_page
from book_tools.project import GENERATED_PAGES, Book

MAKERS = {"claims.md": claims_page.page, "routes.md": routes_page.page, "status.md": status_page.page}
assert tuple(MAKERS) == GENERATED_PAGES


def write_pages(book: Book) -> None:
    """Write every generated page of a book atomically."""
    for name, make in MAKERS.items():
        write_atomically(book.root / "book" / name, make(book).encode())


if __name__ == "__main__":
    write_pages(Book())
