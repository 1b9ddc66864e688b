"""The students' notebooks: nothing of a solution is in them, whatever the place, and they run from top to bottom."""

import ast
import html
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import nbformat
import pytest
from book_tools import student
from book_tools.cells import setup_cell_source
from book_tools.execution import run_notebook
from book_tools.leaks import leaks_in, leaks_in_text, lines_of, secrets_of, secrets_of_all
from book_tools.project import ROOT, Book, Notebook, tags
from book_tools.publish import push_folder
from book_tools.student import ARCHIVE, BuildError, build, find_leaks
from example_book import code, copy_book, text

BOOK = Book()
FIRST = BOOK.notebooks()[0]
LEAKED = "attention = (4 * keys).softmax(0)"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The students' build of the real book."""
    folder = tmp_path_factory.mktemp("student") / "student"
    build(BOOK, folder)
    return folder


@pytest.fixture
def copied(built, tmp_path) -> Path:
    """A copy of the build to plant a leak in."""
    return Path(shutil.copytree(built, tmp_path / "student"))


def strings(value: object):
    """Yield every text of a JSON value, lists of lines joined or not."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.items():
            yield from strings(list(item))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def texts_of(folder: Path):
    """Yield everything that can be read in a folder and in its archives."""
    contents = [(path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    for name, content in contents:
        if name.endswith(".zip"):
            with zipfile.ZipFile(folder / name) as archive:
                contents.extend((member, archive.read(member)) for member in archive.namelist())
        elif name.endswith(".ipynb"):
            yield from strings(json.loads(content))
        else:
            yield content.decode()


def test_no_line_of_any_solution_is_in_the_build(built):
    """Looks for the lines in another way than the build does: by equality of lines, over all places at once."""
    shown = {line.strip() for part in texts_of(built) for line in html.unescape(part).splitlines()}
    kept = [cell.source for notebook in BOOK.notebooks() for cell in notebook.cells if "solution" not in tags(cell)]
    known = {line.strip() for source in kept for line in source.splitlines()}
    solutions = 0
    for notebook in BOOK.notebooks():
        for cell in notebook.tagged("solution"):
            lines = {line.strip() for line in cell.source.splitlines()} - known
            assert not lines & shown
            assert len(lines) >= 2, f"{cell.id} would not be noticed"
            solutions += 1
    assert solutions >= 4 * len(BOOK.notebooks())
    assert not list(find_leaks(BOOK, built))


def test_nearly_every_line_of_the_solutions_is_looked_for_everywhere():
    secrets = [secret for notebook in BOOK.notebooks() for secret in secrets_of(notebook)]
    cells = [cell for notebook in BOOK.notebooks() for cell in notebook.tagged("solution")]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert sum(secret.telling for secret in secrets) > 0.6 * len(lines)


def edit(folder: Path, change) -> str:
    """Change the students' form of the first chapter in a copy of the build; return its place."""
    path = folder / "notebooks" / FIRST.path.name
    notebook = Notebook.read(path)
    change(notebook)
    notebook.write()
    return f"notebooks/{path.name}"


def in_markdown(notebook):
    notebook.cells[1]["source"] += f"\n\nThink of `{LEAKED}`."


def in_code(notebook):
    next(notebook.tagged("setup"))["source"] += f"\n    {LEAKED}  # as above"


def in_code_laid_out_otherwise(notebook):
    next(notebook.tagged("setup"))["source"] += f"\n{LEAKED.replace(' ', chr(10) + '    ')}"


def in_an_output(notebook):
    output = nbformat.v4.new_output("stream", name="stdout", text=f"{LEAKED}\n")
    next(notebook.tagged("setup"))["outputs"] = [output]


def in_html_output(notebook):
    line = html.escape('double_prompts = [p for p in prompts if p.group == "double"]')
    output = nbformat.v4.new_output("display_data", data={"text/html": f"<pre>{line}</pre>"})
    next(notebook.tagged("setup"))["outputs"] = [output]


def in_metadata_of_a_cell(notebook):
    notebook.cells[1].metadata["source"] = LEAKED


def in_metadata_of_the_notebook(notebook):
    notebook.node.metadata["answers"] = {"00.1": [LEAKED]}


def the_whole_cell(notebook):
    notebook.cells.append(next(FIRST.tagged("solution")))


