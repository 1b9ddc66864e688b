"""Show one thing as HTML in a notebook and as plain text everywhere else."""

from __future__ import annotations

import sys
from dataclasses import dataclass

# A number with this mark in front of it may move a little between runs; the check of the notebooks masks it.
APPROXIMATELY = "≈"

SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Shown:
    """A text and its HTML form; notebooks render the HTML.

    Parameters
    ----------
    text : str
        Plain text, shown by terminals and kept in the notebook beside the HTML.
    html : str
        A fragment of HTML that needs no script.
    """

    text: str
    html: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def in_notebook() -> bool:
    """Tell whether a Jupyter kernel is running this process."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def emit(text: str, html: str) -> None:
    """Show `html` in a notebook, or print `text` in any other place."""
    if in_notebook():
        from IPython.display import display

        display(Shown(text, html))
    else:
        print(text)


def format_number(value: float, digits: int = SIGNIFICANT_DIGITS) -> str:
    """Write a number in one fixed way: integers whole, other numbers with `digits` significant digits.

    Parameters
    ----------
    value : int or float
        The number.
    digits : int
        Significant digits of a number that is not an integer.

    Returns
    -------
    str
        For example `17`, `0.1250`, `1.200e-07`.
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:#.{digits}g}".removesuffix(".")
