"""Planted errors: each is planted in a copy of the example book and of every real chapter, and must be found."""

import copy
import json
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from book_tools.linters import BOOK_RULES, NOTEBOOK_RULES, findings
from book_tools.linters import main as lint
from book_tools.project import Book, Notebook
from book_tools.rules import Finding, without_code
from book_tools.rules.prose import BOLD, CLAIM_TAG, rounded_like
from example_book import copy_book, register_graders
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_output

REAL_CHAPTERS = [notebook.name for notebook in Book().notebooks()]


@pytest.fixture(params=["example", *REAL_CHAPTERS])
def planted(request, tmp_path, executed_book):
    """A copy of a book, and the name of the chapter in it to plant an error in."""
    if request.param == "example":
        register_graders()
        book = copy_book(executed_book, tmp_path / "copy")
        return book, book.notebooks()[0].name
    return copy_book(Book(), tmp_path / "copy"), request.param


def edit(book: Book, name: str, change) -> None:
    """Change the cells of a notebook as an author's editor would; no generated part is refreshed."""
    notebook = book.notebooks([name])[0]
    change(notebook)
    notebook.write()


def found(book: Book, rule: str, name: str = "") -> list[Finding]:
    """Return what one rule finds, in one file if it is named."""
    return [finding for finding in findings(book, rule) if finding.file.startswith(name)]


def assert_caught(book: Book, name: str, rule: str, change) -> None:
    """Assert that a rule is content before a change and not after it."""
    before = found(book, rule, name)
    edit(book, name, change)
    after = found(book, rule, name)
    assert not before
    assert after
    assert all(finding.message and finding.remedy and finding.where for finding in after)


def first(notebook: Notebook, fits):
    """Return the first cell that `fits`."""
    return next(cell for cell in notebook.cells if fits(cell))


def first_code(notebook: Notebook):
    """Return the first code cell that has an output."""
    return first(notebook, lambda cell: cell.cell_type == "code" and cell.outputs)


def first_figure(notebook: Notebook):
    """Return the first cell that shows a picture made by `plots.show`."""
    return first(notebook, lambda cell: cell.metadata.get("mystnb"))


def add_markdown(source: str):
    """Return a change that adds a line of markdown to the hook."""

    def change(notebook: Notebook) -> None:
        next(notebook.tagged("hook"))["source"] += f"\n\n{source}"

    return change


