"""Compare what Colab publishes of its packages with what this package asks for, and write it down as constraints.

    python -m book_tools.colab --fetch FOLDER   read Colab's lists from their public home, then as below
    python -m book_tools.colab FOLDER           read `pip-freeze.txt` and `os-info.txt` from FOLDER

Writes `constraints.txt`, `python-version.txt` and `report.md` to FOLDER, and fails where Colab has a package in a
version below our lower bound: installing the book there would replace a package that Colab has loaded.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[2]
LISTS = "https://raw.githubusercontent.com/googlecolab/backend-info/main/"
FREEZE, SYSTEM = "pip-freeze.txt", "os-info.txt"
CONSTRAINTS, PYTHON, REPORT = "constraints.txt", "python-version.txt", "report.md"
TIMEOUT_SECONDS = 30
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*===?\s*(?P<version>\S+)$")
# A package installed from a file: the version is the second part of the name of its wheel.
DIRECT = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*@\s*\S*/[A-Za-z0-9_.]+-(?P<version>[^-/\s#]+)-\S*\.whl\b")
PYTHON_LINE = re.compile(r"^Python (?P<version>3\.\d+)\.\d+", re.MULTILINE)


@dataclass(frozen=True)
class Dependency:
    """One of our dependencies beside what Colab has."""

    requirement: Requirement
    found: Version | None

    @property
    def verdict(self) -> str:
        """`kept`, `added` when Colab lacks the package, or `conflict` when its version is outside our bounds."""
        if self.found is None:
            return "added"
        fits = self.requirement.specifier.contains(self.found.base_version, prereleases=True)
        return "kept" if fits else "conflict"


def read_freeze(text: str) -> dict[str, Version]:
    """Return canonical name -> version of a `pip freeze`; lines that name no version are left out.

    Local versions are dropped: Colab's `2.11.0+cu128` is held by `2.11.0`, in whatever build there is.

    Raises
    ------
    ValueError
        If no line names a version.
    """
    versions = {}
    for line in text.splitlines():
        found = PINNED.match(line.strip()) or DIRECT.match(line.strip())
        try:
            version = found and Version(unquote(found["version"]))
        except InvalidVersion:
            version = None
        if version:
            versions[canonicalize_name(found["name"])] = Version(version.public)
    if not versions:
        raise ValueError("the list names no version; it should be what 'pip freeze' prints.")
    return versions


def read_python_version(text: str) -> str:
    """Return the version of Colab's Python, such as `3.13`.

    Raises
    ------
    ValueError
        If no line says it.
    """
    found = PYTHON_LINE.search(text)
    if not found:
        raise ValueError(f"{SYSTEM} has no line such as 'Python 3.13.1'; Colab may have changed its form.")
    return found["version"]


def dependencies(versions: dict[str, Version], requirements: Iterable[str]) -> list[Dependency]:
    """Return each of our requirements beside Colab's version."""
    wanted = [Requirement(requirement) for requirement in requirements]
    return [Dependency(each, versions.get(canonicalize_name(each.name))) for each in wanted]


def our_requirements(root: Path = ROOT) -> list[str]:
    """Return the requirements of the published package."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def constraints(versions: dict[str, Version]) -> str:
    """Return Colab's packages as constraints for pip; a constraint on a package that nothing asks for has no effect."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def report(python: str, found: list[Dependency]) -> str:
    """Return what was found, in Markdown."""
    rows = [f"| {each.requirement} | {each.found or 'none'} | {each.verdict} |" for each in found]
    conflicts = [each for each in found if each.verdict == "conflict"]
    verdict = (
        f"{len(conflicts)} of our lower bounds are above what Colab has." if conflicts else "Colab has what we ask for."
    )
    header = ["| we ask for | Colab has | so it is |", "| --- | --- | --- |"]
    return "\n".join([f"Colab's Python is {python}. {verdict}", "", *header, *rows, ""])


def fetch(folder: Path, address: str = LISTS) -> None:
    """Save Colab's published lists in a folder.

    Raises
    ------
    OSError
        If one cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FREEZE, SYSTEM):
        with urllib.request.urlopen(address + name, timeout=TIMEOUT_SECONDS) as answer:
            (folder / name).write_bytes(answer.read())


def compare(folder: Path, requirements: Iterable[str]) -> list[Dependency]:
    """Write constraints, Python version and report from the lists in a folder, and return what was found."""
    versions = read_freeze((folder / FREEZE).read_text(encoding="utf-8"))
    python = read_python_version((folder / SYSTEM).read_text(encoding="utf-8"))
    found = dependencies(versions, requirements)
    (folder / CONSTRAINTS).write_text(constraints(versions), encoding="utf-8")
    (folder / PYTHON).write_text(f"{python}\n", encoding="utf-8")
    (folder / REPORT).write_text(report(python, found), encoding="utf-8")
    return found


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.colab", description=__doc__.split("\n")[0])
    parser.add_argument("--fetch", action="store_true", help="read Colab's lists from their public home first")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the lists are, and where the results go")
    given = parser.parse_args(arguments)
    try:
        if given.fetch:
            fetch(given.folder)
        found = compare(given.folder, our_requirements())
    except (OSError, ValueError) as error:
        print(f"colab: {error}", file=sys.stderr)
        return 1
    print((given.folder / REPORT).read_text(encoding="utf-8"))
    return int(any(each.verdict == "conflict" for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
