"""Run a notebook in a fresh kernel and measure it."""

from __future__ import annotations

import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nbclient import NotebookClient
from sparse_circuits.claims import LEDGER_VARIABLE, RECORD_VARIABLE, Ledger
from sparse_circuits.notebook import SEED_VARIABLE

from book_tools.project import KERNEL, Notebook

CELL_TIMEOUT_SECONDS = 600
STDLIB_VARIABLE = "SPARSE_CIRCUITS_STDLIB"


@dataclass(frozen=True)
class Conditions:
    """What a run depends on besides the code: seed, threads, and the library that the code task reads."""

    seed: int = 0
    threads: int = 1
    stdlib: str = ""

    def environment(self) -> dict[str, str]:
        """Return the environment of the kernel."""
        kept = {name: value for name, value in os.environ.items() if name != STDLIB_VARIABLE}
        chosen = {
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "passive",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            SEED_VARIABLE: str(self.seed),
        }
        return kept | chosen | ({STDLIB_VARIABLE: self.stdlib} if self.stdlib else {})


@dataclass(frozen=True)
class Run:
    """What running a notebook gave: its claims, wall time of the cells, and the kernel's peak memory."""

    claims: Ledger
    seconds: float
    peak_memory_mb: float | None


def run_notebook(notebook: Notebook, conditions: Conditions = Conditions()) -> Run:
    """Execute all cells of `notebook` in place (in memory) and record its claims in a ledger of their own.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    peaks: list[float] = []
    started = 0.0

    def on_start(cell, cell_index) -> None:
        nonlocal started
        started = started or time.monotonic()

    def on_executed(cell, cell_index, execute_reply) -> None:
        peaks.extend(_peak_memory_mb(client.km.provisioner.pid))

    client = NotebookClient(
        notebook.node,
        timeout=CELL_TIMEOUT_SECONDS,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(notebook.path.parent)}},
        record_timing=False,
        coalesce_streams=True,
        on_cell_execute=on_start,
        on_cell_executed=on_executed,
    )
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "claims.json"
        client.execute(env=conditions.environment() | {RECORD_VARIABLE: "1", LEDGER_VARIABLE: str(ledger)})
        seconds = time.monotonic() - started
        return Run(Ledger(ledger), seconds, max(peaks, default=None))


def _peak_memory_mb(pid: int) -> list[float]:
    """Return the peak resident memory of a process in megabytes; nothing where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return [int(found[1]) * 1024 / 1e6] if found else []
