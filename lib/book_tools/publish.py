"""Push a generated folder to a branch of its own; the branch and the files that are checked out are not touched."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path


def push_folder(repository: Path, folder: Path, branch: str, message: str, remote: str = "origin") -> str:
    """Make one commit without a parent from a folder, push it to a branch of the remote, and return its hash.

    What the branch held before is replaced: it is generated, and its history is that of its source.

    Raises
    ------
    subprocess.CalledProcessError
        If git refuses; its message is on standard error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        # Forced, because generated folders are ignored; from the folder, so that paths start there.
        _git(repository, f"--work-tree={folder.resolve()}", "add", "--all", "--force", ".", cwd=folder, **index)
        tree = _git(repository, "write-tree", **index)
    commit = _git(repository, "commit-tree", tree, "-m", message)
    _git(repository, "push", "--force", remote, f"{commit}:refs/heads/{branch}")
    return commit


def _git(repository: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> str:
    git_folder = subprocess.run(
        ["git", "rev-parse", "--absolute-git-dir"], cwd=repository, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    command = ["git", f"--git-dir={git_folder}", *arguments]
    return subprocess.run(
        command, cwd=cwd or repository, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
