"""Planted errors in prose, cells and outputs: in a copy of the example book and of every real chapter."""

import copy
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from book_tools.linters import BOOK_RULES, NOTEBOOK_RULES, findings
from book_tools.linters import main as lint
from book_tools.project import Book
from book_tools.rules import without_code
from book_tools.rules.prose import rounded_like
from example_book import copy_book, register_graders
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_output
from planting import (
    add_code,
    add_markdown,
    assert_caught,
    change_number,
    edit,
    first,
    first_code,
    first_figure,
    found,
    print_line,
)


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


@pytest.mark.parametrize("text", ["/home/ada/book/x.py", "/tmp/ipykernel_1/2.py", r"C:\Users\ada"])
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
