"""A figure whose picture and table differ is not shown; what the field draws every day is."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sparse_circuits as sc
from sparse_circuits.drawn import check_drawn

matplotlib.use("Agg")
TABLE = pd.DataFrame({"step": [1, 2, 3, 4], "loss": [2.51234, 1.25, 0.5, np.nan], "name": list("abcd")})
GRID = np.arange(12.0).reshape(3, 4) / 7


@pytest.fixture
def axes():
    """Axes of a new figure."""
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def twice(values):
    """The planted error: what is drawn is not what the table says."""
    return 2 * np.asarray(values, dtype=float)


def line(axes, change):
    axes.plot(TABLE["step"], change(TABLE["loss"]))
    return TABLE


def rounded_line(axes, change):
    axes.plot(TABLE["step"], change(TABLE["loss"]))
    return TABLE.round(3)


def line_on_its_side(axes, change):
    axes.plot(change(TABLE["loss"][:3]), range(3), "o")
    return TABLE


def second_line(axes, change):
    axes.plot(TABLE["step"], TABLE["loss"])
    axes.plot(TABLE["step"], change(TABLE["loss"] + 0.1))
    return TABLE.assign(control=TABLE["loss"] + 0.1)


def bars(axes, change):
    axes.bar(TABLE["name"][:3], change(TABLE["loss"][:3]))
    return TABLE


def lying_bars(axes, change):
    for place, loss in enumerate(TABLE["loss"][:3]):
        axes.barh(place, change([loss])[0])
    return TABLE


def percentages(axes, change):
    axes.bar(TABLE["name"][:3], 100 * change(TABLE["loss"][:3]))
    return TABLE


def shares_of_counts(axes, change):
    counts = pd.DataFrame({"a": [8, 4, 0], "b": [16, 0, 2]})
    axes.imshow(change(counts / [8, 16]))
    return counts


def one_row_of_a_heat_map(axes, change):
    axes.imshow(change(GRID))
    return pd.DataFrame({"last row": GRID[-1].round(3)})


CASES = [
    line, rounded_line, line_on_its_side, second_line, bars, lying_bars, percentages, shares_of_counts,
    one_row_of_a_heat_map,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_figure_drawn_from_its_table_is_shown(axes, case):
    table = case(axes, np.asarray)
    check_drawn(axes.figure, table)


@pytest.mark.parametrize("case", [case for case in CASES if case is not shares_of_counts])
def test_changed_data_behind_the_picture_are_caught(axes, case):
    table = case(axes, twice)
    with pytest.raises(ValueError, match="its table does not hold these numbers"):
        check_drawn(axes.figure, table)


def test_changed_shares_are_caught(axes):
    axes.imshow([[0.37, 0.9], [0.61, 0.2]])
    with pytest.raises(ValueError, match="a heat map of the figure draws"):
        check_drawn(axes.figure, pd.DataFrame({"a": [8, 4], "b": [16, 2]}))


def test_changed_data_in_the_table_are_caught(axes):
    table = line(axes, np.asarray)
    with pytest.raises(ValueError, match="a line of the figure draws"):
        check_drawn(axes.figure, table.assign(loss=[2.51, 1.25, 0.6, np.nan]))


def test_what_carries_no_data_is_left_alone(axes):
    axes.axhline(0.3)
    axes.plot([0, 5], [0, 9])
    axes.plot(np.linspace(0, 1), np.linspace(0, 1) ** 2, gid="reference")
    axes.imshow(np.zeros((4, 4, 3)))
    axes.text(0, 0, "17")
    check_drawn(axes.figure, TABLE)


def test_the_remedy_is_named(axes):
    axes.plot([1, 2, 3], [7, 8, 9.5])
    with pytest.raises(ValueError, match=r"7\. , 8\. , 9\.5.*data=.*set_gid\('reference'\)"):
        sc.plots.show(axes.figure, alt="Line chart of three points that rise slowly", data=TABLE[["loss"]])
