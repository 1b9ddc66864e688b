"""Plant an error in a copy of a book, and see that a rule finds it."""

from book_tools.linters import findings
from book_tools.project import Book, Notebook
from book_tools.rules import Finding
from book_tools.rules.chapter import PARTS, part
from book_tools.rules.prose import BOLD, CLAIM_TAG
from nbformat.v4 import new_output


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


def cells_of(notebook: Notebook, tag: str) -> list:
    """Return the cells of a part of the chapter, or those that carry a tag that opens no part."""
    return part(notebook, tag) if tag in PARTS else list(notebook.tagged(tag))


def drop(tag: str):
    """Return a change that deletes a part, or the first cell with a tag that opens no part."""

    def change(notebook: Notebook) -> None:
        for cell in cells_of(notebook, tag)[: None if tag in PARTS else 1]:
            notebook.cells.remove(cell)

    return change


def replace_in(tag: str, old: str, new: str):
    """Return a change of the text of every cell of a part, or with a tag."""

    def change(notebook: Notebook) -> None:
        for cell in cells_of(notebook, tag):
            cell["source"] = cell.source.replace(old, new)

    return change


def without_predictions(notebook: Notebook) -> None:
    """Delete every cell that asks for a prediction."""
    notebook.node.cells = [cell for cell in notebook.cells if "predict(" not in cell.source]


def change_number(notebook: Notebook) -> None:
    """Raise the first digit of the first claimed number of the prose."""
    cell = first(notebook, lambda cell: cell.cell_type == "markdown" and CLAIM_TAG.search(cell.source))
    bold = next(match for match in BOLD.finditer(cell.source) if match["tag"])
    place = next(index for index in range(bold.start("text"), bold.end("text")) if cell.source[index].isdigit())
    digit = str((int(cell.source[place]) + 1) % 10)
    cell["source"] = cell.source[:place] + digit + cell.source[place + 1 :]
