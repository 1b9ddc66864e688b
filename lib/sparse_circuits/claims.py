"""The ledger of claims: every number that the prose uses is measured again each time a chapter runs.

A chapter calls `claim("quotes.circuit.edges", edges)`; the prose says `**17**<!-- claim:quotes.circuit.edges -->`; the
ledger `data/claims.json` holds the band that both must agree with.
"""

from __future__ import annotations

import html
import json
import math
import numbers
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sparse_circuits.checkpoints import canonical_json, data_path, write_atomically
from sparse_circuits.display import APPROXIMATELY, emit, format_number

RECORD_VARIABLE = "SPARSE_CIRCUITS_RECORD"
LEDGER_VARIABLE = "SPARSE_CIRCUITS_CLAIMS"
ID_PATTERN = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
# The width allowed to an exact claim, relative to its value: the last bits of a float differ between processors.
FLOAT_SLACK = 1e-9


class ClaimError(AssertionError):
    """A measured number does not agree with the ledger of claims."""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger.

    Parameters
    ----------
    id : str
        Lower-case words joined by dots, such as `quotes.circuit.edges`.
    value : int or float
        The number as measured when the entry was recorded.
    low, high : int or float
        The band: what is measured later must lie in `[low, high]`. Both equal `value` for an exact claim.
    how : str
        How the number is measured, in one sentence.
    unit : str
        Unit shown after the number; empty for a plain number.
    control : str
        The claim that this one is compared with, if any; the linter asks that their bands do not overlap.
    notebook, cell : str
        Name of the notebook without its suffix, and id of the cell; filled by `book_tools` when it records.
    """

    id: str
    value: float
    low: float
    high: float
    how: str = ""
    unit: str = ""
    control: str = ""
    notebook: str = ""
    cell: str = ""

    @property
    def tolerance(self) -> float:
        """Half the width of the band, in the unit of the claim."""
        return (self.high - self.low) / 2

    @property
    def exact(self) -> bool:
        """Whether the claim has no tolerance."""
        return self.low == self.high

    def holds(self, measured: float) -> bool:
        """Tell whether `measured` lies in the band."""
        slack = FLOAT_SLACK * max(abs(self.low), abs(self.high))
        return self.low - slack <= measured <= self.high + slack

    def band(self) -> str:
        """Return the band in words, as shown to readers."""
        return "exact" if self.exact else f"band {format_number(self.low)} to {format_number(self.high)}"

    def line(self, measured: float) -> str:
        """Return the line that the cell shows for a `measured` value of this claim."""
        mark = "" if self.exact else APPROXIMATELY
        unit = f" {self.unit}" if self.unit else ""
        return f"claim {self.id}: {mark}{format_number(measured)}{unit} ({self.band()})"


class Ledger:
    """The claims of a book or of one reader, in a JSON file.

    Parameters
    ----------
    path : str or Path, optional
        The file; by default the one that the environment variable `SPARSE_CIRCUITS_CLAIMS` names, else the book's own.
        A file that does not exist is an empty ledger.

    Raises
    ------
    ClaimError
        If the file is not a ledger.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or os.environ.get(LEDGER_VARIABLE) or data_path("claims.json"))
        self.claims: dict[str, Claim] = {}
        if self.path.exists():
            try:
                entries = json.loads(self.path.read_text(encoding="utf-8"))
                self.claims = {name: Claim(id=name, **entry) for name, entry in entries.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise ClaimError(
                    f"{self.path.name} is not a ledger of claims ({error}); restore the file, or record it again."
                ) from error

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims[name] for name in sorted(self.claims))

    def __len__(self) -> int:
        return len(self.claims)

    def __contains__(self, name: str) -> bool:
        return name in self.claims

    def __getitem__(self, name: str) -> Claim:
        if name not in self.claims:
            raise ClaimError(
                f"no claim is called {name!r} in {self.path.name}; record it, or keep a ledger of your own: set the "
                f"environment variable {LEDGER_VARIABLE} to a file and {RECORD_VARIABLE} to 1, and run the cell again."
            )
        return self.claims[name]

    def put(self, claim: Claim) -> None:
        """Add or replace one entry in memory; where it stands in a notebook is kept unless `claim` says so."""
        known = self.claims.get(claim.id)
        if known and not claim.notebook:
            claim = replace(claim, notebook=known.notebook, cell=known.cell)
        self.claims[claim.id] = claim

    def save(self) -> None:
        """Write the file atomically, ordered by id."""
        entries = {
            claim.id: {name: field for name, field in asdict(claim).items() if name != "id" and field != ""}
            for claim in self
        }
        write_atomically(self.path, canonical_json(entries))


def anchor(name: str) -> str:
    """Return the id of the HTML element that marks where the claim `name` is made."""
    return f"claim-{name}"


