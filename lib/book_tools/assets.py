"""Copy third-party scripts from installed packages to where the site serves them; none is committed."""

import shutil
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "book" / "_static" / "vendor"

# installed package -> (file inside it, name on the site)
ASSETS = {"circuitsvis": ("dist/cdn/iife.js", "circuitsvis.js")}


def package_file(package: str, path: str) -> Path:
    """Return a file of an installed package without importing the package.

    Raises
    ------
    FileNotFoundError
        If the package is not installed or no longer holds the file.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {package!r} is not installed in this environment; run 'make install'")
    found = Path(spec.submodule_search_locations[0]) / path
    if not found.is_file():
        raise FileNotFoundError(f"{found} is missing: {package} has moved it; correct ASSETS in {Path(__file__).name}")
    return found


def copy_assets(target: Path = VENDOR) -> list[Path]:
    """Copy every asset into `target` and return the copies."""
    target.mkdir(parents=True, exist_ok=True)
    return [shutil.copyfile(package_file(package, path), target / name) for package, (path, name) in ASSETS.items()]


if __name__ == "__main__":
    for copy in copy_assets():
        print(f"assets: {copy.relative_to(ROOT)}")
