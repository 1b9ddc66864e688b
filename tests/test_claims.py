"""The ledger of claims: bands, record and check mode, messages."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sparse_circuits as sc
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_circuits.claims import LEDGER_VARIABLE, RECORD_VARIABLE, Claim

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


@pytest.fixture
def ledger_file(tmp_path, monkeypatch):
    """An empty ledger that `claim` uses in record mode."""
    monkeypatch.setenv(LEDGER_VARIABLE, str(tmp_path / "claims.json"))
    monkeypatch.setenv(RECORD_VARIABLE, "1")
    return tmp_path / "claims.json"


@pytest.fixture
def recorded(ledger_file, monkeypatch):
    """A ledger with one exact and one measured claim, in check mode."""
    sc.claim("quotes.edges", 17, how="edges kept")
    sc.claim("quotes.loss", 2.3, tolerance=0.05, how="held-out loss", unit="nats")
    monkeypatch.delenv(RECORD_VARIABLE)
    return ledger_file


@given(value=NUMBERS, tolerance=st.floats(1e-3, 1e3), measured=NUMBERS)
def test_a_band_holds_what_lies_within_it(value, tolerance, measured):
    claim = Claim("a", value, value - tolerance, value + tolerance)
    distance = abs(Fraction(measured) - Fraction(value))
    slack = Fraction(1e-8) * max(abs(Fraction(value)), 1)
    if distance <= Fraction(tolerance) - slack:
        assert claim.holds(measured)
    if distance > Fraction(tolerance) + slack + Fraction(1e-9) * Fraction(tolerance):
        assert not claim.holds(measured)


@pytest.mark.parametrize("value", [17, 17.0, np.int64(17), np.float64(17), torch.tensor(17), torch.tensor([17.0])])
def test_a_claim_returns_a_plain_number(recorded, value):
    measured = sc.claim("quotes.edges", value, how="edges kept")
    assert measured == 17
    assert type(measured) in (int, float)


def test_the_shown_line_marks_only_numbers_that_may_move(recorded, capsys):
    sc.claim("quotes.edges", 17, how="edges kept")
    sc.claim("quotes.loss", 2.3123, tolerance=0.05, how="held-out loss", unit="nats")
    exact, measured = capsys.readouterr().out.splitlines()
    assert exact == "claim quotes.edges: 17 (exact)"
    assert measured == "claim quotes.loss: ≈2.312 nats (band 2.250 to 2.350)"


@pytest.mark.parametrize("value", [16, 18, 17.001])
def test_an_exact_claim_may_not_move(recorded, value):
    with pytest.raises(sc.ClaimError, match=r"quotes\.edges.*measured.*allows 17 to 17.*record"):
        sc.claim("quotes.edges", value, how="edges kept")


@pytest.mark.parametrize("value", [2.2499, 2.3501, -2.3])
def test_a_value_outside_its_band_is_refused(recorded, value):
    with pytest.raises(sc.ClaimError, match=r"allows 2\.25 to 2\.35"):
        sc.claim("quotes.loss", value, tolerance=0.05, how="held-out loss", unit="nats")


@pytest.mark.parametrize("value", [2.25, 2.35, 2.3])
def test_the_ends_of_the_band_belong_to_it(recorded, value):
    assert sc.claim("quotes.loss", value, tolerance=0.05, how="held-out loss", unit="nats") == value


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"tolerance": 0.5}, "tolerance"),
        ({"how": "another way"}, "how"),
        ({"unit": "bits"}, "unit"),
        ({"control": "x"}, "control"),
    ],
)
def test_what_the_cell_says_must_be_what_the_ledger_says(recorded, changed, field):
    given = {"tolerance": 0.05, "how": "held-out loss", "unit": "nats"} | changed
    with pytest.raises(sc.ClaimError, match=rf"{field} is .* in the cell and .* in the ledger"):
        sc.claim("quotes.loss", 2.3, **given)


def test_an_unknown_claim_tells_a_reader_how_to_keep_a_ledger(recorded):
    with pytest.raises(sc.ClaimError, match=f"no claim is called 'mine.edges'.*{LEDGER_VARIABLE}"):
        sc.claim("mine.edges", 3)


@pytest.mark.parametrize("value", ["17", None, True, torch.tensor(True), [1, 2], 1j])
def test_only_real_numbers_are_claims(ledger_file, value):
    with pytest.raises(TypeError, match="give one real number"):
        sc.claim("a.b", value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_only_finite_numbers_are_claims(ledger_file, value):
    with pytest.raises(ValueError, match="finite"):
        sc.claim("a.b", value)


@pytest.mark.parametrize(
    "arguments", [("A b", 1), ("a..b", 1), ("a.b", 1, -0.1), ("a.b", 1, math.nan), ("a.b", 1, 0.1)]
)
def test_bad_arguments_are_refused(ledger_file, arguments):
    with pytest.raises(ValueError, match="claim"):
        sc.claim(*arguments)
    assert not ledger_file.exists()


def test_the_ledger_survives_a_round_trip(recorded):
    ledger = sc.Ledger(recorded)
    before = recorded.read_bytes()
    ledger.save()
    assert recorded.read_bytes() == before
    assert [claim.id for claim in ledger] == ["quotes.edges", "quotes.loss"]
    assert ledger["quotes.loss"].tolerance == pytest.approx(0.05)


def test_recording_again_keeps_the_place_in_the_notebook(recorded, monkeypatch):
    ledger = sc.Ledger(recorded)
    ledger.put(Claim("quotes.edges", 17, 17, 17, "edges kept", notebook="00_x", cell="result"))
    ledger.save()
    monkeypatch.setenv(RECORD_VARIABLE, "1")
    sc.claim("quotes.edges", 18, how="edges kept")
    entry = sc.Ledger(recorded)["quotes.edges"]
    assert (entry.value, entry.notebook, entry.cell) == (18, "00_x", "result")


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"a": {"colour": 1}}', '{"a": {"value": 1}}'])
def test_a_damaged_ledger_is_named(tmp_path, content):
    (tmp_path / "claims.json").write_text(content)
    with pytest.raises(sc.ClaimError, match=r"claims\.json is not a ledger"):
        sc.Ledger(tmp_path / "claims.json")


def test_a_missing_ledger_is_empty(tmp_path):
    assert len(sc.Ledger(tmp_path / "none.json")) == 0


ROWS = [("edges", 17, 0, "edges"), ("loss", 2.3, 0.05, "loss", "edges")]


def test_claims_that_are_made_together_are_those_made_one_by_one(ledger_file, tmp_path, monkeypatch, capsys):
    sc.claim_rows("quotes", "{} of the circuit", ROWS)
    shown = capsys.readouterr().out.splitlines()
    together = ledger_file.read_text()
    monkeypatch.setenv(LEDGER_VARIABLE, str(tmp_path / "one by one.json"))
    sc.claim("quotes.edges", 17, how="edges of the circuit")
    sc.claim("quotes.loss", 2.3, tolerance=0.05, how="loss of the circuit", control="quotes.edges")
    assert together == (tmp_path / "one by one.json").read_text()
    assert shown == capsys.readouterr().out.splitlines()


def test_one_of_several_claims_that_leaves_its_band_is_named(ledger_file, monkeypatch):
    sc.claim_rows("quotes", "{} of the circuit", ROWS)
    monkeypatch.delenv(RECORD_VARIABLE)
    with pytest.raises(sc.ClaimError, match=r"quotes\.loss.*measured 2\.4"):
        sc.claim_rows("quotes", "{} of the circuit", [ROWS[0], ("loss", 2.4, 0.05, "loss", "edges")])