def claim(
    name: str, value: float, tolerance: float = 0.0, *, how: str = "", unit: str = "", control: str = ""
) -> int | float:
    """Check a measured number against the ledger, show it, and return it.

    Parameters
    ----------
    name : str
        The claim's id: lower-case words joined by dots, such as `quotes.circuit.edges`.
    value : int or float
        What was just measured; tensors and arrays with one element are accepted.
    tolerance : float
        Half the width of the band, in the unit of `value`; 0 for a number that may not move at all.
    how : str
        How the number is measured, in one sentence; required with a tolerance.
    unit : str
        Unit shown after the number.
    control : str
        Id of the claim that this one is compared with, for a result that must stand clear of its control.

    Returns
    -------
    int or float
        The value as a plain Python number.

    Raises
    ------
    ClaimError
        If the value leaves its band, or if tolerance, unit, control or `how` are not those of the ledger.
    TypeError, ValueError
        If an argument is not of the kind described here.

    Notes
    -----
    With the environment variable `SPARSE_CIRCUITS_RECORD` set to 1 the entry is written and not checked.
    An exact float may differ from the ledger by one part in 10⁹.
    """
    made, entry = _measured(name, value, tolerance, how, unit, control)
    _show([(entry, made.value)])
    return made.value


def claim_rows(prefix: str, how: str, rows: Iterable[tuple], unit: str = "") -> None:
    """Check claims that are measured in one way against the ledger, and show them together.

    Parameters
    ----------
    prefix : str
        Begins each id; a dot follows.
    how : str
        As in `claim`, with `{}` where the rows differ.
    rows : iterable of tuple
        For each claim the rest of its id, its value, its tolerance, what stands in the place of `{}`, and, for a result
        with a control, the rest of the control's id.
    unit : str
        Shown after the numbers.

    Raises
    ------
    ClaimError, TypeError, ValueError
        As in `claim`, at the first claim that fails.
    """
    shown = []
    for name, value, tolerance, what, *control in rows:
        controls = "".join(f"{prefix}.{other}" for other in control)
        made, entry = _measured(f"{prefix}.{name}", value, tolerance, how.format(what), unit, controls)
        shown.append((entry, made.value))
    _show(shown)


def _measured(name: str, value, tolerance: float, how: str, unit: str, control: str) -> tuple[Claim, Claim]:
    """Record or check one claim; return it as made, and its entry in the ledger."""
    number = _plain_number(name, value)
    made = Claim(name, number, *_band(number, tolerance), how, unit, control)
    _check_arguments(made, tolerance)
    ledger = Ledger()
    if os.environ.get(RECORD_VARIABLE) == "1":
        ledger.put(made)
        ledger.save()
    else:
        _check(ledger[name], made, tolerance)
    return made, ledger[name]


def _plain_number(name: str, value) -> int | float:
    """Return `value` as an int or a finite float."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise TypeError(f"claim {name!r} got {value!r}; give one real number.")
    plain = int(plain) if isinstance(plain, numbers.Integral) else float(plain)
    if not math.isfinite(plain):
        raise ValueError(f"claim {name!r} got {plain!r}; a claim is a finite number: look at how it was computed.")
    return plain


def _band(measured: float, tolerance: float) -> tuple[float, float]:
    """Return the ends of the band, without the noise in the last bits that the sums would leave in the file."""
    if not tolerance:
        return measured, measured
    return float(f"{measured - tolerance:.12g}"), float(f"{measured + tolerance:.12g}")


def _check_arguments(made: Claim, tolerance: float) -> None:
    if not ID_PATTERN.fullmatch(made.id):
        raise ValueError(
            f"claim id {made.id!r} is not lower-case words joined by dots, such as 'quotes.circuit.edges'."
        )
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance of claim {made.id!r} is {tolerance!r}; give a number that is 0 or more.")
    if tolerance and not made.how.strip():
        raise ValueError(f"claim {made.id!r} has a tolerance but no `how`; say in one sentence how it is measured.")


def _check(entry: Claim, made: Claim, tolerance: float) -> None:
    """Raise when what the cell says about the claim is not what the ledger says."""
    for field in ("how", "unit", "control"):
        if getattr(entry, field) != getattr(made, field):
            raise ClaimError(
                f"claim {made.id!r}: {field} is {getattr(made, field)!r} in the cell and {getattr(entry, field)!r} in "
                f"the ledger; undo the change, or record the chapter again with {RECORD_VARIABLE}=1."
            )
    if not math.isclose(entry.tolerance, tolerance, rel_tol=1e-6, abs_tol=FLOAT_SLACK * abs(entry.value)):
        raise ClaimError(
            f"claim {made.id!r}: tolerance is {tolerance!r} in the cell and {entry.tolerance:.6g} in the ledger; "
            f"undo the change, or record the chapter again with {RECORD_VARIABLE}=1."
        )
    if not entry.holds(made.value):
        raise ClaimError(
            f"claim {made.id!r}: measured {made.value!r}, but the ledger allows {entry.low!r} to {entry.high!r} "
            f"({entry.band()}). If you changed a cell or the seed, this shows what your change does. If you changed "
            f"nothing, the result did not reproduce here: compare your versions with those in requirements.lock. "
            f"An author records a wanted change with {RECORD_VARIABLE}=1."
        )


def _show(measured: Iterable[tuple[Claim, float]]) -> None:
    lines, marked = [], []
    for entry, value in measured:
        lines.append(entry.line(value))
        named = html.escape(lines[-1]).replace(entry.id, f"<code>{entry.id}</code>", 1)
        marked.append(f'<div id="{anchor(entry.id)}" class="sc-claim">✓ {named}</div>')
    emit("\n".join(lines), "\n".join(marked))
