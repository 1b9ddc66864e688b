"""A new chapter from the scaffold: complete, graded, executable, and never over something that is there."""

import os
import shutil
import subprocess
import sys

import pytest
from book_tools import notebooks, scaffold
from book_tools.linters import findings
from book_tools.project import ROOT, Book
from book_tools.scaffold import file_name, planned_needs
from book_tools.skeleton import OPEN
from book_tools.student import build
from example_book import copy_book
from nbformat import validate
from planting import assert_caught

TITLE = "Training with almost all weights zero"
NUMBER = "87"
# What the skeleton keeps before it has been executed.
RULES = (
    "parts_in_order",
    "hook_is_short",
    "objectives_name_exercises",
    "predictions_precede_results",
    "lies_are_runnable",
    "recap_and_reading",
    "exercises_are_numbered",
    "quiz_gives_feedback",
    "no_myst",
)


@pytest.fixture
def book(tmp_path) -> Book:
    return copy_book(Book(), tmp_path / "copy")


@pytest.fixture
def begun(book, monkeypatch):
    """A copy of the book in which a chapter was begun."""
    monkeypatch.setattr(scaffold, "Book", lambda: book)
    assert scaffold.main([NUMBER, TITLE, "--needs", "00", "01"]) == 0
    return book


def test_the_skeleton_has_every_part_and_is_synchronised(begun, monkeypatch):
    (notebook,) = begun.notebooks([NUMBER])
    validate(notebook.node)
    assert notebook.path.name == "87_training_with_almost_all_weights_zero.ipynb"
    assert notebook.chapter["needs"] == ["00", "01"]
    assert next(notebook.tagged("card")).source.startswith(f"# 87 · {TITLE}\n")
    before = notebook.path.read_bytes()
    monkeypatch.setattr(notebooks, "Book", lambda: begun)
    assert notebooks.main(["--check", NUMBER]) == 0
    assert notebooks.main(["--sync", NUMBER]) == 0
    assert notebook.path.read_bytes() == before
    for rule in RULES:
        assert not [finding for finding in findings(begun, rule) if finding.file == notebook.path.name], rule


def test_what_is_left_of_the_scaffold_is_found(begun):
    (notebook,) = begun.notebooks([NUMBER])
    left = list(findings(begun, "nothing_is_left_of_the_scaffold"))
    assert {finding.file for finding in left} == {notebook.path.name}
    assert len(left) == sum(cell.source.count(OPEN) for cell in notebook.cells) > 20


def test_a_placeholder_in_a_finished_chapter_is_found(planted):
    def leave(notebook):
        next(notebook.tagged("hook"))["source"] += "\n\n‹Say why.›"

    assert_caught(*planted, "nothing_is_left_of_the_scaffold", leave)


def test_nothing_is_overwritten(begun, capsys):
    written = {path: path.read_bytes() for path in begun.root.rglob("*") if path.is_file()}
    assert scaffold.main([NUMBER, "Another title"]) == 1
    assert "chapter 87 has begun: notebooks/87_training_with" in capsys.readouterr().err
    begun.notebooks([NUMBER])[0].path.unlink()
    assert scaffold.main([NUMBER, "Another title"]) == 1
    assert "lib/sparse_circuits/graders/chapter_87.py, tests/test_graders_87.py" in capsys.readouterr().err
    assert not list(begun.root.glob("notebooks/87_*"))
    left = {path: path.read_bytes() for path in begun.root.rglob("*") if path.is_file()}
    assert written.items() >= left.items()


@pytest.mark.parametrize(("number", "title"), [("4", TITLE), ("004", TITLE), ("4a", TITLE), ("04", " "), ("04", "42")])
def test_a_number_or_title_that_is_none_is_refused(book, number, title, monkeypatch, capsys):
    monkeypatch.setattr(scaffold, "Book", lambda: book)
    assert scaffold.main([number, title]) == 1
    assert "give " in capsys.readouterr().err
    assert len(book.notebooks()) == len(Book().notebooks())


def test_what_a_planned_chapter_needs_is_read_from_the_plan(book):
    assert planned_needs(book, "01") == ["00"]
    assert planned_needs(book, NUMBER) == []


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Können wir? Ja!", "05_konnen_wir_ja.ipynb"),
        ("word " * 20, "05_word_word_word_word_word_word_word_word.ipynb"),
        ("x" * 60, f"05_{'x' * 40}.ipynb"),
    ],
)
def test_a_notebook_is_named_after_its_title(title, name):
    assert file_name("05", title) == name


def test_students_get_the_skeleton_without_its_solutions(begun, tmp_path):
    (student,) = [path for path in build(begun, tmp_path / "student") if path.name.startswith(NUMBER)]
    assert "vital_edge" in begun.notebooks([NUMBER])[0].path.read_text()
    assert "vital_edge" not in student.read_text()


@pytest.mark.slow
def test_the_skeleton_passes_its_tests_runs_and_lacks_only_its_text(tmp_path):
    """The commands of CONTRIBUTING.md in a copy of the repository, up to the writing."""
    for name in ("_config.yml", "pyproject.toml", "book/routes.yml", "notebooks/ruff.toml", "tests/helpers.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "lib")}
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    notebook, graders = f"notebooks/{file_name(NUMBER, TITLE)}", f"lib/sparse_circuits/graders/chapter_{NUMBER}.py"
    written = (notebook, graders, f"tests/test_graders_{NUMBER}.py")
    for step in (
        ("book_tools.scaffold", NUMBER, TITLE, "--needs", "01"),
        ("ruff", "check", *written),
        ("ruff", "format", "--check", *written),
        ("pytest", "-q", "-p", "no:cacheprovider", f"tests/test_graders_{NUMBER}.py"),
        ("book_tools.notebooks", "--execute", NUMBER),
    ):
        finished = run(*step)
        assert finished.returncode == 0, f"{step}: {finished.stdout}{finished.stderr}"
    found = run("book_tools.linters").stderr.splitlines()
    about_it = [line for line in found if line.startswith((notebook.removeprefix("notebooks/"), "claims.json"))]
    assert about_it
    expected = ("still has the scaffold's", "its spread was never measured", "plan")
    assert [line for line in about_it if not any(words in line for words in expected)] == []
