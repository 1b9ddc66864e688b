"""Open an issue about a check that failed, or add to the one that is open, with GitHub's own command `gh`.

    python -m book_tools.issue --label LABEL --title TITLE [--run ADDRESS] [FILE]

FILE holds the report in Markdown; when it is missing, the check stopped before it could write one. Uses the standard
library alone, so that it also runs where the environment of the book could not be installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

# GitHub refuses longer texts.
MAX_CHARACTERS = 60_000


def body_of(report: Path | None, run: str) -> str:
    """Return the text of the issue: the report, cut to what GitHub takes, and the run that it comes from."""
    if report and report.is_file():
        text = report.read_text(encoding="utf-8").strip()
    else:
        text = "The check stopped before it could write a report."
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}\n\nThe report is cut here."
    return f"{text}\n\nThe run: {run}\n" if run else f"{text}\n"


def open_or_update(label: str, title: str, body: str) -> str:
    """Comment on the open issue with this label, or open one; return what was done.

    Raises
    ------
    subprocess.CalledProcessError
        If `gh` fails; its message is on standard error.
    """
    _gh("label", "create", label, "--force", "--description", "Opened by a scheduled check")
    listed = _gh("issue", "list", "--state", "open", "--label", label, "--json", "number", "--limit", "1")
    numbers = [issue["number"] for issue in json.loads(listed)]
    if numbers:
        _gh("issue", "comment", str(numbers[0]), "--body-file", "-", text=body)
        return f"added to issue {numbers[0]}"
    address = _gh("issue", "create", "--title", title, "--label", label, "--body-file", "-", text=body)
    return f"opened {address.strip()}"


def _gh(*arguments: str, text: str = "") -> str:
    return subprocess.run(["gh", *arguments], input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.issue", description=__doc__.split("\n")[0])
    parser.add_argument("--label", required=True, help="label by which an open issue is found again")
    parser.add_argument("--title", required=True, help="title of a new issue")
    parser.add_argument("--run", default="", metavar="ADDRESS", help="address of the run that failed")
    parser.add_argument("report", nargs="?", type=Path, metavar="FILE", help="the report, in Markdown")
    given = parser.parse_args(arguments)
    try:
        print(f"issue: {open_or_update(given.label, given.title, body_of(given.report, given.run))}")
    except subprocess.CalledProcessError as error:
        print(f"issue: {' '.join(error.cmd[:3])!r} ended with status {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