PLANTED = [
    in_markdown, in_code, in_code_laid_out_otherwise, in_an_output, in_html_output, in_metadata_of_a_cell,
    in_metadata_of_the_notebook, the_whole_cell,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_leak_is_found_and_named(copied, plant):
    place = edit(copied, plant)
    found = [str(leak) for leak in find_leaks(BOOK, copied)]
    assert found
    assert all(sentence.startswith(f"{place}, ") for sentence in found)
    assert any("a line of the solution of exercise 00." in sentence for sentence in found)
    assert any(LEAKED in sentence or "double_prompts" in sentence for sentence in found)


def test_a_leak_in_the_zip_or_beside_the_notebooks_is_found(copied):
    with zipfile.ZipFile(copied / ARCHIVE, "a") as archive:
        archive.writestr("notebooks/answers.txt", LEAKED)
    (copied / "answers.py").write_text(f"def head(x):\n    {LEAKED}\n")
    found = [str(leak) for leak in find_leaks(BOOK, copied)]
    assert [sentence.split(" holds ")[0] for sentence in found] == ["answers.py", f"{ARCHIVE}: notebooks/answers.txt"]


def add_to_solution(line: str):
    """Return the first chapter with one more line at the end of its first solution."""
    notebook = Notebook.read(FIRST.path)
    next(notebook.tagged("solution"))["source"] += f"\n{line}"
    return notebook


def test_comments_of_a_solution_are_secret_on_their_own(tmp_path):
    notebook = add_to_solution("x = 1  # the values are half of channel ten")
    (tmp_path / "hint.md").write_text("Remember that the values are half of channel ten, always.")
    assert [leak.secret.line for leak in leaks_in(tmp_path, secrets_of(notebook))] == [
        "the values are half of channel ten"
    ]


def test_what_the_reader_has_anyway_is_no_secret():
    stub = next(FIRST.tagged("exercise")).source
    lines = {secret.line for secret in secrets_of(add_to_solution("with torch.no_grad():\n    pass"))}
    assert lines.isdisjoint(lines_of(stub))
    assert lines.isdisjoint({"pass", ")", "]", "}"})
    assert {LEAKED, "def head_by_hand(x):", "with torch.no_grad():"} <= lines
    idioms = Notebook.read(FIRST.path)
    idioms.cells[:0] = [code(None, "with torch.no_grad():\n    1"), code(None, "with torch.no_grad():\n    2")]
    next(idioms.tagged("solution"))["source"] += "\nwith torch.no_grad():\n    pass"
    assert "with torch.no_grad():" not in {secret.line for secret in secrets_of(idioms)}


def test_a_line_that_another_chapter_teaches_is_no_secret():
    other = BOOK.notebooks()[1]
    assert LEAKED in {secret.line for secret in secrets_of_all([FIRST, other])}
    other.cells.append(code(None, LEAKED))
    assert LEAKED not in {secret.line for secret in secrets_of_all([FIRST, other])}
    assert LEAKED in {secret.line for secret in secrets_of_all([FIRST])}


def test_a_leak_in_the_source_stops_the_build_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    book = copy_book(BOOK, tmp_path / "copy")
    notebook = book.notebooks()[0]
    folder = book.root / "_build" / "student"
    monkeypatch.setattr(student, "Book", lambda: book)
    assert student.main([]) == 0
    assert len(list(folder.glob("notebooks/*.ipynb"))) == len(BOOK.notebooks())
    next(notebook.tagged("hook"))["source"] += f"\n\n    {LEAKED}"
    notebook.write()
    assert student.main([]) == 1
    assert f"cell hook holds a line of the solution of exercise 00.1: {LEAKED!r}" in capsys.readouterr().err
    assert not folder.exists()


def test_a_name_that_only_a_solution_defines_stops_the_build(tmp_path):
    book = copy_book(BOOK, tmp_path / "copy")
    notebook = book.notebooks()[0]
    next(notebook.tagged("solution"))["source"] += "\nneeded_later = 1"
    notebook.cells.append(code(None, "print(needed_later)"))
    notebook.write()
    with pytest.raises(BuildError, match=r"00_a_circuit_you_can_hold\.ipynb: needed_later is defined in a solution"):
        build(book, tmp_path / "student")


@pytest.mark.parametrize("source", BOOK.notebooks(), ids=lambda notebook: notebook.name)
def test_everything_but_solutions_and_outputs_is_kept(built, source):
    made = Notebook.read(built / "notebooks" / source.path.name)
    nbformat.validate(made.node)
    assert made.node.metadata == source.node.metadata
    kept = [cell for cell in source.cells if "solution" not in tags(cell)]
    assert [cell.id for cell in made.cells] == [cell.id for cell in kept]
    changed = [tags(a) for a, b in zip(made.cells, kept, strict=True) if a.source != b.source]
    assert changed == [["card"]]
    assert next(made.tagged("setup")).source == setup_cell_source(BOOK)
    hints = [cell.source.count("<details><summary>Hint") for cell in made.tagged("hints")]
    assert hints == [3] * len(list(source.tagged("exercise")))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in made.cells if cell.cell_type == "code")
    assert not any("mystnb" in cell.metadata for cell in made.cells)


