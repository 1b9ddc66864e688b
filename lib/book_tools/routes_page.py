"""Make `book/routes.md`: each route with its chapters in order, and the times of those that are written."""

from __future__ import annotations

from collections.abc import Iterator

from book_tools.markdown import table
from book_tools.plan import Need, Plan, Route
from book_tools.project import Book, Notebook

INTRODUCTION = """\
# Routes through the book

Not every reader needs every chapter. Each route below holds all that its chapters need, in an order that works. Times
to read and to do the exercises are estimates; they are summed over the chapters that are written.
"""

COLUMNS = ("number", "chapter", "needs", "read", "exercises")
HEADING_OF_PLAN = """\
## The whole book

A chapter without a link is planned and not written yet.
"""


def page(book: Book) -> str:
    """Return the page as markdown."""
    plan = Plan.of(book)
    written = {notebook.chapter["number"]: notebook for notebook in book.notebooks()}
    lines = [INTRODUCTION]
    for route in plan.routes:
        lines += [f"({route.name})=", f"## {route.title}\n", f"{route.who}\n", times(route, written) + "\n"]
        lines += [*table(COLUMNS, rows(plan, route.chapters, written)), ""]
    return "\n".join([*lines, HEADING_OF_PLAN, *table(COLUMNS, rows(plan, tuple(plan.titles), written)), ""])


def rows(plan: Plan, numbers: tuple[str, ...], written: dict[str, Notebook]) -> Iterator[list[str]]:
    """Yield one row for each chapter; one that is not written has neither link nor times."""
    for number in numbers:
        needs = ", ".join(Need.parse(need).text for need in plan.needs[number]) or "–"
        if number in written:
            card = written[number].chapter
            name = f"[{plan.titles[number]}](../notebooks/{written[number].path.name})"
            yield [number, name, needs, f"{card['read_minutes']} min", f"{card['do_minutes']} min"]
        else:
            yield [number, f"{plan.titles[number]} (not written yet)", needs, "–", "–"]


def times(route: Route, written: dict[str, Notebook]) -> str:
    """Say how many chapters of a route are written and how long they take."""
    cards = [written[number].chapter for number in route.chapters if number in written]
    count = f"{len(route.chapters)} chapters" if len(route.chapters) != 1 else "1 chapter"
    if not cards:
        return f"{count}, none of them written yet."
    reading, doing = (sum(card[key] for card in cards) for key in ("read_minutes", "do_minutes"))
    takes = f"{hours(reading)} to read and {hours(doing)} for the exercises"
    if len(cards) == len(route.chapters):
        return f"{count}, all written: {takes}."
    missing = len(route.chapters) - len(cards)
    verb = "is" if missing == 1 else "are"
    return f"{count}, of which {len(cards)} are written: {takes}. {missing} {verb} not written yet."


def hours(minutes: int) -> str:
    """Write minutes as `45 min` or `2 h 5 min`."""
    whole, rest = divmod(minutes, 60)
    return " ".join([*([f"{whole} h"] if whole else []), *([f"{rest} min"] if rest or not whole else [])])
