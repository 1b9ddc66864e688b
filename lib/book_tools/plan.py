"""The plan of the book and the routes through it, as `book/routes.yml` states them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import yaml

from book_tools.project import Book

CHAPTER = r"(?:\d\d|C)"
ONE_OF = re.compile(rf"{CHAPTER}(?: or {CHAPTER})*")
SOME_OF = re.compile(r"(?P<count>\d+) of (?P<first>\d\d) to (?P<last>\d\d)")


@dataclass(frozen=True)
class Need:
    """What a chapter needs: at least `count` of some chapters."""

    text: str
    count: int
    options: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Need:
        """Read `03`, `05 or 11`, or `3 of 05 to 13`.

        Raises
        ------
        ValueError
            If the text has another form, or asks for more chapters than it names.
        """
        some = SOME_OF.fullmatch(str(text))
        if some:
            options = tuple(f"{number:02}" for number in range(int(some["first"]), int(some["last"]) + 1))
            need = cls(text, int(some["count"]), options)
            if 1 <= need.count <= len(options):
                return need
        elif ONE_OF.fullmatch(str(text)):
            return cls(text, 1, tuple(text.split(" or ")))
        raise ValueError(f"{text!r} is not a need; write '03', '05 or 11' or '3 of 05 to 13', in quotes.")

    def met_by(self, read: Collection[str]) -> bool:
        """Tell whether the chapters already read are enough."""
        return sum(option in read for option in self.options) >= self.count

    def words(self) -> str:
        """Write the need as a card shows it."""
        return f"chapter {self.text}" if self.count == 1 else f"any {self.text.replace('of', 'of the chapters', 1)}"


@dataclass(frozen=True)
class Route:
    """A way through the book for one kind of reader."""

    name: str
    title: str
    who: str
    chapters: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All chapters of the book, written or not, and the routes.

    Parameters
    ----------
    titles : dict
        Title of each chapter by number, in order.
    needs : dict
        What each chapter needs, as texts.
    routes : tuple of Route
        The routes, in order.
    """

    titles: dict[str, str]
    needs: dict[str, tuple[str, ...]]
    routes: tuple[Route, ...]

    @classmethod
    def of(cls, book: Book) -> Plan:
        """Read the plan of a book.

        Raises
        ------
        ValueError
            If the file is not a plan.
        """
        path = book.root / "book" / "routes.yml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            chapters = {str(number): entry for number, entry in content["chapters"].items()}
            return cls(
                titles={number: entry["title"] for number, entry in chapters.items()},
                needs={number: tuple(map(str, entry["needs"])) for number, entry in chapters.items()},
                routes=tuple(
                    Route(name, entry["title"], entry["who"], tuple(map(str, entry["chapters"])))
                    for name, entry in content["routes"].items()
                ),
            )
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name} is not a plan of chapters and routes ({error}); restore it.") from error
