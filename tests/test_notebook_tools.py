"""Notebook tooling, run for real: kernels, nbval in a process of its own, generated parts, spreads, the claims page."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from book_tools import claims_page, notebooks
from book_tools.cells import duration, memory, name_cells, setup_cell_source, synchronise
from book_tools.execution import Conditions, run_notebook
from book_tools.project import ROOT, Book, Notebook
from book_tools.spreads import conditions, label, measure
from bs4 import BeautifulSoup
from example_book import NAME, SANITIZER, chapter, code, copy_book, make_book, text
from nbclient.exceptions import CellExecutionError
from sparse_circuits.claims import LEDGER_VARIABLE

NBVAL = ("--nbval", "--nbval-sanitize-with", str(SANITIZER), "--nbval-cell-timeout", "120")


def nbval(book: Book, threads: int = 1) -> subprocess.CompletedProcess:
    """Check the notebooks of a book as `make test` does, against the book's own ledger."""
    environment = os.environ | Conditions(threads=threads).environment()
    environment[LEDGER_VARIABLE] = str(book.root / "data" / "claims.json")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *NBVAL, "notebooks/"]
    return subprocess.run(command, cwd=book.root, env=environment, capture_output=True, text=True)


def first(notebook: Notebook, words: str) -> nbformat.NotebookNode:
    """Return the first cell whose source contains `words`."""
    return next(cell for cell in notebook.cells if words in cell.source)


