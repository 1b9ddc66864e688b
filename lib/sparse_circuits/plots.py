"""Figures and tables: one palette, a text alternative for each figure, and the data behind it.

Nothing here loads matplotlib before a figure is made.
"""

from __future__ import annotations

import base64
import html
import io
import math
import numbers
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from sparse_circuits.display import APPROXIMATELY, SIGNIFICANT_DIGITS, Shown, emit, format_number, in_notebook

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): told apart with each common form of colour blindness.
PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
COLOURS = tuple(PALETTE.values())
# One of each goes with the colour of the same place in `COLOURS`, so that colour never carries the meaning alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
SEQUENTIAL, DIVERGING = "cividis", "PuOr"

MIN_ALT_WORDS = 6
BACKTICKS = re.compile(r"`([^`]+)`")
DOTS_PER_INCH = 110
# Eight hues and black, each with the shades of its smooth edges.
PICTURE_COLOURS = 64
STYLE = {
    "figure.figsize": (7.0, 3.6),
    "figure.facecolor": "#FFFFFF",
    "savefig.facecolor": "#FFFFFF",
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "image.cmap": SEQUENTIAL,
    "font.size": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def use_style() -> None:
    """Make the book's style the default of every figure drawn from now on."""
    import matplotlib
    from cycler import cycler

    cycle = cycler(color=COLOURS) + cycler(linestyle=LINE_STYLES) + cycler(marker=MARKERS)
    matplotlib.rcParams.update({**STYLE, "axes.prop_cycle": cycle})


def show(fig: Figure, *, alt: str, data: pd.DataFrame, measured: Collection[str] | bool = ()) -> None:
    """Show a figure with its text alternative, and the data behind it in a table that folds out.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        The figure; it is closed afterwards.
    alt : str
        What the figure shows, for a reader who cannot see it: kind, axes, and what is to be noticed.
    data : pandas.DataFrame
        The numbers drawn.
    measured : collection of str, or True
        Columns of numbers that may move a little from run to run; True for every column that is not whole numbers.

    Raises
    ------
    ValueError
        If the text alternative is missing or says too little, the data is empty, or the figure draws numbers that are
        not in the data (see `check_drawn`).
    TypeError
        If `fig` is not a figure or `data` not a data frame.
    """
    if not hasattr(fig, "savefig"):
        raise TypeError(f"{type(fig).__name__} is not a figure; give the Figure, as in `fig, ax = plt.subplots()`.")
    from sparse_circuits.drawn import check_drawn

    check_alt(alt)
    _check_frame(data)
    check_drawn(fig, data)
    picture = _png(fig)
    if in_notebook():
        from IPython.display import display

        bundle = {"image/png": picture, "text/plain": f"Figure: {alt}"}
        display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
        display(_data_table(data, measured))
    else:
        print(f"Figure: {alt}")
        print(_data_table(data, measured).text)


def check_alt(alt: str) -> None:
    """Raise ValueError when `alt` does not describe a figure."""
    words = alt.split() if isinstance(alt, str) else []
    if len(words) < MIN_ALT_WORDS:
        raise ValueError(
            f"the text alternative is {alt!r}; say in {MIN_ALT_WORDS} words or more what the figure shows: its kind, "
            "its axes, and what is to be noticed."
        )


def table(
    data: pd.DataFrame, caption: str, measured: Collection[str] | bool = (), digits: int = SIGNIFICANT_DIGITS
) -> None:
    """Show a data frame as a table with a caption.

    Parameters
    ----------
    data : pandas.DataFrame
        The rows; the index is shown when it has a name.
    caption : str
        What the table shows.
    measured : collection of str, or True
        Columns of numbers that may move a little from run to run; True for every column that is not whole numbers.
    digits : int
        Significant digits of numbers that are not whole.

    Raises
    ------
    TypeError, ValueError
        If `data` is not a data frame or is empty, the caption is empty, or a measured column does not exist.
    """
    if not (isinstance(caption, str) and caption.strip()):
        raise ValueError(f"the caption is {caption!r}; say in a few words what the table shows.")
    header, rows = _cells(data, measured, digits)
    emit(_as_text(caption, header, rows), _as_html(caption, header, rows))


def _data_table(data: pd.DataFrame, measured: Collection[str] | bool) -> Shown:
    """Return the table that folds out below a figure."""
    caption = "Data behind the figure"
    header, rows = _cells(data, measured, SIGNIFICANT_DIGITS)
    folded = f'<details class="sc-data"><summary>{caption}</summary>{_as_html("", header, rows)}</details>'
    return Shown(_as_text(caption, header, rows), folded)


def _cells(data: pd.DataFrame, measured: Collection[str] | bool, digits: int) -> tuple[list[str], list[list[str]]]:
    """Return header and body of a data frame as text."""
    _check_frame(data)
    data = data.reset_index() if data.index.name else data
    if isinstance(measured, str):
        raise TypeError(f"measured is {measured!r}; give a list of columns, or True.")
    unknown = [] if isinstance(measured, bool) else [column for column in measured if column not in data.columns]
    if unknown:
        raise ValueError(f"measured names {unknown!r}; the columns are {list(data.columns)!r}.")
    columns = [
        [_cell(value, digits, measured if isinstance(measured, bool) else name in measured) for value in column]
        for name, column in data.items()
    ]
    return [str(name) for name in data.columns], [list(row) for row in zip(*columns, strict=True)]


def _cell(value: object, digits: int, measured: bool) -> str:
    """Write one cell; a measured number carries the mark that the check of the notebooks masks."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    mark = APPROXIMATELY if measured and not isinstance(value, int) else ""
    return mark + format_number(value, digits)


def _as_text(caption: str, header: list[str], rows: list[list[str]]) -> str:
    """Write a table without padding: the width of one number must not move the others."""
    return "\n".join([caption, *(" | ".join(row) for row in [header, *rows])])


def _as_html(caption: str, header: list[str], rows: list[list[str]]) -> str:
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    head = "".join(f'<th scope="col">{_marked_up(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{_marked_up(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<table class="sc-table">{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'


def _marked_up(cell: str) -> str:
    """Escape a cell; what stands between backticks is code, as in the prose."""
    return BACKTICKS.sub(r"<code>\1</code>", html.escape(cell))


def _check_frame(data: pd.DataFrame) -> None:
    if not (hasattr(data, "columns") and hasattr(data, "reset_index")):
        raise TypeError(f"the data is {type(data).__name__}; give a pandas.DataFrame.")
    if data.empty:
        raise ValueError("the data frame is empty; give the numbers that are shown.")


def _png(fig: Figure) -> str:
    """Draw the figure, close it, and return the picture in base 64, in few colours: a quarter of the bytes."""
    import matplotlib.pyplot as plt
    from PIL import Image

    drawn, stored = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    full = Image.open(drawn).convert("RGB")
    # The usual choice of colours, by how often they occur, would change those of a few small marks.
    picture = full.quantize(PICTURE_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(stored, format="PNG", optimize=True)
    return base64.b64encode(stored.getvalue()).decode("ascii")