def add_code(source: str):
    """Return a change that adds a line of code to the cell after the set-up."""

    def change(notebook: Notebook) -> None:
        cell = first(notebook, lambda cell: cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", []))
        cell["source"] += f"\n{source}"

    return change


def print_line(text: str):
    """Return a change that adds a line to the stored output of a cell."""

    def change(notebook: Notebook) -> None:
        first_code(notebook).outputs.append(new_output("stream", name="stdout", text=text))

    return change


def change_number(notebook: Notebook) -> None:
    """Raise the first digit of the first claimed number of the prose."""
    cell = first(notebook, lambda cell: cell.cell_type == "markdown" and CLAIM_TAG.search(cell.source))
    bold = next(match for match in BOLD.finditer(cell.source) if match["tag"])
    place = next(index for index in range(bold.start("text"), bold.end("text")) if cell.source[index].isdigit())
    digit = str((int(cell.source[place]) + 1) % 10)
    cell["source"] = cell.source[:place] + digit + cell.source[place + 1 :]


def test_the_example_book_has_no_findings(executed_book):
    register_graders()
    assert [str(finding) for finding in findings(executed_book)] == []


def test_a_changed_number_in_prose_is_caught(planted):
    assert_caught(*planted, "bold_numbers_are_claims", change_number)


@pytest.mark.parametrize(
    "text", ["**17**", "**≈0.25**", "**92 %**", "<b>3</b>", "__4__", "**12 edges**", "**−3**", "**1,024**"]
)
def test_a_bold_number_without_a_claim_is_caught(planted, text):
    assert_caught(*planted, "bold_numbers_are_claims", add_markdown(f"There are {text}."))


@pytest.mark.parametrize(
    "text", ["**one** edge", "`**17**` is code", "17 edges", "**00 · A circuit**", "**GPT-2**", "**90.1**"]
)
def test_other_bold_text_is_left_alone(planted, text):
    book, name = planted
    edit(book, name, add_markdown(text))
    assert not found(book, "bold_numbers_are_claims", name)


def test_an_unknown_claim_in_prose_is_caught(planted):
    assert_caught(*planted, "claim_tags_exist", add_markdown("There are **17**<!-- claim:no.such.claim -->."))


def test_a_claim_tag_without_a_number_is_caught(planted):
    book, name = planted
    known = next(iter(book.ledger())).id
    assert_caught(book, name, "claim_tags_exist", add_markdown(f"There are 17<!-- claim:{known} -->."))


def test_a_changed_number_on_a_page_is_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    page = book.root / "book" / "index.md"
    page.write_text(page.read_text().replace("**3**", "**4**"))
    assert [finding.where for finding in found(book, "bold_numbers_are_claims", "book/index.md")] == ["line 3"]


@pytest.mark.parametrize(
    "source",
    [
        "```{note}\nx\n```",
        ":::{tip}\nx\n:::",
        "{cite}`key`",
        "{doc}`page`",
        "(label)=",
        "{{ version }}",
        "[@key]",
        "+++",
        "% hidden",
    ],
)
def test_myst_syntax_is_caught(planted, source):
    assert_caught(*planted, "no_myst", add_markdown(source))


@pytest.mark.parametrize(
    "source", ["```python\nx = {1: 2}\n```", "`{{ x }}` is code", "f(x) = {a}", "50% of it", "[a](b)"]
)
def test_plain_markdown_is_no_myst(planted, source):
    book, name = planted
    edit(book, name, add_markdown(source))
    assert not found(book, "no_myst", name)


def test_a_stripped_output_is_caught(planted):
    def strip(notebook):
        cell = first_code(notebook)
        cell.outputs, cell["execution_count"] = [], None

    assert_caught(*planted, "is_executed", strip)


def test_an_output_stripped_behind_its_count_is_caught(planted):
    def strip(notebook):
        first(notebook, lambda cell: "sc.grade(" in cell.source)["outputs"] = []

    assert_caught(*planted, "calls_left_their_output", strip)


def test_cells_run_out_of_order_are_caught(planted):
    def swap(notebook):
        first_code(notebook)["execution_count"] = 99

    assert_caught(*planted, "is_executed", swap)


def test_a_stored_error_is_caught(planted):
    def fail(notebook):
        error = new_output("error", ename="ValueError", evalue="no", traceback=[])
        first_code(notebook).outputs.append(error)

    assert_caught(*planted, "is_executed", fail)


@pytest.mark.parametrize("alt", ["", "a figure"])
def test_a_figure_without_a_text_alternative_is_caught(planted, alt):
    def silence(notebook):
        first_figure(notebook).metadata["mystnb"] = {"image": {"alt": alt}}

    assert_caught(*planted, "figures_have_texts", silence)


def test_a_figure_without_data_is_caught(planted):
    def hide(notebook):
        cell = first_figure(notebook)
        cell["outputs"] = [output for output in cell.outputs if "text/html" not in output.get("data", {})]

    assert_caught(*planted, "figures_have_texts", hide)


def test_a_changed_set_up_cell_is_caught(planted):
    def change(notebook):
        next(notebook.tagged("setup"))["source"] += " "

    assert_caught(*planted, "is_synchronised", change)


def test_a_typed_card_is_caught(planted):
    def change(notebook):
        next(notebook.tagged("card"))["source"] += "\n\nRuns in no time."

    assert_caught(*planted, "is_synchronised", change)


def test_another_repository_address_is_caught(planted):
    book, name = planted
    assert not found(book, "is_synchronised", name)
    settings = book.root / "_config.yml"
    settings.write_text(settings.read_text().replace(book.repository, "https://github.com/another/fork"))
    assert found(Book(book.root), "is_synchronised", name)


@pytest.mark.parametrize("text", ["/home/ada/book/x.py", "/tmp/ipykernel_1/2.py", r"C:\Users\ada", "see /work/main"])
def test_an_absolute_path_is_caught(planted, text):
    assert_caught(*planted, "no_absolute_paths", print_line(text))


@pytest.mark.parametrize(
    "source",
    [
        "import requests",
        "from urllib.request import urlopen",
        "model = Model.from_pretrained('x')",
        "!pip install x",
        "a = 'https://x.org'",
    ],
)
def test_code_that_reaches_for_the_network_is_caught(planted, source):
    assert_caught(*planted, "no_network", add_code(source))


@pytest.mark.parametrize(
    "text", ["took 1.25 s", "31 ms per step", "<object at 0x7f00aa>", "1200 tokens/s", " 50%|█████"]
)
def test_an_unstable_output_is_caught(planted, text):
    assert_caught(*planted, "outputs_are_stable", print_line(text))


@pytest.mark.parametrize("text", ["took ≈1.25 s", "≈1200 tokens/s", "2 edges", "17%"])
def test_a_marked_number_is_stable(planted, text):
    book, name = planted
    edit(book, name, print_line(text))
    assert not found(book, "outputs_are_stable", name)


@pytest.mark.parametrize(("mark", "times"), [("# NBVAL_SKIP", 1), ("# NBVAL_IGNORE_OUTPUT", 4)])
def test_marks_that_hide_cells_are_caught(planted, mark, times):
    book, name = planted
    assert not found(book, "nothing_is_skipped")

    def hide(notebook):
        for cell in [cell for cell in notebook.cells if cell.cell_type == "code"][1 : times + 1]:
            cell["source"] = f"{mark}\n{cell.source}"

    edit(book, name, hide)
    assert found(book, "nothing_is_skipped")


def test_a_large_notebook_is_caught(planted):
    assert_caught(*planted, "is_small", print_line("x" * 400_000))


def drop(tag: str):
    """Return a change that deletes the first cell with a tag."""

    def change(notebook: Notebook) -> None:
        notebook.cells.remove(next(notebook.tagged(tag)))

    return change


def replace_in(tag: str, old: str, new: str):
    """Return a change of the text of every cell with a tag."""

    def change(notebook: Notebook) -> None:
        for cell in notebook.tagged(tag):
            cell["source"] = cell.source.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("parts_in_order", drop("lies")),
        ("parts_in_order", lambda notebook: notebook.cells.reverse()),
        ("hook_is_short", add_markdown("word " * 121)),
        ("objectives_name_exercises", replace_in("objectives", "Exercise", "Exercise 55.5 and")),
        ("objectives_name_exercises", replace_in("objectives", "- ", "")),
        ("predictions_precede_results", drop("predict")),
        ("recap_and_reading", replace_in("recap", ".", ",")),
        ("recap_and_reading", drop("reading")),
        ("exercises_are_numbered", replace_in("exercise-card", "### Exercise", "### Example")),
        ("exercises_are_numbered", drop("exercise-card")),
        ("exercises_are_complete", drop("exercise")),
        ("exercises_are_complete", drop("solution")),
        ("exercises_are_complete", replace_in("hints", "Hint 2", "Hint")),
        ("exercises_are_complete", replace_in("solution", "sc.grade", "print")),
        ("exercises_are_complete", replace_in("exercise-card", "minutes", "hours")),
        ("exercises_have_graders", replace_in("solution", '.1"', '.99"')),
        ("quiz_gives_feedback", drop("quiz")),
        ("quiz_gives_feedback", replace_in("quiz", "<details>", "<div>")),
    ],
)
def test_an_incomplete_chapter_is_caught(planted, rule, change):
    assert_caught(*planted, rule, change)


