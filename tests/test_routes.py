"""The plan and the routes: read as written, walked from end to end, and each planted error noticed."""

import pytest
import yaml
from book_tools import routes_page
from book_tools.plan import Need, Plan
from book_tools.project import Book
from example_book import copy_book, make_book
from hypothesis import given
from hypothesis import strategies as st
from planting import edit, found

ROUTE_RULES = (
    "every_reader_has_a_route",
    "routes_can_be_walked",
    "the_plan_can_be_read_in_order",
    "chapters_agree_with_the_plan",
)
NAMES = {"One evening", "Weight-sparse models", "Attention and transcoders", "Skeptic", "Course"}


@pytest.fixture
def book(tmp_path) -> Book:
    """A copy of the real book to plant errors in."""
    return copy_book(Book(), tmp_path / "copy")


def replan(book: Book, change) -> None:
    """Change the plan of a book."""
    path = book.root / "book" / "routes.yml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def assert_planted(book: Book, rule: str, change, message: str) -> None:
    """Assert that a rule is content with the plan before a change, and says `message` after it."""
    assert not found(book, rule)
    replan(book, change)
    assert message in "\n".join(map(str, found(book, rule)))


def needs_by_hand(numbers: tuple[str, ...]) -> dict[str, bool]:
    """Tell for each need that is not a plain number whether `numbers` meet it, written out by hand."""
    later = {f"{number:02}" for number in range(5, 14)}
    return {"05 or 11": "05" in numbers or "11" in numbers, "3 of 05 to 13": len(later & set(numbers)) >= 3}


def test_every_route_that_was_asked_for_is_there():
    assert {route.title for route in Plan.of(Book()).routes} == NAMES


@pytest.mark.parametrize("route", Plan.of(Book()).routes, ids=lambda route: route.name)
def test_a_reader_never_meets_a_chapter_too_early(route):
    needs = Plan.of(Book()).needs
    for place, chapter in enumerate(route.chapters):
        before = route.chapters[:place]
        special = needs_by_hand(before)
        assert all(special.get(need, need in before) for need in needs[chapter]), chapter


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan["routes"]["weight-sparse"]["chapters"].remove("04"), "chapter 05 needs chapter 04"),
        (lambda plan: plan["routes"]["skeptic"]["chapters"].reverse(), "chapter 09 needs chapter 03"),
        (lambda plan: plan["routes"]["attention-and-transcoders"].update(chapters=["00", "01", "12"]), "05 or 11"),
        (lambda plan: plan["routes"]["course"].update(chapters=["00", "01", "03", "04", "05", "06", "C"]), "any 3 of"),
        (lambda plan: plan["routes"]["course"]["chapters"].append("99"), "no chapter '99' in the plan"),
        (lambda plan: plan["routes"]["one-evening"]["chapters"].append("00"), "chapter 00 stands twice"),
    ],
)
def test_a_route_that_cannot_be_walked_is_caught(book, change, message):
    assert_planted(book, "routes_can_be_walked", change, message)


def test_a_missing_route_is_caught(book):
    assert_planted(book, "every_reader_has_a_route", lambda plan: plan["routes"].pop("skeptic"), "no route 'skeptic'")


def test_a_plan_that_runs_in_circles_is_caught(book):
    change = {"needs": ["09"]}
    assert_planted(
        book, "the_plan_can_be_read_in_order", lambda plan: plan["chapters"]["08"].update(change), "comes later"
    )


@pytest.mark.parametrize("change", [{"needs": ["03"]}, {"title": "Another"}, {"number": "77"}])
def test_a_chapter_that_departs_from_the_plan_is_caught(book, change):
    assert not found(book, "chapters_agree_with_the_plan")
    edit(book, "01", lambda notebook: notebook.chapter.update(change))
    assert found(book, "chapters_agree_with_the_plan", "01")


@pytest.mark.parametrize("text", ["", "chapter 03", "3", "5 or 11", "4 of 05 to 07", "0 of 05 to 07", "05 and 11"])
def test_a_need_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="is not a need"):
        Need.parse(text)


@given(st.sets(st.sampled_from([f"{number:02}" for number in range(18)])))
def test_needs_are_met_as_written_out_by_hand(read):
    for text, met in needs_by_hand(tuple(read)).items():
        assert Need.parse(text).met_by(read) == met
    assert Need.parse("03").met_by(read) == ("03" in read)


def test_needs_in_words():
    words = [Need.parse(text).words() for text in ("03", "05 or 11", "3 of 05 to 13")]
    assert words == ["chapter 03", "chapter 05 or 11", "any 3 of the chapters 05 to 13"]


def test_a_broken_plan_is_named(tmp_path):
    book = make_book(tmp_path / "book")
    (book.root / "book" / "routes.yml").write_text("chapters: [")
    with pytest.raises(ValueError, match=r"routes\.yml is not a plan"):
        Plan.of(book)


def test_the_page_sums_the_times_of_what_is_written_and_links_nothing_else():
    book = Book()
    cards = {notebook.chapter["number"]: notebook for notebook in book.notebooks()}
    page = routes_page.page(book)
    *sections, whole = page.split("\n## ")[1:]
    assert whole.startswith("The whole book")
    for route, section in zip(Plan.of(book).routes, sections, strict=True):
        assert section.startswith(route.title)
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith(("| 0", "| 1", "| C"))]
        assert [row[0].removeprefix("| ") for row in rows] == list(route.chapters)
        for number, row in zip(route.chapters, rows, strict=True):
            assert ("](" in row[1]) == (number in cards)
            assert ("not written yet" in row[1]) == (number not in cards)
        for key in ("read_minutes", "do_minutes"):
            total = sum(cards[number].chapter[key] for number in route.chapters if number in cards)
            assert routes_page.hours(total) in section


def test_hours():
    shown = [routes_page.hours(minutes) for minutes in (0, 45, 60, 125)]
    assert shown == ["0 min", "45 min", "1 h", "2 h 5 min"]
