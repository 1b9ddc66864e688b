"""The report of the last complete test run, and which commit it speaks of."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from sparse_circuits.checkpoints import canonical_json, write_atomically

REPORT = Path("_build", "reports", "verification.json")


@dataclass(frozen=True)
class Revision:
    """What is checked out: a commit, and whether files differ from it; no commit outside a repository."""

    commit: str
    changed: bool

    @classmethod
    def of(cls, root: Path) -> Revision:
        """Ask git about the checkout in `root`; without git, or outside a repository, the commit is empty."""
        if shutil.which("git") is None:
            return cls("", False)
        commit = _git(root, "rev-parse", "HEAD")
        return cls(commit, bool(commit and _git(root, "status", "--porcelain")))


@dataclass(frozen=True)
class Verification:
    """What a complete test run came to."""

    commit: str
    changed: bool
    finished: str
    passed: int
    failed: int
    skipped: int
    seconds: int

    @classmethod
    def last(cls, root: Path) -> Verification | None:
        """Return the report of the last complete run, or None when there is none that can be read."""
        try:
            return cls(**json.loads((root / REPORT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, root: Path) -> None:
        """Write the report atomically."""
        write_atomically(root / REPORT, canonical_json(asdict(self)))

    def speaks_of(self, revision: Revision) -> bool:
        """Tell whether exactly this commit, with no change to it before or since, was tested."""
        return bool(revision.commit) and revision == Revision(self.commit, False) and not self.changed


def _git(root: Path, *arguments: str) -> str:
    finished = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    return finished.stdout.strip() if finished.returncode == 0 else ""
