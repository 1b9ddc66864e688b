"""Make `.venv` from `requirements.lock`, with the CPU build of PyTorch.

Runs on the system's Python before anything is installed, so it uses the standard library alone.
"""

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
PYTHON = VENV / "bin" / "python"


def run(*command: str) -> None:
    """Run a command and stop with its exit status when it fails."""
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        sys.exit(f"install: {' '.join(command)!r} ended with status {status}; see its message above.")


def locked_version(package: str) -> str:
    """Return the version of `package` in `requirements.lock`."""
    found = re.search(rf"^{re.escape(package)}==([^\s;]+)", LOCK.read_text(), flags=re.MULTILINE)
    if not found:
        sys.exit(f"install: {LOCK.name} names no version of {package}; restore the file from git.")
    return found.group(1)


def pip_offers_cpu_build(requirement: str) -> bool:
    """Ask pip, without downloading, whether its configured sources give a CPU build of torch."""
    if platform.system() != "Linux":
        return True
    options = ["--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-"]
    report = subprocess.run([PYTHON, "-m", "pip", "install", *options, requirement], capture_output=True, text=True)
    if report.returncode:
        return False
    return json.loads(report.stdout)["install"][0]["metadata"]["version"].endswith("+cpu")


def install_torch(requirement: str) -> None:
    """Install the CPU build: from a local wheel where pip is configured with one, else from the address uv knows."""
    if pip_offers_cpu_build(requirement):
        run(str(PYTHON), "-m", "pip", "install", "--quiet", "--no-deps", requirement)
    else:
        run(
            str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--python", str(PYTHON),
            "--no-deps", "--torch-backend", "cpu", requirement,
        )  # fmt: skip


def main() -> None:
    """Create the environment; safe to run again."""
    if sys.version_info < (3, 11):  # noqa: UP036  (the system's Python may be any)
        sys.exit(f"install: Python 3.11 or newer is needed, this is {platform.python_version()}; set PYTHON=python3.X.")
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", str(VENV))
    uv_pip = (str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--python", str(PYTHON), "--no-deps")
    run(str(PYTHON), "-m", "pip", "install", "--quiet", "--no-deps", f"uv=={locked_version('uv')}")
    install_torch(f"torch=={locked_version('torch')}")
    run(*uv_pip, "--requirement", str(LOCK))
    run(*uv_pip, "--no-build-isolation", "--editable", str(ROOT))
    (VENV / "installed").touch()


if __name__ == "__main__":
    main()