def test_the_card_leads_to_the_students_notebook(built):
    card = next(Notebook.read(built / "notebooks" / FIRST.path.name).tagged("card")).source
    original = next(FIRST.tagged("card")).source
    assert card.splitlines()[:4] == original.splitlines()[:4]
    path = f"notebooks/{FIRST.path.name}"
    owner = BOOK.repository.removeprefix("https://github.com/")
    assert f"(https://colab.research.google.com/github/{owner}/blob/student/{path})" in card
    assert f"({BOOK.repository}/raw/student/{path})" in card
    assert f"/{BOOK.branch}/" not in card
    assert "no solutions" in card


def test_the_zip_holds_the_notebooks_and_the_licences_and_repeats(built, tmp_path):
    build(BOOK, tmp_path / "again")
    assert (tmp_path / "again" / ARCHIVE).read_bytes() == (built / ARCHIVE).read_bytes()
    with zipfile.ZipFile(built / ARCHIVE) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert members == {
        path.relative_to(built).as_posix(): path.read_bytes()
        for path in built.rglob("*")
        if path.is_file() and path.name != ARCHIVE
    }
    assert {"LICENSE", "LICENSE-TEXT", f"notebooks/{FIRST.path.name}"} <= set(members)


@pytest.mark.slow
def test_a_students_notebook_runs_to_the_end_with_open_exercises(copied):
    made = Notebook.read(copied / "notebooks" / FIRST.path.name)
    run = run_notebook(made)
    assert {claim.id for claim in run.claims} == {claim.id for claim in BOOK.ledger() if claim.notebook == FIRST.name}
    for number, cell in enumerate(made.tagged("exercise"), start=1):
        shown = [output["data"]["text/plain"] for output in cell.outputs if "data" in output]
        assert len(shown) == 1
        # The stub of a debug exercise is wrong code, which is graded.
        verdict = "not yet" if "Debug" in exercise_title(made, number) else "not answered yet"
        assert f"Exercise 00.{number}: {verdict}." in shown[0]


def exercise_title(notebook: Notebook, number: int) -> str:
    return list(notebook.tagged("exercise-card"))[number - 1].source.splitlines()[0]


def test_the_graders_do_not_hold_the_solutions():
    for notebook in BOOK.notebooks():
        grader = ROOT / "lib" / "sparse_circuits" / "graders" / f"chapter_{notebook.chapter['number']}.py"
        source = grader.read_text()
        secrets = [secret for secret in secrets_of(notebook) if secret.telling]
        assert not list(leaks_in_text(grader.name, source, secrets, is_code=True))
        assert answers_of(notebook).isdisjoint(constants(source)), f"{grader.name} holds an answer"


def answers_of(notebook: Notebook) -> set[object]:
    """Return the telling constants that solutions use and no other cell shows: numbers above ten, longer texts."""
    kept = "\n".join(cell.source for cell in notebook.cells if "solution" not in tags(cell))
    found = set().union(*(constants(cell.source) for cell in notebook.tagged("solution")))
    return {value for value in found if telling(value) and str(value) not in kept}


def telling(value: object) -> bool:
    if isinstance(value, str):
        return len(value) >= 6
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > 10


def constants(source: str) -> set[object]:
    return {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}


def test_publishing_replaces_a_branch_and_touches_nothing_else(copied, tmp_path):
    def git(*arguments, cwd):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout

    git("init", "-q", "--bare", "home.git", cwd=tmp_path)
    git("init", "-q", "-b", "main", "work", cwd=tmp_path)
    work = tmp_path / "work"
    (work / ".gitignore").write_text("_build/\n")
    git("add", ".", cwd=work)
    git("commit", "-q", "-m", "start", cwd=work)
    git("remote", "add", "origin", str(tmp_path / "home.git"), cwd=work)
    git("config", "user.name", "A", cwd=work)
    git("config", "user.email", "a@example.org", cwd=work)
    folder = Path(shutil.copytree(copied, work / "_build" / "student"))
    push_folder(work, folder, "student", "First")
    (folder / "LICENSE").unlink()
    commit = push_folder(work, folder, "student", "Second")
    held = git("ls-tree", "-r", "--name-only", "student", cwd=tmp_path / "home.git").split()
    assert held == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert git("log", "--format=%H %s", "student", cwd=tmp_path / "home.git") == f"{commit} Second\n"
    assert git("status", "--porcelain", cwd=work) == ""
    assert git("branch", "--format=%(refname:short)", cwd=work) == "main\n"


def test_a_solution_cell_is_recognised_in_markdown_too(tmp_path):
    """A tag is what makes a cell a solution: nothing else about it matters."""
    notebook = Notebook.read(FIRST.path)
    cell = text("solution", "The answer is forty-two edges.")
    notebook.cells.append(cell)
    made = student.student_notebook(BOOK, notebook, tmp_path)
    assert "forty-two" not in nbformat.writes(made.node)
