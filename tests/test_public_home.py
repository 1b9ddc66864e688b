"""What the public home says of itself: licences, citation, changelog, commands, and one address for all of it."""

import re
import subprocess
import tomllib

import pytest
import sparse_circuits
import yaml
from book_tools import address
from book_tools.address import current_text, files_with_addresses, home_files, site_address
from book_tools.project import ROOT, Book
from book_tools.scaffold import file_name
from commands import commands_in, faults, targets
from example_book import copy_book

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
LICENCE_ROW = re.compile(r"^ {4}(?P<licence>CC-BY-4\.0|MIT) +(?P<where>\S.*)$", re.MULTILINE)
# Required by the schema of the Citation File Format 1.2.0, for the file and for a reference in it.
REQUIRED = {"authors", "cff-version", "message", "title"}
REQUIRED_OF_A_REFERENCE = {"authors", "title", "type"}
KNOWN = REQUIRED | {
    "abstract",
    "keywords",
    "license",
    "preferred-citation",
    "repository-code",
    "type",
    "url",
    "version",
}
# What a file of a new chapter is called before it is written.
TO_BE_WRITTEN = frozenset({"tests/test_graders_NN.py"})
OTHER = "https://github.com/else/where.x"


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def test_each_licence_is_named_with_its_identifier_and_address():
    text = (ROOT / "LICENSE-TEXT").read_text()
    head, _, legal_code = text.partition("What follows is the text of the licence.")
    assert head.startswith("SPDX-License-Identifier: CC-BY-4.0\n")
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in head
    assert "SPDX-License-Identifier: MIT" in head
    assert "Creative Commons Attribution 4.0 International Public License" in legal_code
    assert re.findall(r"^Section (\d) -- ", legal_code, re.MULTILINE) == [str(number) for number in range(1, 9)]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]


def test_every_file_is_under_one_licence_and_every_row_of_the_split_is_in_use():
    rows = LICENCE_ROW.findall((ROOT / "LICENSE-TEXT").read_text())
    names = tracked()
    claimed = {}
    for licence, where in rows:
        for pattern in re.findall(r"[\w./*-]*\*[\w./*-]*|\b[\w/]+\.(?:bib|cff)\b", where):
            found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)]
            assert set(found) & set(names), f"{pattern} fits no file"
            for name in found:
                claimed.setdefault(name, set()).add(licence)
    notebooks = {name for name in names if name.endswith(".ipynb")}
    assert {name for name, licences in claimed.items() if len(licences) > 1} == notebooks
    prose = {name for name in names if name.endswith((".md", ".bib", ".svg", ".cff"))}
    assert prose <= {name for name, licences in claimed.items() if licences == {"CC-BY-4.0"}}
    assert any(where.startswith("everything else") for licence, where in rows if licence == "MIT")


def test_readers_are_told_the_licences():
    readme = (ROOT / "README.md").read_text()
    assert all(f"]({name})" in readme for name in ("LICENSE", "LICENSE-TEXT", "CITATION.cff", "CONTRIBUTING.md"))
    footer = Book().settings["html"]["extra_footer"]
    assert "https://creativecommons.org/licenses/by/4.0/" in footer
    assert "MIT" in footer


def test_the_citation_has_what_the_format_asks_for():
    assert REQUIRED <= set(CITATION) <= KNOWN
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] in ("software", "dataset")
    assert CITATION["license"] == PROJECT["license"]
    preferred = CITATION["preferred-citation"]
    assert set(preferred) >= REQUIRED_OF_A_REFERENCE
    assert preferred["license"] == "CC-BY-4.0"
    for entry in (CITATION, preferred):
        assert entry["authors"]
        assert all(set(author) <= {"name", "family-names", "given-names", "orcid"} for author in entry["authors"])
        assert entry["version"] == PROJECT["version"] == sparse_circuits.__version__


def test_the_changelog_speaks_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.startswith("# Changelog\n")
    versions = re.findall(r"^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert PROJECT["version"] in [version for version, _ in versions]
    assert len(versions) == len(re.findall(r"^## ", changelog, re.MULTILINE))
    kinds = re.findall(r"^### (.+)$", changelog, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert all(re.search(rf"^\[{re.escape(version)}\]: http", changelog, re.MULTILINE) for version, _ in versions)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "book/teaching.md"])
