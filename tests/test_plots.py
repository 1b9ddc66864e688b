"""Figures and tables: text alternatives, data, stable text; and an import that loads nothing heavy."""

import base64
import io
import subprocess
import sys

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import sparse_circuits as sc
from bs4 import BeautifulSoup
from sparse_circuits import plots

matplotlib.use("Agg")
ALT = "Line chart of loss against step: it falls and then stays level"
FRAME = pd.DataFrame({"step": [1, 2], "loss": [0.51234, np.nan], "name": ["a<b", "b"]})


@pytest.fixture
def figure():
    """A figure in the book's style."""
    import matplotlib.pyplot as plt

    plots.use_style()
    fig, ax = plt.subplots()
    ax.plot(FRAME["step"], FRAME["step"])
    return fig


@pytest.mark.parametrize("alt", ["", "A figure", None, "line chart of the loss"])
def test_a_figure_needs_a_text_alternative(figure, alt):
    with pytest.raises(ValueError, match="text alternative is"):
        sc.plots.show(figure, alt=alt, data=FRAME)


def test_a_figure_needs_its_data(figure):
    with pytest.raises(TypeError):
        sc.plots.show(figure, alt=ALT)
    with pytest.raises(TypeError, match="give a pandas"):
        sc.plots.show(figure, alt=ALT, data=[1, 2])
    with pytest.raises(ValueError, match="empty"):
        sc.plots.show(figure, alt=ALT, data=pd.DataFrame())
    with pytest.raises(TypeError, match="not a figure"):
        sc.plots.show(figure.axes[0], alt=ALT, data=FRAME)


def test_a_shown_figure_tells_its_text_and_data(figure, capsys):
    sc.plots.show(figure, alt=ALT, data=FRAME, measured=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Figure: {ALT}", "Data behind the figure", "step | loss | name", "1 | ≈0.5123 | a<b", "2 | – | b"]


def test_a_picture_is_a_png_and_the_same_each_time(figure):
    first = plots._png(figure)
    assert plots._png(figure) == first
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(first)), format="png")
    assert pixels.shape[0] > 200
    assert (pixels[0, 0] == 1).all()


def test_small_marks_keep_their_colours_in_a_stored_picture():
    """Each of 20 shades of a colour map, in marks of a few pixels, beside a line that takes far more of them."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(3, 3))
    axes.plot([0, 1, 2], [5, 0, 5], linewidth=40, color=plots.PALETTE["orange"])
    axes.scatter(range(20), [9] * 20, c=range(20), marker="s", s=12, lw=0, cmap=plots.SEQUENTIAL)
    shades = 255 * matplotlib.colormaps[plots.SEQUENTIAL](range(0, 256, 13))[:, :3]
    stored = matplotlib.image.imread(io.BytesIO(base64.b64decode(plots._png(fig))), format="png")
    pixels = 255 * stored[..., :3].reshape(-1, 3)
    for shade in shades:
        assert abs(pixels - shade).max(axis=1).min() < 12


def test_a_table_marks_measured_columns_only(capsys):
    frame = pd.DataFrame({"a": [1.0, 2.5], "b": [1.0, 2.5]}, index=pd.Index(["x", "y"], name="row"))
    sc.plots.table(frame, "Two columns", measured=["b"], digits=2)
    assert capsys.readouterr().out.splitlines() == ["Two columns", "row | a | b", "x | 1.0 | ≈1.0", "y | 2.5 | ≈2.5"]


def test_backticks_in_a_table_are_code_and_stay_escaped():
    table = plots._as_html("", ["`name`"], [['fires on `<"`'], ["a lone ` stays"]])
    assert '<th scope="col"><code>name</code></th>' in table
    assert "<td>fires on <code>&lt;&quot;</code></td>" in table
    assert "<td>a lone ` stays</td>" in table


def test_html_of_a_table_is_escaped_and_complete():
    page = BeautifulSoup(plots._data_table(FRAME, ()).html, "html.parser")
    rows = [[cell.text for cell in row.find_all(["th", "td"])] for row in page.details.table.find_all("tr")]
    assert rows == [["step", "loss", "name"], ["1", "0.5123", "a<b"], ["2", "–", "b"]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"caption": " "}, ValueError),
        ({"caption": "c", "measured": "loss"}, TypeError),
        ({"caption": "c", "measured": ["x"]}, ValueError),
    ],
)
def test_a_bad_table_is_refused(arguments, error):
    with pytest.raises(error):
        sc.plots.table(FRAME, **arguments)


def test_each_colour_has_a_form_of_its_own():
    for forms in (plots.MARKERS, plots.LINE_STYLES, plots.HATCHES):
        assert len(set(forms)) == len(set(plots.COLOURS)) == len(forms)


def test_the_package_loads_nothing_heavy():
    code = (
        "import sys, sparse_circuits as sc, sparse_circuits.claims, sparse_circuits.plots, sparse_circuits.grading;"
        "print(sorted({'torch', 'matplotlib', 'pandas', 'transformer_lens', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_every_public_name_can_be_loaded():
    for name in sc.__all__:
        assert getattr(sc, name) is not None
    assert set(sc.__all__) <= set(dir(sc))
    with pytest.raises(AttributeError, match="it offers"):
        _ = sc.no_such_name
