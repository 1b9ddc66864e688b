"""What Colab publishes, read and compared with what the package asks for; and the issue that a failed check opens."""

import http.server
import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from book_tools import colab, issue
from book_tools.colab import (
    compare,
    constraints,
    dependencies,
    fetch,
    our_requirements,
    read_freeze,
    read_python_version,
)
from book_tools.project import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

FREEZE = """\
# Do not modify this file directly; it is generated
#  $ python3 -m pip freeze
Jinja2==3.1.6
numpy==2.1.3
PyYAML===6.0.2
typing_extensions==4.15.0
google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz
jaxlib==0.7.2.dev20260801
torch @ https://wheels.example/whl/cu128/torch-2.11.0%2Bcu128-cp313-cp313-manylinux_2_28_x86_64.whl#sha256=c4a3
torchvision==0.26.0+cpu
-e git+https://somewhere.example/x.git#egg=x
"""
SYSTEM = '# generated\nUbuntu 22.04.5 LTS\nPython 3.13.15\nR version 4.5.2 (2025-10-31) -- "[Not] Part in a Rumble"\n'


def lists(folder: Path, freeze: str = FREEZE, system: str = SYSTEM) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pip-freeze.txt").write_text(freeze)
    (folder / "os-info.txt").write_text(system)
    return folder


def test_a_freeze_gives_public_versions_by_canonical_name():
    assert {name: str(version) for name, version in read_freeze(FREEZE).items()} == {
        "jinja2": "3.1.6",
        "numpy": "2.1.3",
        "pyyaml": "6.0.2",
        "typing-extensions": "4.15.0",
        "jaxlib": "0.7.2.dev20260801",
        "torch": "2.11.0",
        "torchvision": "0.26.0",
    }


def test_constraints_are_requirements_that_hold_each_version():
    lines = constraints(read_freeze(FREEZE)).splitlines()
    assert lines == sorted(lines)
    held = {Requirement(line).name: Requirement(line).specifier for line in lines}
    assert held["torch"].contains("2.11.0+cu128")
    assert held["torch"].contains("2.11.0+cpu")
    assert not held["torch"].contains("2.13.0+cpu")


@pytest.mark.parametrize("text", ["", "# nothing\n", "<html>not found</html>"])
def test_a_list_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="names no version"):
        read_freeze(text)
    with pytest.raises(ValueError, match="no line such as"):
        read_python_version(text)


def test_the_version_of_python_is_read():
    assert read_python_version(SYSTEM) == "3.13"


def test_bounds_are_compared_by_version_and_not_by_text():
    versions = {"a": Version("2.10"), "b": Version("2.2"), "c": Version("3.0"), "d": Version("2.0rc1")}
    found = dependencies(versions, ["A>=2.9", "b>=2.11", "c>=3.0,<4", "d>=2.0", "e>=1"])
    assert [each.verdict for each in found] == ["kept", "conflict", "kept", "kept", "added"]


def test_a_list_that_fits_gives_a_report_without_conflicts(tmp_path, capsys):
    folder = lists(tmp_path / "colab", "".join(f"{line.replace('>=', '==')}\n" for line in our_requirements()))
    assert colab.main([str(folder)]) == 0
    assert (folder / "python-version.txt").read_text() == "3.13\n"
    shown = capsys.readouterr().out
    assert shown.startswith("Colab's Python is 3.13. Colab has what we ask for.")
    assert shown.count("| kept |") == len(our_requirements())


def test_a_lower_bound_above_colab_fails_and_is_named(tmp_path, capsys):
    folder = lists(tmp_path / "colab", FREEZE.replace("torch-2.11.0", "torch-2.5.1"))
    assert colab.main([str(folder)]) == 1
    torch = next(line for line in our_requirements() if line.startswith("torch"))
    shown = capsys.readouterr().out
    assert f"| {torch} | 2.5.1 | conflict |" in shown
    assert "1 of our lower bounds are above what Colab has." in shown
    assert "torch==2.5.1\n" in (folder / "constraints.txt").read_text()


