"""The routes: each can be walked from its first chapter to its last, and the chapters agree with the plan."""

from __future__ import annotations

from collections.abc import Iterator

from book_tools.plan import Need, Plan
from book_tools.project import Book
from book_tools.rules import Finding

FILE = "routes.yml"
READERS = ("one-evening", "weight-sparse", "attention-and-transcoders", "skeptic", "course")


def every_reader_has_a_route(book: Book) -> Iterator[Finding]:
    """There is a route for each kind of reader that the book is written for."""
    names = [route.name for route in Plan.of(book).routes]
    for reader in READERS:
        if reader not in names:
            yield Finding(FILE, "routes", f"there is no route {reader!r}", "write it")


def routes_can_be_walked(book: Book) -> Iterator[Finding]:
    """A route holds what its chapters need, each before the chapter that needs it, and no chapter twice."""
    plan = Plan.of(book)
    for route in plan.routes:
        read: list[str] = []
        for chapter in route.chapters:
            if chapter not in plan.titles:
                yield Finding(FILE, route.name, f"there is no chapter {chapter!r} in the plan", "mend the number")
            if chapter in read:
                yield Finding(FILE, route.name, f"chapter {chapter} stands twice", "keep the first")
            for need in plan.needs.get(chapter, ()):
                if not Need.parse(need).met_by(read):
                    message = f"chapter {chapter} needs {Need.parse(need).words()}, and before it stand only {read}"
                    yield Finding(FILE, route.name, message, "put what it needs before it, or leave it out")
            read.append(chapter)


def the_plan_can_be_read_in_order(book: Book) -> Iterator[Finding]:
    """Read from first to last, every chapter of the plan finds what it needs."""
    plan, read = Plan.of(book), []
    for chapter, needs in plan.needs.items():
        for need in needs:
            if not Need.parse(need).met_by(read):
                message = f"chapter {chapter} needs {Need.parse(need).words()}, which comes later or not at all"
                yield Finding(FILE, "chapters", message, "mend the need or the order")
        read.append(chapter)


def chapters_agree_with_the_plan(book: Book) -> Iterator[Finding]:
    """Title and needs of each written chapter are those of the plan."""
    plan = Plan.of(book)
    for notebook in book.notebooks():
        number = notebook.chapter.get("number")
        if number not in plan.titles:
            yield Finding(notebook.path.name, "metadata", f"chapter {number!r} is not in the plan", f"add it to {FILE}")
            continue
        planned = {"title": plan.titles[number], "needs": list(plan.needs[number])}
        for key, value in planned.items():
            if notebook.chapter.get(key) != value:
                message = f"{key} is {notebook.chapter.get(key)!r}, and {value!r} in the plan"
                yield Finding(notebook.path.name, "metadata", message, f"correct the chapter or {FILE}")


BOOK_RULES = (
    every_reader_has_a_route,
    routes_can_be_walked,
    the_plan_can_be_read_in_order,
    chapters_agree_with_the_plan,
)
