"""Prose: each bold number is a claim and shows what the ledger holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from sparse_circuits.claims import Claim

from book_tools.project import Book
from book_tools.rules import Finding, line_of, without_code

BOLD = re.compile(
    r"(?:\*\*|__|<(?:b|strong)>)(?=\S)(?P<text>[^*\n]+?)(?:\*\*|__|</(?:b|strong)>)(?P<tag><!--\s*claim:[^>]*-->)?"
)
CLAIM_TAG = re.compile(r"<!--\s*claim:\s*(?P<id>[^\s>]*?)\s*-->")
# "00 A circuit" and "90.1" name a chapter and an exercise; they are no measurements.
NAMES_A_PART = re.compile(r"(\d\d(\s*[·.:]|\s+[A-Z])|\d\d\.\d+\b)")
STARTS_WITH_NUMBER = re.compile(r"[≈~<>≤≥±+−–-]*\s*\.?\d")
NUMBER = re.compile(r"(?P<mark>≈?)(?P<digits>[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)\s*(?P<percent>%?)")


def texts(book: Book) -> Iterator[tuple[str, str, str]]:
    """Yield (file, place, markdown) of every prose page and every markdown cell; a page has no place."""
    for page in book.pages():
        yield page.relative_to(book.root).as_posix(), "", page.read_text(encoding="utf-8")
    for notebook in book.notebooks():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                yield notebook.path.name, cell.id, cell.source


def bold_numbers_are_claims(book: Book) -> Iterator[Finding]:
    """Every bold number carries a claim and equals the ledger, rounded as it is shown."""
    ledger = book.ledger()
    for file, place, source in texts(book):
        for bold in BOLD.finditer(without_code(source)):
            where = place or line_of(source, bold.start())
            tag = CLAIM_TAG.fullmatch(bold["tag"] or "")
            if tag is None:
                if STARTS_WITH_NUMBER.match(bold["text"]) and not NAMES_A_PART.match(bold["text"]):
                    yield Finding(
                        file, where, f"bold number {bold['text']!r} has no claim",
                        "write **17**<!-- claim:some.id --> with the number alone in bold, or take the bold off",
                    )  # fmt: skip
            elif tag["id"] in ledger:
                for message, remedy in _compare(bold["text"], ledger[tag["id"]]):
                    yield Finding(file, where, message, remedy)


def claim_tags_exist(book: Book) -> Iterator[Finding]:
    """Every claim named in prose is in the ledger, and its tag follows a bold number."""
    ledger = book.ledger()
    for file, place, source in texts(book):
        prose = without_code(source)
        attached = {match.start("tag") for match in BOLD.finditer(prose) if match["tag"]}
        for tag in CLAIM_TAG.finditer(prose):
            where = place or line_of(source, tag.start())
            if tag["id"] not in ledger:
                yield Finding(
                    file, where, f"claim {tag['id']!r} is not in the ledger",
                    "make it with sc.claim in a cell and run `python -m book_tools.notebooks --execute`",
                )  # fmt: skip
            if tag.start() not in attached:
                yield Finding(
                    file, where, f"tag of claim {tag['id']!r} follows no bold number", "write **17** before it"
                )


def _compare(shown: str, claim: Claim) -> Iterator[tuple[str, str]]:
    """Yield (message, remedy) where a shown number is not what the ledger holds."""
    number = NUMBER.fullmatch(shown.strip())
    if number is None:
        yield f"{shown!r} is not one number", "put the number alone in bold, and the words after the claim tag"
        return
    digits = number["digits"].replace("−", "-").replace(",", "")
    scale = 100 if number["percent"] else 1
    expected = rounded_like(claim.value * scale, digits)
    if Decimal(digits) != Decimal(expected):
        yield (
            f"the text says {shown!r}, but claim {claim.id!r} is {claim.value!r}",
            f"write {expected}{number['percent']}, or look into why the result changed",
        )
    step = Decimal(1).scaleb(Decimal(digits).as_tuple().exponent)
    if "." in digits and claim.tolerance * scale > 10 * float(step):
        yield (
            f"{shown!r} shows more digits than the tolerance {claim.tolerance:.3g} of claim {claim.id!r} supports",
            "show fewer digits",
        )


def rounded_like(value: float, shown: str) -> str:
    """Write `value` with the precision of the text `shown`."""
    mantissa, _, exponent = shown.partition("e")
    decimals = len(mantissa.partition(".")[2])
    try:
        return f"{Decimal(repr(value)):.{decimals}{'e' if exponent else 'f'}}"
    except InvalidOperation:
        return repr(value)


BOOK_RULES = (bold_numbers_are_claims, claim_tags_exist)
