"""Where the parts of the book stand, and how its notebooks are read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
import yaml
from sparse_circuits.checkpoints import canonical_json, write_atomically
from sparse_circuits.claims import Ledger

ROOT = Path(__file__).resolve().parents[2]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"}
# Pages that are made before each build of the site and not committed.
GENERATED_PAGES = ("claims.md", "routes.md", "status.md")
CLAIM_ANCHOR = re.compile(r'id="claim-([a-z0-9._-]+)"')


@dataclass(frozen=True)
class Notebook:
    """A notebook and the file it came from."""

    path: Path
    node: nbformat.NotebookNode

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Read a notebook of format 4.5.

        Raises
        ------
        ValueError
            If the file is not a notebook.
        """
        try:
            return cls(path, nbformat.read(path, as_version=4))
        except Exception as error:
            raise ValueError(f"{path.name} is not a notebook ({error}); convert it with jupytext again.") from error

    def write(self) -> None:
        """Write the notebook atomically, in one fixed form."""
        self.node.nbformat, self.node.nbformat_minor = 4, 5
        nbformat.validate(self.node)
        write_atomically(self.path, (nbformat.writes(self.node).rstrip("\n") + "\n").encode())

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return self.path.stem

    @property
    def chapter(self) -> dict:
        """What the notebook says about itself: number, title, needs, minutes and budgets."""
        return self.node.metadata.get("sparse_circuits", {})

    @property
    def cells(self) -> list[nbformat.NotebookNode]:
        """The cells, in order."""
        return self.node.cells

    def tagged(self, tag: str) -> Iterator[nbformat.NotebookNode]:
        """Yield the cells that carry `tag`."""
        return (cell for cell in self.cells if tag in tags(cell))

    def claims(self) -> Iterator[tuple[str, nbformat.NotebookNode]]:
        """Yield (claim id, cell) for each claim that the stored outputs show."""
        for cell in self.cells:
            for page in output_texts(cell, "text/html"):
                yield from ((name, cell) for name in CLAIM_ANCHOR.findall(page))


def without_magics(source: str) -> str:
    """Return the code of a cell as plain Python: lines for IPython or the shell do nothing."""
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def output_texts(cell: nbformat.NotebookNode, kind: str) -> Iterator[str]:
    """Yield the stored outputs of a cell that have a MIME type of `kind`."""
    for output in cell.get("outputs", []):
        if kind in output.get("data", {}):
            yield output["data"][kind]


@dataclass(frozen=True)
class Book:
    """The folders and settings of one checkout of the book."""

    root: Path = ROOT

    @cached_property
    def settings(self) -> dict:
        """The content of `_config.yml`."""
        return yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))

    @property
    def repository(self) -> str:
        """The public address of the repository, without a slash at the end."""
        return self.settings["repository"]["url"].rstrip("/")

    @property
    def branch(self) -> str:
        """The branch that launch links point at."""
        return self.settings["repository"].get("branch", "main")

    def notebooks(self, names: Collection[str] = ()) -> list[Notebook]:
        """Return the notebooks, or those whose file name starts with one of `names`.

        Raises
        ------
        ValueError
            If a name fits no notebook.
        """
        wanted = [Path(name).stem for name in names]
        paths = sorted((self.root / "notebooks").glob("*.ipynb"))
        for name in wanted:
            if not any(path.stem.startswith(name) for path in paths):
                raise ValueError(f"no notebook starts with {name!r}; there are {[path.stem for path in paths]}.")
        return [Notebook.read(path) for path in paths if not wanted or path.stem.startswith(tuple(wanted))]

    def pages(self) -> list[Path]:
        """Return the prose pages and those in the root, such as the README; generated pages are not prose."""
        pages = [path for path in sorted((self.root / "book").glob("**/*.md")) if path.name not in GENERATED_PAGES]
        return [*sorted(self.root.glob("*.md")), *pages]

    def ledger(self) -> Ledger:
        """Return the ledger of claims."""
        return Ledger(self.root / "data" / "claims.json")

    def measurements(self, name: str) -> dict:
        """Return `data/NAME.json`, or nothing when it was never measured."""
        path = self.root / "data" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def write_measurements(self, name: str, content: dict) -> None:
        """Write `data/NAME.json` atomically."""
        write_atomically(self.root / "data" / f"{name}.json", canonical_json(content))
