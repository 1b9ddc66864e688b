"""The status page: measured figures, versions, and a word on testing that is true of this very build."""

import shutil
import subprocess
import sys

import pytest
from book_tools import check, status_page
from book_tools.generated import write_pages
from book_tools.project import GENERATED_PAGES, ROOT, Book
from book_tools.verification import REPORT, Revision, Verification
from example_book import copy_book, make_book


@pytest.fixture
def repository(tmp_path) -> Book:
    """A small book in a git repository of its own, with one commit and nothing changed since."""
    book = make_book(tmp_path / "book")
    (book.root / ".gitignore").write_text("_build/\nbook/status.md\n")
    commit(book, "init", "--quiet")
    commit(book, "add", ".")
    commit(book, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message=one")
    return book


def commit(book: Book, *arguments: str) -> None:
    subprocess.run(["git", "-C", book.root, *arguments], check=True, capture_output=True)


def verify(book: Book, **changes: object) -> None:
    """Leave the report of a complete run of what is checked out."""
    revision = Revision.of(book.root)
    fields = {"commit": revision.commit, "changed": revision.changed, "finished": "2026-11-22 10:00 UTC"}
    fields |= {"passed": 1200, "failed": 0, "skipped": 3, "seconds": 601}
    Verification(**(fields | changes)).save(book.root)


def test_a_tested_commit_is_shown_with_its_counts(repository):
    verify(repository)
    shown = status_page.verified(repository)
    assert Revision.of(repository.root).commit[:12] in shown
    assert "tested in full on 2026-11-22 10:00 UTC: 1200 passed, 0 failed, 3 skipped in 10 min 1 s" in shown
    assert status_page.NOT_TESTED not in shown


def test_without_a_run_the_page_says_so(repository):
    assert status_page.verified(repository) == status_page.NOT_TESTED


@pytest.mark.parametrize("changes", [{"commit": "0" * 40}, {"changed": True}])
def test_a_run_of_something_else_does_not_count(repository, changes):
    verify(repository, **changes)
    shown = status_page.verified(repository)
    assert shown.startswith(status_page.NOT_TESTED)
    assert "The last complete run here was of" in shown


def test_a_file_changed_since_the_run_makes_it_void(repository):
    verify(repository)
    (repository.root / "book" / "index.md").write_text("# Another book\n")
    assert status_page.verified(repository).startswith(status_page.NOT_TESTED)


def test_a_damaged_report_counts_as_none(repository):
    verify(repository)
    (repository.root / REPORT).write_text('{"commit": 1')
    assert status_page.verified(repository) == status_page.NOT_TESTED


@pytest.mark.parametrize("missing", ["git", "repository"])
def test_the_page_stands_without_git(repository, monkeypatch, missing):
    verify(repository)
    if missing == "git":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    else:
        shutil.rmtree(repository.root / ".git")
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.root.parent))
    assert Revision.of(repository.root) == Revision("", False)
    assert status_page.page(repository).count(status_page.NOT_TESTED) == 1


@pytest.mark.parametrize("names", [[], ["good"]])
def test_only_a_complete_run_leaves_a_report(repository, monkeypatch, capsys, names):
    steps = [
        check.Step("good", (sys.executable, "-c", "pass")),
        check.Step("bad", (sys.executable, "-c", "raise SystemExit(3)")),
    ]
    monkeypatch.setattr(check, "STEPS", steps)
    monkeypatch.setattr(check, "ROOT", repository.root)
    monkeypatch.setattr(check, "REPORTS", repository.root / "_build" / "reports")
    assert check.main(names) == (0 if names else 1)
    report = Verification.last(repository.root)
    if names:
        assert report is None
    else:
        assert (report.passed, report.failed, report.skipped) == (1, 1, 0)
        assert report.speaks_of(Revision.of(repository.root))


def test_every_figure_of_a_chapter_comes_from_its_metadata_and_measurements(tmp_path):
    book = copy_book(Book(), tmp_path / "copy")
    notebook = book.notebooks()[0]
    budgets = {"run_seconds": 61.0, "peak_memory_mb": 1234, "measured": "2001-02-03", "python": "3.99", "processors": 7}
    book.write_measurements("budgets", {notebook.name: budgets})
    notebook.chapter.update(run_budget_seconds=120, memory_budget_mb=2600)
    notebook.write()
    costs, measured = next(status_page.costs(book)), next(status_page.measurements(book))
    claims = sum(claim.notebook == notebook.name for claim in book.ledger())
    assert notebook.path.name in costs[0]
    shown = [cell.replace(status_page.NO_BREAK, " ") for cell in costs[1:]]
    assert shown == ["1 min 1 s", "2 min 0 s", "1.2 GB", "2.6 GB", str(claims)]
    assert measured == [costs[0], "2001-02-03", "3.99", "CPU, 7 processors"]


def test_the_main_packages_are_in_the_lock():
    locked = dict(status_page.versions(Book()))
    assert list(locked) == list(status_page.MAIN_PACKAGES)
    assert f"torch=={locked['torch']}" in (ROOT / "requirements.lock").read_text()


def test_generated_pages_are_written_and_not_committed(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    write_pages(book)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for name in GENERATED_PAGES:
        assert (book.root / "book" / name).read_text().startswith("# ")
        assert f"book/{name}" in ignored
    assert not {page.name for page in book.pages()} & set(GENERATED_PAGES)
