"""Put third-party scripts, icons and the font of the mathematics where the site serves them; none is committed.

Everything comes from installed packages. The theme's icon set weighs 1.9 MB and MathJax 1.2 MB on every page; here a
page takes the few icons that the theme shows, KaTeX only where there is mathematics, and a font cut down to what
mathematics needs.
"""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from sparse_circuits.checkpoints import write_atomically

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "book" / "_static" / "vendor"

# installed package -> (file inside it, name on the site)
SCRIPTS = {
    "circuitsvis": ("dist/cdn/iife.js", "circuitsvis.js"),
    "sphinxcontrib": ("katex.min.js", "katex.js"),
}

ICON_SET = ("pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/vendor/fontawesome/6.5.2/js/all.min.js")
ICONS = (
    "angle-left", "angle-right", "arrow-up", "bars", "chevron-down", "circle-half-stroke", "download", "ellipsis",
    "expand", "file", "file-lines", "file-pdf", "github", "house", "lightbulb", "list", "magnifying-glass", "moon",
    "outdent", "pencil", "rocket", "sun", "xmark",
)  # fmt: skip
ICON_NOTICE = "/* Icons of Font Awesome Free 6.5.2 by Fonticons, Inc., CC BY 4.0; put into the page as masks. */"

MATH_FONT = ("ziamath", "fonts/STIXTwoMath-Regular.ttf")
# Latin, accents, Greek, and the mathematical alphabets; then single signs. Others come from a font of the reader's.
MATH_BLOCKS = (
    range(0x20, 0x7F), range(0x300, 0x310), range(0x391, 0x3AA), range(0x3B1, 0x3CA), range(0x1D400, 0x1D468),
    range(0x1D49C, 0x1D4B6), range(0x1D538, 0x1D551), range(0x1D6FC, 0x1D71C),
)  # fmt: skip
MATH_SIGNS = (
    "∀∂∃∅∇∈∉∋∏∑−∓∗∘√∝∞∠∣∥∧∨∩∪∫∬∴∼≃≅≈≠≡≤≥≪≫⊂⊃⊆⊇⊕⊖⊗⊙⊤⊥⋅⋆⋮⋯⋱⟨⟩⌈⌉⌊⌋←↑→↓↔↦⇐⇒⇔⟶⟹⟺⟵ℎℓℏ℘ℜℑℵ×÷±¬°·†‡…′″‖ˆˇˉ˘˙˜¯¨´ϵϕϑϱϖ–—"
    "ℬℰℱℋℐℒℳℛℂℍℕℙℚℝℤ"
)


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
    for place in spec.submodule_search_locations:
        if (Path(place) / path).is_file():
            return Path(place) / path
    raise FileNotFoundError(f"{package} no longer holds {path}; correct its entry in {Path(__file__).name}")


def icon_styles(source: str) -> str:
    """Return a style sheet that gives each icon its form as `--sc-icon`.

    Parameters
    ----------
    source : str
        The script of Font Awesome, which holds width, height and path of each icon by name.

    Raises
    ------
    ValueError
        If an icon is not in the script.
    """
    rules = [ICON_NOTICE]
    for name in ICONS:
        found = re.findall(rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]', source)
        if not found:
            raise ValueError(f"the icon set holds no {name!r}; correct ICONS in {Path(__file__).name}")
        # The solid form comes after the outlined one.
        width, height, path = found[-1]
        picture = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'><path d='{path}'/></svg>"
        rules.append(f'.fa-{name} {{ --sc-icon: url("data:image/svg+xml,{quote(picture, safe=" =:/")}"); }}')
    return "\n".join(rules) + "\n"


def cut_math_font(source: Path, target: Path) -> None:
    """Write the part of a font that mathematics needs, with its table of mathematical layout, as WOFF."""
    from fontTools import subset

    options = subset.Options(flavor="woff", hinting=False, layout_features=[])
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[code for block in MATH_BLOCKS for code in block], text=MATH_SIGNS)
    cutter.subset(font)
    subset.save_font(font, str(target), options)


def make_assets(target: Path = VENDOR) -> list[Path]:
    """Write every asset into `target` and return the files."""
    target.mkdir(parents=True, exist_ok=True)
    made = [shutil.copyfile(package_file(package, path), target / name) for package, (path, name) in SCRIPTS.items()]
    icons, font = target / "icons.css", target / "mathematics.woff"
    write_atomically(icons, icon_styles(package_file(*ICON_SET).read_text(encoding="utf-8")).encode())
    if not font.exists() or font.stat().st_mtime < Path(__file__).stat().st_mtime:
        cut_math_font(package_file(*MATH_FONT), font)
    return [*made, icons, font]


if __name__ == "__main__":
    for asset in make_assets():
        print(f"assets: {asset.relative_to(ROOT)}, {asset.stat().st_size:,} bytes")
