"""Make the students' notebooks: the same chapters without solutions and without outputs, checked for leaks.

    python -m book_tools.student             build `_build/student/`: the notebooks, and a zip of them
    python -m book_tools.student --publish   build, then push the folder to the branch `student` of `origin`

Outputs are cleared everywhere. Those of the exercises show what the solutions gave, those of the chapter answer the
questions that its predictions ask, and a student who runs a cell gets its output anyway. Hints, cards and the set-up
cell stay. The build stops, and leaves nothing behind, when a line of a solution stands anywhere in it.
"""

from __future__ import annotations

import argparse
import ast
import copy
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from book_tools.cells import card_source, launch_links
from book_tools.leaks import Leak, leaks_in, secrets_of_all
from book_tools.project import Book, Notebook, tags, without_magics
from book_tools.publish import push_folder

BRANCH = "student"
ARCHIVE = "sparse-circuits-student.zip"
# What belongs to the outputs or to the solutions of the source: the text of a picture tells what it shows.
DROPPED_METADATA = ("mystnb", "execution", "lines_to_next_cell")
LICENCES = ("LICENSE", "LICENSE-TEXT")
EDITION = "This is the students' edition: it has the exercises with their hints, and no solutions."
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


class StudentBook(Book):
    """The book whose launch links lead to the students' notebooks."""

    branch = BRANCH


class BuildError(Exception):
    """The students' notebooks cannot be made as they should be; the message says why."""


def student_notebook(book: Book, notebook: Notebook, folder: Path) -> Notebook:
    """Return the student's form of a notebook, to be written to `folder`; the notebook given is not changed.

    Raises
    ------
    BuildError
        If a cell that stays uses a name which only a solution defines.
    """
    needed = sorted(names_from_solutions(notebook))
    if needed:
        raise BuildError(
            f"{notebook.path.name}: {', '.join(needed)} is defined in a solution and used outside of one; "
            "define it in a cell that students have."
        )
    node = copy.deepcopy(notebook.node)
    student = Notebook(folder / notebook.path.name, node)
    node.cells = [cell for cell in node.cells if "solution" not in tags(cell)]
    for cell in node.cells:
        for key in DROPPED_METADATA:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
    home = StudentBook(book.root)
    # Binder builds its machine from files that the students' branch does not have.
    links = {label: address for label, address in launch_links(home, student).items() if "Binder" not in label}
    next(student.tagged("card"))["source"] = f"{card_source(book, notebook, links)}\n\n{EDITION}"
    return student


def names_from_solutions(notebook: Notebook) -> set[str]:
    """Return the names that only solutions define and that another cell uses."""
    only: set[str] = set()
    kept: set[str] = set()
    used: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            stored, loaded = _names(cell.source)
            if "solution" in tags(cell):
                only |= stored
            else:
                kept |= stored
                used |= loaded
    return (only - kept) & used


def _names(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell defines and those that it uses."""
    tree = ast.parse(without_magics(source))
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            stored.add(node.name)
        elif isinstance(node, ast.arg):
            stored.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            stored |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return stored, loaded


def find_leaks(book: Book, folder: Path) -> Iterator[Leak]:
    """Yield every line of a solution of the book that stands in a folder."""
    yield from leaks_in(folder, secrets_of_all(book.notebooks()))


def build(book: Book, folder: Path) -> list[Path]:
    """Write the students' notebooks, the licences and the zip to `folder` and return the notebooks written.

    Raises
    ------
    BuildError
        If a line of a solution stands in the build, or a student's notebook could not run; the folder is then gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    written = []
    try:
        for notebook in book.notebooks():
            student = student_notebook(book, notebook, folder / "notebooks")
            student.write()
            written.append(student.path)
        for name in LICENCES:
            if (book.root / name).exists():
                shutil.copyfile(book.root / name, folder / name)
        _pack(folder)
        leaks = list(find_leaks(book, folder))
        if leaks:
            raise BuildError("\n".join(map(str, leaks)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return written


def _pack(folder: Path) -> None:
    """Write the zip of everything in the folder; the same content gives the same bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), FIXED_DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.student", description=__doc__.split("\n")[0])
    parser.add_argument("--publish", action="store_true", help=f"push the folder to the branch {BRANCH!r} of origin")
    publish = parser.parse_args(arguments).publish
    book = Book()
    folder = book.root / "_build" / "student"
    try:
        written = build(book, folder)
    except (BuildError, ValueError) as error:
        print(f"student: nothing was built.\n{error}", file=sys.stderr)
        return 1
    print(f"student: {len(written)} notebooks without solutions in {folder.relative_to(book.root)}, and {ARCHIVE}")
    if publish:
        commit = push_folder(book.root, folder, BRANCH, "The students' notebooks, generated from the chapters")
        print(f"student: pushed as {commit[:12]} to the branch {BRANCH}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