def test_a_solution_that_does_not_pass_is_caught(planted):
    def fail(notebook):
        next(notebook.tagged("solution"))["outputs"] = []

    assert_caught(*planted, "exercises_are_complete", fail)


def test_a_tolerance_narrower_than_its_spread_is_caught(planted):
    book, name = planted
    claims = json.loads((book.root / "data" / "claims.json").read_text())
    spreads = book.measurements("spreads")
    moving = next(key for key, claim in claims.items() if claim["notebook"] == name and claim["low"] < claim["high"])
    spreads[moving] |= {"max": claims[moving]["high"] + abs(claims[moving]["high"]) * 1e-3 + 1e-9}
    assert not found(book, "tolerances_are_measured")
    book.write_measurements("spreads", spreads)
    assert [finding.where for finding in found(book, "tolerances_are_measured")] == [moving]


def test_an_exact_claim_that_moves_is_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    spreads = book.measurements("spreads")
    spreads["example.edges"] |= {"min": 2}
    book.write_measurements("spreads", spreads)
    assert [finding.where for finding in found(book, "tolerances_are_measured")] == ["example.edges"]


def test_a_spread_that_was_never_measured_is_caught(planted):
    book, _ = planted
    book.write_measurements("spreads", {})
    assert len(found(book, "tolerances_are_measured")) == len(book.ledger())


