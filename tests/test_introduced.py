"""What a chapter shows in full is what the library runs."""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
LINE = "Introduced in chapter"
SHOWN = {
    "01_a_transformer_you_can_read": {
        "model.py": ["RMSNorm", "Attention", "MLP", "Block", "Transformer"],
    },
    "02_superposition": {
        "superposition.py": [
            "ToyModels",
            "feature_dimensionality",
            "features_represented",
            "features_per_dimension",
            "sample_features",
            "train_toys",
            "keep_weights",
        ],
    },
}


def definitions(source: str) -> dict[str, str]:
    """Return the classes and functions that a source defines, as trees without docstrings."""
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(part) is not None:
                part.body = part.body[1:]
        found[node.name] = ast.dump(node)
    return found


def chapter_source(name: str) -> str:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    plain = (cell.source for cell in notebook.cells if cell.cell_type == "code" and "%pip" not in cell.source)
    return "\n".join(plain)


CASES = [(chapter, file, name) for chapter, files in SHOWN.items() for file, names in files.items() for name in names]


@pytest.mark.parametrize(("chapter", "file", "name"), CASES)
def test_the_chapter_shows_the_library(chapter, file, name):
    library = definitions((ROOT / "lib" / "sparse_circuits" / file).read_text())
    assert definitions(chapter_source(chapter))[name] == library[name]


def test_a_change_of_one_operator_is_seen():
    source = (ROOT / "lib" / "sparse_circuits" / "model.py").read_text()
    changed = source.replace("x / scale", "x * scale")
    assert changed != source
    assert definitions(changed)["RMSNorm"] != definitions(source)["RMSNorm"]
    assert definitions(changed)["MLP"] == definitions(source)["MLP"]


def test_a_module_that_names_its_chapter_is_compared_with_it():
    library = ROOT / "lib" / "sparse_circuits"
    naming = {path.relative_to(library).as_posix() for path in library.rglob("*.py") if LINE in path.read_text()}
    assert naming == {file for files in SHOWN.values() for file in files}