def test_every_command_that_a_page_names_exists(page):
    commands = list(commands_in((ROOT / page).read_text()))
    assert commands
    assert [fault for command in commands for fault in faults(command, TO_BE_WRITTEN)] == []


def test_a_chapter_takes_ten_steps_and_each_is_a_command():
    source = (ROOT / "CONTRIBUTING.md").read_text()
    section = source.partition("## A chapter in ten steps")[2].partition("\n## ")[0]
    steps = re.split(r"^(\d+)\. ", section, flags=re.MULTILINE)[1:]
    assert steps[::2] == [str(number) for number in range(1, 11)]
    blocks = [re.findall(r"^ +```bash\n(.*?)^ +```", step, re.MULTILINE | re.DOTALL) for step in steps[1::2]]
    assert all(len(found) == 1 for found in blocks)
    commands = [line.strip() for (block,) in blocks for line in block.splitlines()]
    assert [fault for command in commands for fault in faults(command, TO_BE_WRITTEN)] == []
    named = " ".join(commands)
    for needed in ("book_tools.scaffold", "--sync", "--execute", "book_tools.spreads", "make student", "make test"):
        assert needed in named


def test_what_the_steps_write_is_called_as_they_say():
    assert file_name("04", "A title") == "04_a_title.ipynb"
    assert {"tests/test_graders_NN.py"} == TO_BE_WRITTEN
    assert {"install", "lab", "lint", "format", "student", "serve", "test", "sync", "lock"} <= targets()


def test_one_setting_moves_every_address(tmp_path, monkeypatch, capsys):
    book = copy_book(Book(), tmp_path / "copy")
    for name in ("pyproject.toml", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/**/*.yml"))):
        (book.root / name).parent.mkdir(parents=True, exist_ok=True)
        (book.root / name).write_text((ROOT / name).read_text())
    old, settings = book.repository, (book.root / "_config.yml").read_text()
    assert {"CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "ci.yml"} <= {
        path.name for path in home_files(book)
    }
    monkeypatch.setattr(address, "Book", lambda: Book(book.root))
    assert address.main(["--check"]) == 0
    (book.root / "_config.yml").write_text(settings.replace(old, OTHER))
    assert address.main(["--check"]) == 1
    named = capsys.readouterr().err
    assert all(f"{name} names another" in named for name in ("CITATION.cff", "CHANGELOG.md", "pyproject.toml"))
    assert address.main(["--sync"]) == 0
    assert address.main(["--check"]) == 0
    moved = Book(book.root)
    for path in files_with_addresses(moved):
        assert old not in path.read_text(), path.name
        assert site_address(Book()) not in path.read_text(), path.name
    citation = yaml.safe_load((book.root / "CITATION.cff").read_text())
    assert citation["repository-code"] == OTHER
    assert citation["url"] == "https://else.github.io/where.x/"
    urls = tomllib.loads((book.root / "pyproject.toml").read_text())["project"]["urls"]
    assert all(url.startswith((OTHER, "https://else.github.io/where.x/")) for url in urls.values())
    assert f"git clone {OTHER}\n" in (book.root / "CONTRIBUTING.md").read_text()
    assert f"[![CI]({OTHER}/actions/workflows/ci.yml/badge.svg)]" in (book.root / "README.md").read_text()


def test_no_file_outside_the_settings_spells_out_an_address_that_does_not_follow():
    """Every place that names the repository is one that `make sync` rewrites, or a notebook, which it rewrites too."""
    book = Book()
    known = {path.relative_to(ROOT).as_posix() for path in files_with_addresses(book)}
    naming = {
        name
        for name in tracked()
        if (ROOT / name).is_file() and re.search(re.escape(book.repository), (ROOT / name).read_text(errors="replace"))
    }
    elsewhere = naming - known - {"_config.yml"}
    assert {name for name in elsewhere if not name.startswith(("notebooks/", "tests/"))} == set()
    for path in files_with_addresses(book):
        assert current_text(book, path) == path.read_text()