def test_a_ledger_that_differs_from_the_stored_output_is_caught(planted):
    book, name = planted
    path = book.root / "data" / "claims.json"
    claims = json.loads(path.read_text())
    changed = next(key for key, claim in claims.items() if claim["notebook"] == name)
    claims[changed] |= {key: claims[changed][key] + 1 for key in ("value", "low", "high")}
    path.write_text(json.dumps(claims))
    assert [finding.where for finding in found(book, "entries_have_cells")] == [changed]


def test_a_claim_that_left_its_cell_is_caught(planted):
    book, name = planted
    claim = next(claim for claim in book.ledger() if claim.notebook == name)
    edit(book, name, lambda notebook: first(notebook, lambda cell: cell.id == claim.cell).update(id="renamed"))
    assert claim.id in [finding.where for finding in found(book, "entries_have_cells")]


def test_a_shown_claim_that_is_not_recorded_is_caught(planted):
    book, name = planted
    (book.root / "data" / "claims.json").write_text("{}")
    assert found(book, "outputs_are_recorded", name)


def test_a_result_that_does_not_clear_its_control_is_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    ledger = book.ledger()
    assert ledger["example.noise"].control == "example.flat"
    assert not found(book, "results_clear_their_controls")
    path = book.root / "data" / "claims.json"
    claims = json.loads(path.read_text())
    claims["example.flat"]["high"] = 0.95
    path.write_text(json.dumps(claims))
    assert [finding.where for finding in found(book, "results_clear_their_controls")] == ["example.noise"]


@pytest.mark.parametrize("measure", ["run_seconds", "peak_memory_mb"])
def test_a_broken_budget_is_caught(planted, measure):
    book, name = planted
    budgets = book.measurements("budgets")
    budgets[name][measure] = 1e6
    assert not found(book, "budgets_are_kept", name)
    book.write_measurements("budgets", budgets)
    assert found(book, "budgets_are_kept", name)


@pytest.mark.parametrize(
    "link",
    [
        "[x](no_such.md)",
        "[x](#no-such-heading)",
        '<a href="missing.html">x</a>',
        "![a picture](none.png)",
        "[x](/book/none.md)",
    ],
)
def test_a_broken_link_is_caught(planted, link):
    assert_caught(*planted, "links_lead_somewhere", add_markdown(link))


@pytest.mark.parametrize(
    "link", ["[x](#recap)", "[x](../book/index.md)", "[x](https://a.org/b)", "`[x](none.md)`", "[x](../book/claims.md)"]
)
def test_a_link_that_leads_somewhere_is_left_alone(executed_book, tmp_path, link):
    book = copy_book(executed_book, tmp_path / "copy")
    edit(book, "90", add_markdown(link))
    assert not found(book, "links_lead_somewhere")


@given(value=st.floats(-1e9, 1e9), decimals=st.integers(0, 6))
def test_rounding_is_that_of_exact_decimals(value, decimals):
    step = Decimal(1).scaleb(-decimals)
    expected = Decimal(repr(value)).quantize(step, rounding=ROUND_HALF_EVEN)
    assert Decimal(rounded_like(value, f"{0:.{decimals}f}")) == expected


def test_blanked_code_keeps_every_place():
    source = "a `b` c\n```python\nx = 1\n```\nd"
    blanked = without_code(source)
    assert len(blanked) == len(source)
    assert [len(line) for line in blanked.split("\n")] == [len(line) for line in source.split("\n")]
    assert blanked.split() == ["a", "c", "d"]


def test_each_rule_says_what_it_asks():
    rules = [*BOOK_RULES, *NOTEBOOK_RULES]
    assert len({rule.__name__ for rule in rules}) == len(rules)
    assert all(rule.__doc__ for rule in rules)


def test_the_command_lists_findings_and_fails(executed_book, tmp_path, monkeypatch, capsys):
    book = copy_book(executed_book, tmp_path / "copy")
    register_graders()
    monkeypatch.setattr("book_tools.linters.Book", lambda: copy.copy(book))
    assert lint([]) == 0
    edit(book, "90", change_number)
    assert lint(["--only", "bold_numbers_are_claims"]) == 1
    shown = capsys.readouterr()
    assert "the text says '4', but claim 'example.edges' is 3; write 3" in shown.err
    assert shown.out.endswith("1 findings\n")
