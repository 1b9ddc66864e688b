"""Resolve `requirements.lock` anew from `pyproject.toml`, for every platform, and leave out CUDA.

    python -m book_tools.lock [--upgrade]

Versions that stand in the lock are kept where they still fit; `--upgrade` takes the newest ones.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from sparse_circuits.checkpoints import write_atomically

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
HEADER = (
    "# The exact versions that CI runs. Installed with --no-deps, torch first and as a CPU build "
    "(lib/book_tools/install.py).\n"
)
# What only the CUDA build of PyTorch needs.
CUDA = re.compile(r"^(cuda-|nvidia-|triton\b)")
EXTRAS = ("book", "test", "lab", "install")
OLDEST_PYTHON = "3.11"


def resolve(*options: str) -> str:
    """Return the resolved requirements as text, one per line, with markers and without CUDA."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--no-header", "--no-annotate"]
    command += ["--python-version", OLDEST_PYTHON, *(f"--extra={extra}" for extra in EXTRAS), *options]
    wheels = os.environ.get("PIP_FIND_LINKS")
    command += ["--find-links", wheels] if wheels else []
    subprocess.run([*command, "--output-file", str(LOCK), "pyproject.toml"], cwd=ROOT, check=True)
    lines = (line for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return "".join(f"{line.replace('+cpu', '')}\n" for line in lines if not CUDA.match(line))


if __name__ == "__main__":
    write_atomically(LOCK, (HEADER + resolve(*sys.argv[1:])).encode())