def test_a_missing_list_is_an_error_in_one_line(tmp_path, capsys):
    assert colab.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("colab: ")


def test_our_requirements_are_those_of_the_published_package():
    assert {Requirement(line).name for line in our_requirements()} >= {"torch", "numpy", "transformer-lens"}


def test_lists_are_fetched_from_their_home(tmp_path):
    source = lists(tmp_path / "home")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=source)
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        fetch(tmp_path / "fetched", f"http://127.0.0.1:{server.server_port}/")
        (source / "os-info.txt").unlink()
        with pytest.raises(OSError, match="404"):
            fetch(tmp_path / "fetched", f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        server.server_close()
    found = compare(tmp_path / "fetched", ["numpy>=1.26"])
    assert [str(each.found) for each in found] == ["2.1.3"]


GH = """#!/usr/bin/env python3
import json, pathlib, sys
here = pathlib.Path(__file__).parent
text = sys.stdin.read() if "--body-file" in sys.argv else ""
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], text]) + "\\n")
if sys.argv[1:3] == ["issue", "list"]:
    print((here / "open").read_text())
elif sys.argv[1:3] == ["issue", "create"]:
    print("https://github.com/someone/a-book/issues/8")
sys.exit(int((here / "status").read_text()))
"""


@pytest.fixture
def gh(tmp_path, monkeypatch):
    """A stand-in for `gh` that writes down what it is asked; returns (folder of its settings, calls)."""
    folder = tmp_path / "gh"
    folder.mkdir()
    (folder / "gh").write_text(GH)
    (folder / "gh").chmod(0o755)
    (folder / "open").write_text("[]")
    (folder / "status").write_text("0")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder, lambda: [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


ARGUMENTS = ["--label", "colab", "--title", "Colab has moved on", "--run", "https://run.example/1"]


def test_a_failed_check_opens_an_issue(gh, tmp_path, capsys):
    _, calls = gh
    (tmp_path / "report.md").write_text("Three links are gone.\n")
    assert issue.main([*ARGUMENTS, str(tmp_path / "report.md")]) == 0
    arguments, text = calls()[-1]
    assert arguments[:2] == ["issue", "create"]
    assert arguments[arguments.index("--title") + 1] == "Colab has moved on"
    assert arguments[arguments.index("--label") + 1] == "colab"
    assert text == "Three links are gone.\n\nThe run: https://run.example/1\n"
    assert "opened https://github.com/someone/a-book/issues/8" in capsys.readouterr().out


def test_a_second_failure_adds_to_the_open_issue(gh, capsys):
    folder, calls = gh
    (folder / "open").write_text('[{"number": 17}]')
    assert issue.main([*ARGUMENTS, "no/such/report.md"]) == 0
    arguments, text = calls()[-1]
    assert arguments[:3] == ["issue", "comment", "17"]
    assert text.startswith("The check stopped before it could write a report.")
    assert calls()[-2][0][:6] == ["issue", "list", "--state", "open", "--label", "colab"]
    assert "added to issue 17" in capsys.readouterr().out


def test_a_long_report_is_cut_and_a_failing_gh_is_an_error(gh, tmp_path, capsys):
    folder, calls = gh
    (tmp_path / "report.md").write_text("x" * 100_000)
    assert issue.main([*ARGUMENTS, str(tmp_path / "report.md")]) == 0
    assert len(calls()[-1][1]) < 65_536
    assert "The report is cut here." in calls()[-1][1]
    (folder / "status").write_text("4")
    assert issue.main(ARGUMENTS) == 1
    assert "'gh label create' ended with status 4" in capsys.readouterr().err


def test_opening_an_issue_needs_nothing_but_the_standard_library():
    command = [sys.executable, "-S", "-m", "book_tools.issue", "--help"]
    shown = subprocess.run(command, env={"PYTHONPATH": str(ROOT / "lib")}, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "--label" in shown.stdout