@pytest.mark.slow
def test_the_stored_outputs_come_out_again_and_a_marked_number_may_move(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    notebook = book.notebooks()[0]
    for output in first(notebook, "example.noise").outputs:
        for kind in {"text/plain", "text/html"} & set(output.get("data", {})):
            output.data[kind] = re.sub(r"≈0\.99\d\d", "≈0.9876543", output.data[kind])
    notebook.write()
    assert "≈0.9876543" in nbformat.writes(notebook.node)
    run = nbval(book, threads=2)
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
def test_a_changed_library_result_and_a_changed_output_are_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    library = book.root / "notebooks" / "example_library.py"
    library.write_text(library.read_text().replace("weights != 0", "weights > 1"))
    notebook = book.notebooks()[0]
    first(notebook, 'sc.grade("90.1"').outputs[0]["data"]["text/plain"] = "something else"
    notebook.write()
    run = nbval(book)
    assert run.returncode == 1
    assert "measured 2, but the ledger allows 3 to 3" in run.stdout
    assert "something else" in run.stdout


@pytest.mark.slow
def test_changed_data_behind_a_picture_are_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    notebook = book.notebooks()[0]
    cell = first(notebook, "ax.bar(")
    cell["source"] = cell.source.replace(
        'ax.bar(data["matrix"], data["edges"])', 'ax.bar(data["matrix"], data["edges"] + 1)'
    )
    notebook.write()
    run = nbval(book)
    assert run.returncode == 1
    assert "a bar of the figure draws" in run.stdout
    assert "its table does not hold these numbers" in run.stdout


@pytest.mark.slow
def test_a_changed_library_is_caught_by_the_first_chapter(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "lib" / "sparse_circuits", tmp_path / "lib" / "sparse_circuits")
    (tmp_path / "data").symlink_to(ROOT / "data")
    graph = tmp_path / "lib" / "sparse_circuits" / "graph.py"
    counted = "return count(self.edge_masks)"
    assert counted in graph.read_text()
    graph.write_text(graph.read_text().replace(counted, f"{counted} + 1"))
    (tmp_path / "notebooks").mkdir()
    shutil.copy(Book().notebooks(["00"])[0].path, tmp_path / "notebooks")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    run = nbval(Book(tmp_path))
    assert run.returncode == 1
    assert "AssertionError" in run.stdout
    assert "quotes.circuit.edges" in run.stdout


def test_executing_records_claims_where_they_are_made(executed_book):
    notebook = executed_book.notebooks()[0]
    ledger = executed_book.ledger()
    made = {name: cell.id for name, cell in notebook.claims()}
    assert {claim.id: claim.cell for claim in ledger} == made
    assert {claim.notebook for claim in ledger} == {NAME}
    assert ledger["example.edges"].value == 3
    budget = executed_book.measurements("budgets")[NAME]
    assert budget["run_seconds"] > 0
    assert 50 < budget["peak_memory_mb"] < 4000


def test_executing_leaves_nothing_to_synchronise(executed_book):
    notebook = executed_book.notebooks()[0]
    assert not notebooks.differs(executed_book, notebook)
    card = next(notebook.tagged("card")).source
    budget = executed_book.measurements("budgets")[NAME]
    assert card.startswith("# 90 · An example\n")
    assert f"| {duration(budget['run_seconds'])} | {memory(budget['peak_memory_mb'])} | 3 |" in card
    assert "https://colab.research.google.com/github/someone/a-book/blob/main/notebooks/90_example.ipynb" in card
    assert "git+https://github.com/someone/a-book" in next(notebook.tagged("setup")).source


def test_a_figure_gets_its_alt_text_from_the_call(executed_book):
    cell = first(executed_book.notebooks()[0], "sc.plots.show")
    assert cell.metadata.mystnb.image.alt.startswith("Bar chart of the edges")


def test_a_failing_cell_writes_nothing(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    notebook = book.notebooks()[0]
    notebook.cells.insert(1, code(None, "raise RuntimeError('planted')"))
    notebook.write()
    before = {path: path.read_bytes() for path in book.root.glob("**/*.*") if path.is_file()}
    with pytest.raises(CellExecutionError, match="planted"):
        notebooks.execute(book, notebook)
    assert {path: path.read_bytes() for path in before} == before


def test_a_claim_of_another_chapter_is_refused(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    notebook = book.notebooks()[0]
    other = Notebook(notebook.path.with_name("91_other.ipynb"), copy.deepcopy(notebook.node))
    with pytest.raises(ValueError, match=r"'example\.edges' is made in 90_example too"):
        notebooks.merge_claims(book, other, notebooks.Run(book.ledger(), 1.0, None))


def test_a_claim_without_its_line_is_refused(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    notebook = book.notebooks()[0]
    first(notebook, 'example.edges", ')["outputs"] = []
    with pytest.raises(ValueError, match="shows no line"):
        notebooks.merge_claims(book, notebook, notebooks.Run(book.ledger(), 1.0, None))


def tiny_notebook(tmp_path) -> Notebook:
    """Return a notebook that loads nothing heavy: one claim moves with the seed, one does not."""
    source = """
import os
import sparse_circuits as sc
sc.claim("tiny.exact", 10 * sc.chapter_seed(), how="ten seeds")
sc.claim("tiny.moving", sc.chapter_seed() / 10, tolerance=0.5, how="a tenth of a seed")
print(sc.chapter_seed(), os.environ["OMP_NUM_THREADS"], os.environ.get("SPARSE_CIRCUITS_STDLIB"))
"""
    return Notebook(tmp_path / "tiny.ipynb", nbformat.v4.new_notebook(cells=[code(None, source)]))


def test_a_run_sees_its_seed_threads_and_library(tmp_path):
    notebook = tiny_notebook(tmp_path)
    run_notebook(notebook, Conditions(seed=4, threads=2, stdlib="elsewhere"))
    assert notebook.cells[0].outputs[-1].text == "4 2 elsewhere\n"


def test_a_spread_holds_every_run_of_a_claim_that_may_move(tmp_path):
    notebook = tiny_notebook(tmp_path)
    spreads = measure(notebook, [Conditions(seed=2), Conditions(threads=2)])
    moving = {"min": 0.0, "max": 0.2, "how": "a tenth of a seed"}
    assert spreads["tiny.moving"] == moving | {"runs": {"seed 2, 1 thread": 0.2, "seed 0, 2 threads": 0.0}}
    assert spreads["tiny.exact"]["runs"] == {"seed 0, 2 threads": 0}
    assert not notebook.cells[0].outputs


def test_synchronising_is_idempotent_and_leaves_text_alone(tmp_path):
    book = make_book(tmp_path / "book")
    notebook = book.notebooks()[0]
    synchronise(book, notebook)
    once = nbformat.writes(notebook.node)
    synchronise(book, notebook)
    assert nbformat.writes(notebook.node) == once
    original = [cell.source for cell in chapter().cells if not {"card", "setup"} & set(cell.metadata.get("tags", []))]
    kept = [cell.source for cell in notebook.cells if not {"card", "setup"} & set(cell.metadata.get("tags", []))]
    assert kept == original
    assert next(notebook.tagged("setup")).source == setup_cell_source(book)


def test_ids_drawn_at_random_become_readable_and_chosen_ids_stay():
    cells = [
        text("hook", "## A start"),
        code(None, "1"),
        code(None, "2"),
        text("exercise-card", "### Exercise 90.1 · T"),
    ]
    cells.append(code("exercise", "answer = ..."))
    cells[1]["id"] = "my-own-name"
    node = nbformat.v4.new_notebook(cells=cells)
    name_cells(Notebook(None, node))
    assert [cell.id for cell in cells] == [
        "hook",
        "my-own-name",
        "a-start-code",
        "exercise-90-1-card",
        "exercise-90-1-stub",
    ]


def test_a_notebook_without_set_up_or_metadata_is_refused(tmp_path):
    book = make_book(tmp_path / "book")
    notebook = book.notebooks()[0]
    del notebook.node.metadata["sparse_circuits"]["title"]
    with pytest.raises(ValueError, match=r"lacks \['title'\]"):
        synchronise(book, notebook)
    notebook.cells.remove(next(notebook.tagged("setup")))
    with pytest.raises(ValueError, match="no cell tagged 'setup'"):
        synchronise(book, notebook)


def test_names_select_notebooks(tmp_path):
    book = make_book(tmp_path / "book")
    assert [notebook.name for notebook in book.notebooks(["90"])] == [NAME]
    assert [notebook.name for notebook in book.notebooks([f"notebooks/{NAME}.ipynb"])] == [NAME]
    with pytest.raises(ValueError, match="no notebook starts with '91'"):
        book.notebooks(["91"])
    (book.root / "notebooks" / "92_broken.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"92_broken\.ipynb is not a notebook"):
        book.notebooks()


def test_the_check_of_generated_parts_fails_until_they_are_written(tmp_path, monkeypatch, capsys):
    book = make_book(tmp_path / "book")
    monkeypatch.setattr(notebooks, "Book", lambda: book)
    assert notebooks.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert notebooks.main(["--sync", "90"]) == 0
    assert notebooks.main(["--check"]) == 0


def test_spreads_are_taken_over_seeds_threads_and_libraries():
    cases = conditions(stdlibs=[str(Path(os.__file__).parent)])
    assert [label(case) for case in cases[:6]] == [
        *(f"seed {seed}, 1 thread" for seed in range(5)),
        "seed 0, 2 threads",
    ]
    assert label(cases[6]).startswith("seed 0, 1 thread, library of python3")
    with pytest.raises(ValueError, match="holds no standard library"):
        conditions(stdlibs=["no_such_folder"])


def test_the_claims_page_links_each_claim_to_its_cell(executed_book):
    page = BeautifulSoup(claims_page.page(executed_book), "html.parser")
    anchors = {f"claim-{name}" for name, _ in executed_book.notebooks()[0].claims()}
    links = {link["id"]: link["href"] for link in page.find_all("a", id=True)}
    assert links == {anchor: f"../notebooks/{NAME}.html#{anchor}" for anchor in anchors}
    assert "non-zero weights | 3 | exact | 3 in 1 run |" in str(page)


def test_the_claims_page_of_an_empty_ledger_stands(tmp_path):
    assert claims_page.page(make_book(tmp_path / "book")).endswith("No chapter has recorded a claim yet.\n")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "not yet measured"), (0.2, "1 s"), (41.4, "41 s"), (125, "2 min 5 s")]
)
def test_durations_are_written_in_one_way(seconds, shown):
    assert duration(seconds) == shown


def test_memory_is_written_in_gigabytes():
    assert [memory(None), memory(812)] == ["not yet measured", "0.8 GB"]
