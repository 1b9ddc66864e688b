"""Run what CI runs, step by step, and close with one summary.

Every step runs even when an earlier one failed, so one run shows all that is wrong. A complete run leaves a report that
the status page of the next build shows.
`python -m book_tools.check NAME ...` runs only the steps named. One step, the chapters with two threads, runs only when
it is named: it takes as long as all others together, and on the public home another machine runs it beside them.
"""

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from book_tools.verification import Revision, Verification

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "_build" / "reports"
PYTEST = (sys.executable, "-m", "pytest")
# One file at a time in each of two processes, one thread each: what the smallest machine of CI has cores for.
TWO_PROCESSES = ("--numprocesses=2", "--dist=loadfile")
# The time limit stops a cell that hangs. The longest takes 90 s on a quiet machine; with two threads on cores that were
# shared with other machines, one of 60 s has taken more than 300.
NBVAL_OPTIONS = "--nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 900"
NBVAL = (*PYTEST, *NBVAL_OPTIONS.split())
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
TWO_THREADS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Step:
    """One thing to check: its name, its command, and what the command needs in its environment.

    A step `on_chapters` gets the notebooks at the end of its command.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=lambda: ONE_THREAD)
    on_chapters: bool = False

    @property
    def report(self) -> Path | None:
        """Where pytest writes its counts; None for a step that is not a pytest run."""
        return REPORTS / f"{self.name}.xml" if self.command[: len(PYTEST)] == PYTEST else None


STEPS = (
    Step("lint", (sys.executable, "-m", "ruff", "check", ".")),
    Step("format", (sys.executable, "-m", "ruff", "format", "--check", ".")),
    Step("linters", (sys.executable, "-m", "book_tools.linters")),
    Step("site", ("make", "book")),
    Step("chromium", (sys.executable, "-m", "book_tools.chromium")),
    Step("tests", (*PYTEST, *TWO_PROCESSES, "tests/")),
    Step("chapters", (*NBVAL, *TWO_PROCESSES, "--no-loadscope-reorder"), on_chapters=True),
)
ON_REQUEST = (Step("chapters-2-threads", NBVAL, TWO_THREADS, on_chapters=True),)


def chapters() -> list[str]:
    """Return the notebooks, the slowest first, so that two processes end at about the same time."""
    budgets = json.loads((ROOT / "data" / "budgets.json").read_text())
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    slowest = sorted(names, key=lambda name: -budgets.get(name, {}).get("run_seconds", 0.0))
    return [f"notebooks/{name}.ipynb" for name in slowest]


@dataclass(frozen=True)
class Result:
    """What a step came to."""

    step: Step
    status: int
    seconds: float
    passed: int
    failed: int
    skipped: int

    def line(self) -> str:
        """One line of the summary."""
        verdict = "ok" if self.status == 0 else f"FAILED (status {self.status})"
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"  {self.step.name:<20} {verdict:<20} {self.seconds:6.0f} s   {counts}"


def counts_of(report: Path | None, status: int) -> tuple[int, int, int]:
    """Return (passed, failed, skipped) of a pytest report; a step without one counts as a single check.

    A run that failed without a failing test (an error at collection, an interrupted run) still counts one failure.
    """
    if report is None or not report.exists():
        return (0, 1, 0) if status else (1, 0, 0)
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return total - failed - skipped, max(failed, int(status != 0)), skipped


def run(step: Step) -> Result:
    """Run one step with its output on the terminal."""
    command = [*step.command, *(chapters() if step.on_chapters else [])]
    if step.report:
        step.report.unlink(missing_ok=True)
        command.append(f"--junit-xml={step.report}")
    print(f"\n=== {step.name}: {' '.join(command).replace(sys.executable, 'python')}", flush=True)
    started = time.monotonic()
    status = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **step.environment}, stdin=subprocess.DEVNULL
    ).returncode
    return Result(step, status, time.monotonic() - started, *counts_of(step.report, status))


def main(names: list[str]) -> int:
    """Run the steps named, or all; return 0 only if every one succeeded."""
    known = (*STEPS, *ON_REQUEST)
    unknown = set(names) - {step.name for step in known}
    if unknown:
        sys.exit(f"check: no step {sorted(unknown)}; the steps are {[step.name for step in known]}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    revision = Revision.of(ROOT)
    results = [run(step) for step in (known if names else STEPS) if not names or step.name in names]
    print("\n=== summary")
    for result in results:
        print(result.line())
    passed, failed, skipped = (sum(getattr(r, key) for r in results) for key in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    if not names:
        finished = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        seconds = round(sum(result.seconds for result in results))
        Verification(revision.commit, revision.changed, finished, passed, failed, skipped, seconds).save(ROOT)
    return int(any(result.status for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
