"""Cells and their stored outputs: executed, stable, small, readable everywhere, with a text for each figure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import nbformat
from sparse_circuits.plots import MIN_ALT_WORDS

from book_tools.cells import setup_cell_source
from book_tools.notebooks import differs
from book_tools.project import Book, Notebook, output_texts, tags, without_magics
from book_tools.rules import Finding, line_of, without_code

MAX_BYTES = 400_000
MAX_IGNORED_OUTPUTS = 3
EXECUTE = "run `python -m book_tools.notebooks --execute`"
SYNC = "run `python -m book_tools.notebooks --sync`"

MYST = {
    "directive": re.compile(r"^\s*(`{3,}|~{3,}|:{3,})\s*\{[^}]*\}", re.MULTILINE),
    "role": re.compile(r"\{[A-Za-z][\w:.+-]*\}`"),
    "label": re.compile(r"^\([\w-]+(:[\w-]+)*\)=\s*$", re.MULTILINE),
    "substitution": re.compile(r"\{\{.*?\}\}"),
    "citation": re.compile(r"\[@[\w-]+"),
    "comment": re.compile(r"^% ", re.MULTILINE),
    "block break": re.compile(r"^\+\+\+", re.MULTILINE),
    "link to a document": re.compile(r"\]\((project|path|inv|myst):|<(project|path|inv|myst):"),
}
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:~>)-])(/(home|root|tmp|usr|opt|var|work|Users|mnt|media|content|private)/[\w.-]+|[A-Za-z]:\\[\w.-]+)"
)
ADDRESS = re.compile(r"(?:https?|ftp|s3|hf)://\S+")
NETWORK_MODULES = {"requests", "urllib", "urllib3", "httpx", "aiohttp", "http", "socket", "ftplib", "pooch", "wget"}
NETWORK_CALLS = {"from_pretrained", "load_dataset", "hf_hub_download", "snapshot_download", "urlopen", "urlretrieve"}
NETWORK_COMMAND = re.compile(r"^\s*[!%]\s*(pip|conda|wget|curl|git|npm)\b", re.MULTILINE)
UNSTABLE = {
    "a memory address": re.compile(r"\bat 0x[0-9a-fA-F]+"),
    "a time without ≈": re.compile(
        r"(?<![≈\d.,])\b(\d+(\.\d+)? ?(ms|µs|μs|ns|it/s|s/it|tokens/s|tok/s|seconds)\b|\d+\.\d+ ?s\b)"
    ),
    "a progress bar": re.compile(r"\d+%\|"),
}


def is_executed(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Every code cell is stored as it ran: counted from 1, without an error."""
    for expected, cell in enumerate(_code(notebook), start=1):
        if cell.execution_count is None:
            yield Finding(notebook.path.name, cell.id, "the cell is stored without having been run", EXECUTE)
        elif cell.execution_count != expected:
            message = f"the cell ran as number {cell.execution_count}, not {expected}"
            yield Finding(notebook.path.name, cell.id, message, EXECUTE)
        for output in cell.outputs:
            if output.output_type == "error":
                message = f"the stored output is an error: {output.ename}: {output.evalue}"
                yield Finding(notebook.path.name, cell.id, message, f"mend the cell and {EXECUTE}")


