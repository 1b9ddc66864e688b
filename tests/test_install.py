"""What a newcomer's first command relies on: the lock, the package's bounds, the help, and no address but the index."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from book_tools import install
from book_tools.address import current_text, files_with_addresses, with_current_addresses
from book_tools.project import ROOT, Book

LOCK_LINE = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)( ; .+)?$")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Spelled in halves, so that this file does not name them itself.
REGISTRY_HOSTS = ["pypi" + ".org", "pythonhosted" + ".org", "registry.npmjs" + ".org", "download.pytorch" + ".org"]


def locked() -> dict[str, set[str]]:
    """Return the versions in the lock by package; some differ by platform."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            found = LOCK_LINE.fullmatch(line)
            assert found, f"{line!r} is not of the form name==version"
            versions.setdefault(found["name"], set()).add(found["version"])
    return versions


def direct_dependencies() -> list[str]:
    extras = PROJECT["optional-dependencies"].values()
    return [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in extra)]


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def test_the_lock_holds_the_cpu_neutral_torch_and_no_cuda_package() -> None:
    versions = locked()
    assert versions["torch"] == {"2.13.0"}
    assert [name for name in versions if name.startswith(("nvidia", "cuda", "triton"))] == []
    assert not any("+" in version for group in versions.values() for version in group)


def test_every_direct_dependency_is_locked() -> None:
    names = {re.split(r"[<>=!~\[ ]", requirement)[0].lower().replace("_", "-") for requirement in direct_dependencies()}
    assert names - set(locked()) == set()


def test_the_published_package_has_lower_bounds_and_no_upper_pins() -> None:
    for requirement in PROJECT["dependencies"]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+", requirement), f"{requirement!r} is not a plain lower bound"


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^  make (\w+) +\S", shown, re.MULTILINE) == targets
    assert {"book", "test", "lab", "chapters", "help"} <= set(targets)


def test_ci_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "exec make test"]


def test_no_tracked_file_names_the_host_of_a_package_registry() -> None:
    naming = [
        (name, host)
        for name in tracked_files()
        for host in REGISTRY_HOSTS
        if (ROOT / name).is_file() and host.encode() in (ROOT / name).read_bytes()
    ]
    assert naming == []


def test_pages_name_the_repository_of_the_settings() -> None:
    book = Book()
    for path in files_with_addresses(book):
        assert current_text(book, path) == path.read_text(), f"{path.name} is out of date; run 'make sync'"


def test_an_address_follows_the_settings(tmp_path) -> None:
    (tmp_path / "_config.yml").write_text("repository: {url: 'https://github.com/else/where', branch: trunk}\n")
    book = Book(tmp_path)
    old = (
        "[a](https://colab.research.google.com/github/sparse-circuits/sparse-circuits/blob/main/notebooks/00_a.ipynb) "
        '`pip install "git+https://github.com/sparse-circuits/sparse-circuits"` https://github.com/an/other'
    )
    assert with_current_addresses(book, old) == (
        "[a](https://colab.research.google.com/github/else/where/blob/trunk/notebooks/00_a.ipynb) "
        '`pip install "git+https://github.com/else/where"` https://github.com/an/other'
    )


def test_the_installer_refuses_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed"):
        install.main()


def test_the_installer_says_when_the_lock_lacks_a_package() -> None:
    with pytest.raises(SystemExit, match="names no version of no-such-package"):
        install.locked_version("no-such-package")


def test_make_ignores_an_environment_that_is_active() -> None:
    foreign = {**os.environ, "VIRTUAL_ENV": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    probe = "probe: ; @$(VENV_PYTHON) -c 'import sys; print(sys.prefix)'"
    command = ["make", "--no-print-directory", "--eval", probe, "probe"]
    shown = subprocess.run(command, cwd=ROOT, env=foreign, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == str(ROOT / ".venv")
