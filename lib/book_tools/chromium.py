"""Install Debian's Chromium for the browser tests, where it is missing and may be installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")


def missing_reason() -> str | None:
    """Install Chromium if need be; return None when it is there, else the reason why it cannot be had."""
    if CHROMIUM.exists():
        return None
    if not shutil.which("apt-get"):
        return f"{CHROMIUM} is missing and there is no apt-get here to install it with"
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if as_root and not shutil.which("sudo"):
        return f"{CHROMIUM} is missing and installing it needs root; run: apt-get install chromium"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        command = [*as_root, "apt-get", "--quiet", *arguments]
        finished = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if finished.returncode:
            last_line = (finished.stdout.strip().splitlines() or ["no message"])[-1]
            return f"{CHROMIUM} is missing and '{' '.join(command)}' failed: {last_line}"
    return None if CHROMIUM.exists() else f"{CHROMIUM} is missing although its package is installed"


def main() -> None:
    """Report on standard output; a machine without Chromium is an error only in CI."""
    reason = missing_reason()
    print(f"chromium: {reason or CHROMIUM}")
    if reason and os.environ.get("CI"):
        sys.exit(1)


if __name__ == "__main__":
    main()