def calls_left_their_output(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """A cell that shows something by its nature has a stored output, also when its run was counted."""
    shows = re.compile(r"\bsc\.(claim|grade|predict|reveal|setup_notebook|explore|plots\.(show|table))\(")
    for cell in _code(notebook):
        if shows.search(re.sub(r"#.*", "", cell.source)) and not cell.outputs and _calls_at_top(cell.source, shows):
            yield Finding(notebook.path.name, cell.id, "the stored output was stripped", EXECUTE)


def nothing_is_skipped(book: Book) -> Iterator[Finding]:
    """No cell is skipped by the check of the notebooks, and few outputs are ignored in the whole book."""
    ignored = 0
    for notebook in book.notebooks():
        for cell in _code(notebook):
            marks = " ".join([cell.source, *tags(cell)]).upper().replace("-", "_")
            ignored += "NBVAL_IGNORE_OUTPUT" in marks
            for mark in ("NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION", "SKIP_EXECUTION", "RAISES_EXCEPTION"):
                if mark in marks:
                    yield Finding(notebook.path.name, cell.id, f"the mark {mark} hides the cell", "take it off")
    if ignored > MAX_IGNORED_OUTPUTS:
        message = f"NBVAL_IGNORE_OUTPUT stands {ignored} times, at most {MAX_IGNORED_OUTPUTS} are allowed"
        yield Finding("notebooks", "all", message, "print numbers that move with ≈ before their digits instead")


def no_myst(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Markdown cells hold no MyST syntax: Colab and JupyterLab show it raw."""
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for kind, pattern in MYST.items():
            # A directive is itself a fence, and a role ends in inline code; both would be blanked out.
            source = cell.source if kind in ("directive", "role") else without_code(cell.source)
            for match in pattern.finditer(source):
                message = f"{line_of(source, match.start())} holds a MyST {kind}: {match[0].strip()!r}"
                yield Finding(notebook.path.name, cell.id, message, "write plain markdown")


def figures_have_texts(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Every picture has a text alternative and the data behind it."""
    for cell in _code(notebook):
        pictures = [
            *output_texts(cell, "image/png"),
            *output_texts(cell, "image/svg+xml"),
            *output_texts(cell, "image/jpeg"),
        ]
        if not pictures:
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if len(alt.split()) < MIN_ALT_WORDS:
            message = f"the figure's text alternative is {alt!r}"
            yield Finding(notebook.path.name, cell.id, message, f'use sc.plots.show(fig, alt="...") and {EXECUTE}')
        if not any("<table" in page for page in output_texts(cell, "text/html")):
            message = "the figure has no table of its data"
            yield Finding(
                notebook.path.name, cell.id, message, "give the numbers drawn to sc.plots.show(..., data=frame)"
            )
        if len(pictures) > 1:
            message = f"the cell shows {len(pictures)} figures, but has room for one text alternative"
            yield Finding(notebook.path.name, cell.id, message, "show one figure per cell")


def is_synchronised(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The set-up cell is the one of every notebook, and card, ids and metadata are as generated."""
    cells = list(notebook.tagged("setup"))
    if len(cells) != 1:
        message = f"{len(cells)} cells are tagged 'setup'"
        yield Finding(notebook.path.name, "setup", message, "keep exactly one set-up cell")
    elif cells[0].source != setup_cell_source(book):
        yield Finding(notebook.path.name, cells[0].id, "the set-up cell is not the common one", SYNC)
    elif differs(book, notebook):
        yield Finding(notebook.path.name, "card", "generated parts are out of date", SYNC)


def is_small(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """A notebook stays small enough to open quickly."""
    size = notebook.path.stat().st_size
    if size > MAX_BYTES:
        message = f"the file has {size} bytes, at most {MAX_BYTES} are allowed"
        yield Finding(notebook.path.name, "file", message, "show fewer or smaller figures and less data")


def no_absolute_paths(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Neither sources nor outputs name a folder of one machine."""
    for cell in notebook.cells:
        for source in [cell.source, *_output_lines(cell)]:
            for match in ABSOLUTE_PATH.finditer(source):
                message = f"absolute path {match[0]!r}"
                yield Finding(notebook.path.name, cell.id, message, "use a relative path, or sc.data_path(...)")


def no_network(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """No code but the set-up cell reaches for the network."""
    for cell in _code(notebook):
        if "setup" in tags(cell):
            continue
        for found in _network_uses(cell.source):
            yield Finding(notebook.path.name, cell.id, f"the code reaches for the network: {found}", "work offline")


def outputs_are_stable(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Outputs hold nothing that changes with each run, unless it is marked with ≈."""
    for cell in _code(notebook):
        for text in _output_lines(cell):
            for kind, pattern in UNSTABLE.items():
                for match in pattern.finditer(text):
                    message = f"the output holds {kind}: {match[0]!r}"
                    yield Finding(
                        notebook.path.name, cell.id, message, "write ≈ before a number that moves, or leave it out"
                    )
        if any(output.get("name") == "stderr" for output in cell.outputs):
            message = "the cell wrote to stderr: a warning or a progress bar"
            yield Finding(notebook.path.name, cell.id, message, "mend the cause, or switch the progress bar off")


def _code(notebook: Notebook) -> Iterator[nbformat.NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def _output_lines(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yield what a cell printed or showed as plain text."""
    yield from (output["text"] for output in cell.get("outputs", []) if "text" in output)
    yield from output_texts(cell, "text/plain")


def _parse(source: str) -> ast.Module | None:
    """Return the syntax tree of a cell; magics and shell lines count as nothing."""
    try:
        return ast.parse(without_magics(source))
    except SyntaxError:
        return None


def _calls_at_top(source: str, calls: re.Pattern) -> bool:
    """Tell whether a pattern occurs outside function and class definitions."""
    tree = _parse(source)
    if tree is None:
        return True
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(calls.search(ast.unparse(node)) for node in tree.body if not isinstance(node, definitions))


def _network_uses(source: str) -> Iterator[str]:
    """Yield what in a cell would open a connection."""
    yield from (match[0].strip() for match in NETWORK_COMMAND.finditer(source))
    tree = _parse(source)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if name.name.split(".")[0] in NETWORK_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in NETWORK_MODULES:
            yield f"from {node.module} import ..."
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NETWORK_CALLS:
            yield f"{node.func.attr}(...)"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ADDRESS.findall(node.value)


BOOK_RULES = (nothing_is_skipped,)
NOTEBOOK_RULES = (
    is_executed,
    calls_left_their_output,
    no_myst,
    figures_have_texts,
    is_synchronised,
    is_small,
    no_absolute_paths,
    no_network,
    outputs_are_stable,
)
