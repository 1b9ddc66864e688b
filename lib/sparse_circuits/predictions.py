"""Guess first, then look: `predict` keeps the reader's guess, `reveal` sets it beside the result."""

from __future__ import annotations

import html
import numbers

from sparse_circuits.display import APPROXIMATELY, emit, format_number

_guesses: dict[str, object] = {}


def predict(name: str, guess: object = ...) -> None:
    """Keep a guess until the cell that reveals the result.

    Parameters
    ----------
    name : str
        The prediction, such as `"00.a"`.
    guess : float, (float, float) or str
        A number, an interval that you think the number lies in, or one of the choices named in the text.
        `...` leaves the prediction open.

    Raises
    ------
    TypeError, ValueError
        If the guess is of another kind, or an interval runs from high to low.
    """
    if guess is None or guess is ...:
        _guesses.pop(name, None)
        _show(name, "no guess yet. Put yours in place of ... and run the cell again, before you read on.")
        return
    if isinstance(guess, tuple | list):
        if len(guess) != 2 or not all(_is_number(bound) for bound in guess):
            raise TypeError(f"prediction {name}: {guess!r} is not an interval; give (low, high).")
        if guess[0] > guess[1]:
            raise ValueError(f"prediction {name}: {guess!r} runs from high to low; give (low, high).")
    elif not isinstance(guess, str) and not _is_number(guess):
        raise TypeError(
            f"prediction {name}: {guess!r} is not a guess; give a number, (low, high), or a choice in quotes."
        )
    _guesses[name] = guess
    _show(name, f"you guess {_describe(guess)}. Read on to see.")


def reveal(name: str, actual: float | str, *, measured: bool = False, unit: str = "") -> None:
    """Show the result beside the guess that `predict` kept.

    Parameters
    ----------
    name : str
        The prediction, such as `"00.a"`.
    actual : float or str
        The result.
    measured : bool
        The result may move a little from run to run; it is then shown with `≈`.
    unit : str
        Unit shown after the number.
    """
    actual = actual.item() if hasattr(actual, "item") else actual
    mark = APPROXIMATELY if measured and _is_number(actual) else ""
    result = f"the result is {mark}{_describe(actual)}{' ' + unit if unit else ''}."
    guess = _guesses.get(name)
    if guess is None:
        _show(name, f"{result} You made no guess; next time, guess first: it is how you notice what you did not know.")
    else:
        _show(name, f"{result} You guessed {_describe(guess)}: {_verdict(guess, actual)}.")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _describe(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"{_describe(value[0])} to {_describe(value[1])}"
    return format_number(value) if _is_number(value) else str(value)


def _verdict(guess: object, actual: object) -> str:
    """Say in a few words how the guess compares with the result."""
    if isinstance(guess, str) or not _is_number(actual):
        same = str(guess).strip().casefold() == str(actual).strip().casefold()
        return "right" if same else "not what happened. What made you think so?"
    if isinstance(guess, tuple | list):
        return "inside your interval" if guess[0] <= actual <= guess[1] else "outside your interval"
    if guess == actual:
        return "exactly right"
    gap = abs(guess - actual)
    relative = f", {gap / abs(actual):.0%} of the result" if actual else ""
    return f"{format_number(gap)} away{relative}"


def _show(name: str, sentence: str) -> None:
    emit(
        f"prediction {name}: {sentence}",
        f'<div class="sc-prediction"><strong>Prediction {html.escape(name)}</strong>: {html.escape(sentence)}</div>',
    )
