"""Check that the table behind a figure holds what the figure draws.

A picture is stored as pixels, which no test compares. So the numbers that matplotlib was given are compared with the
table when the figure is shown: a figure drawn from other data than its table says does not appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A table may round to three decimals what is drawn in full.
TOLERANCE = 1e-3
MIN_POINTS = 3
REFERENCE = "reference"


def check_drawn(fig: Figure, data: pd.DataFrame) -> None:
    """Raise when a line, a bar or a heat map shows numbers that its table lacks.

    A line is checked when it has three points or more that are not all level; one that is drawn for reference alone,
    such as a theoretical curve, is left out when its `gid` is `reference`. Of a heat map the table must hold at least
    one row or column. Numbers may stand in the table as counts of which the figure draws the share, and a figure may
    draw shares as percentages.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        The figure.
    data : pandas.DataFrame
        The table.

    Raises
    ------
    ValueError
        If something is drawn that the table does not hold.
    """
    columns = [column for name in data if (column := _numbers(data[name])).size]
    for axes in fig.axes:
        for what, choices in _series(axes):
            if not any(_in_table(choice, columns) for choice in choices):
                values = np.array2string(choices[0][:6], precision=4, separator=", ", threshold=6)
                raise ValueError(
                    f"{what} of the figure draws {values} and its table does not hold these numbers; give the numbers "
                    f"drawn as data=, or mark a line that is only for reference with line.set_gid({REFERENCE!r})."
                )


def _series(axes: Axes) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield (what it is, series of which the table must hold one) for each thing in the axes that carries data."""
    for line in axes.get_lines():
        along, heights = (_numbers(values) for values in (line.get_xdata(orig=False), line.get_ydata(orig=False)))
        if line.get_gid() != REFERENCE and heights.size >= MIN_POINTS and np.ptp(heights) > 0:
            # Rows that are merely counted carry no data: the line lies on its side.
            yield "a line", [along if np.array_equal(heights, np.arange(heights.size)) else heights]
    for container in axes.containers:
        if hasattr(container, "datavalues"):
            yield "a bar", [_numbers(container.datavalues)]
    for image in axes.get_images():
        grid = np.ma.getdata(image.get_array()).astype(float)
        # A picture with colour channels carries no data.
        if grid.ndim == 2:
            yield "a heat map", [_numbers(part) for part in (*grid, *grid.T)]


def _in_table(series: np.ndarray, columns: list[np.ndarray]) -> bool:
    """Tell whether each number of a series stands in the table: as it is, as a percentage, or as a count."""
    if not series.size:
        return True
    everything = np.concatenate(columns) if columns else np.empty(0)
    return (
        _contained(series, everything)
        or _contained(series / 100, everything)
        or _contained(series * 100, everything)
        or any(_contained(series, column / whole) for column in columns for whole in _wholes(series, column))
    )


def _contained(series: np.ndarray, values: np.ndarray) -> bool:
    if not values.size:
        return False
    ordered = np.sort(values)
    place = np.searchsorted(ordered, series).clip(1, max(1, ordered.size - 1))
    nearest = np.minimum(abs(series - ordered[place - 1]), abs(series - ordered[place.clip(max=ordered.size - 1)]))
    return bool((nearest <= TOLERANCE * (1 + abs(series))).all())


def _wholes(series: np.ndarray, column: np.ndarray) -> set[float]:
    """Return the whole numbers of which a column of counts could be the shares that are drawn."""
    largest, counted = series.max(), column.max()
    if not (0 < largest <= 1 and counted >= 1 and (column == column.round()).all()):
        return set()
    return {float(round(counted / largest))}


def _numbers(values) -> np.ndarray:
    """Return the finite numbers among some values; nothing for texts and truth values."""
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array([value for value in array.ravel() if isinstance(value, int | float | np.number)])
    if array.dtype.kind not in "iuf":
        return np.empty(0)
    array = array.astype(float).ravel()
    return array[np.isfinite(array)]
