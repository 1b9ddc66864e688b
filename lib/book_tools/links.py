"""Ask every address that the pages, the notebooks and the bibliography link to whether it still answers.

    python -m book_tools.links [--report FILE]

Each address is asked once, however often it is linked. An answer that may be a passing fault is asked for again, with
growing pauses. `ALLOWED` lists the addresses that do not answer a program, each with the reason.
"""

from __future__ import annotations

import argparse
import http.client
import re
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urldefrag, urlsplit

from sparse_circuits.checkpoints import write_atomically

from book_tools.address import GITHUB, colab_address
from book_tools.project import Book
from book_tools.rules import line_of, without_code
from book_tools.rules.links import LINK
from book_tools.rules.prose import texts
from book_tools.student import StudentBook

# Beginning of an address -> why it is not asked. An entry that fits no link of the book is reported.
ALLOWED: dict[str, str] = {}
BARE = re.compile(r"<(https?://[^\s>]+)>")
BIBLIOGRAPHY = re.compile(r"^\s*(?P<field>url|doi)\s*=\s*[{\"](?P<value>[^}\"]+)[}\"]", re.MULTILINE | re.IGNORECASE)
COLAB = "https://colab.research.google.com/github/"
BINDER = re.compile(r"https://mybinder\.org/v2/gh/(?P<repository>[^/]+/[^/]+)/(?P<branch>[^/?#]+)")
AGENT = "Mozilla/5.0 (compatible; link check of an open book)"
PASSING = {408, 425, 429, 500, 502, 503, 504}
# A server may refuse to answer a HEAD, or answer it wrongly; then the page itself is asked for.
ASK_AGAIN_WITH_GET = {400, 403, 404, 405, 406, 501}
WORKERS = 8


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer, and how often to ask again."""

    seconds: float = 20.0
    attempts: int = 3
    pause: float = 5.0


@dataclass(frozen=True)
class Answer:
    """What asking for one address came to; `fault` is empty when it answers."""

    address: str
    fault: str = ""


def external_links(book: Book) -> dict[str, list[str]]:
    """Return address -> the places that link to it, for prose pages, notebooks and bibliography."""
    found: dict[str, set[str]] = defaultdict(set)
    for file, place, source in texts(book):
        prose = without_code(source)
        for link in [*LINK.finditer(prose), *BARE.finditer(prose)]:
            target = next(group for group in link.groups() if group)
            address = absolute(book, target)
            if address:
                found[address].add(f"{file}, {place or line_of(prose, link.start())}")
    bibliography = book.root / "book" / "references.bib"
    if bibliography.exists():
        source = bibliography.read_text(encoding="utf-8")
        for entry in BIBLIOGRAPHY.finditer(source):
            doi = entry["field"].lower() == "doi" and not entry["value"].startswith("http")
            address = f"https://doi.org/{entry['value']}" if doi else entry["value"]
            found[address].add(f"{bibliography.name}, {line_of(source, entry.start('value'))}")
    return {address: sorted(places) for address, places in sorted(found.items())}


def absolute(book: Book, target: str) -> str:
    """Return the address that a link leads to outside of the book; an empty text for a link inside it."""
    scheme, _, rest = target.partition(":")
    if scheme == "repository":
        return f"{book.repository}/blob/{book.branch}/{rest}"
    if scheme in ("colab", "student"):
        return colab_address(book if scheme == "colab" else StudentBook(book.root), rest)
    return target if scheme in ("http", "https") else ""


def what_to_ask(address: str) -> str:
    """Return the address that tells whether a link is good.

    Colab answers for a notebook that does not exist too, and Binder would start to build a machine: the file at GitHub
    that they open is asked for in their place.
    """
    if address.startswith(COLAB):
        return GITHUB + address.removeprefix(COLAB)
    binder = BINDER.match(address)
    return f"{GITHUB}{binder['repository']}/tree/{binder['branch']}" if binder else urldefrag(address).url


def ask(address: str, patience: Patience = Patience()) -> Answer:
    """Ask for one address until it answers, answers that it is gone, or the patience ends."""
    fault = ""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause * 2 ** (attempt - 1))
        fault, passing = _fault(what_to_ask(address), patience.seconds)
        if not passing:
            break
    return Answer(address, fault)


def _fault(address: str, seconds: float) -> tuple[str, bool]:
    """Return (what is wrong, whether it may pass) of one request; an empty text when the address answers."""
    status = 0
    for method in ("HEAD", "GET"):
        try:
            status = _status(address, method, seconds)
        except ValueError as error:
            return f"it is no address ({error})", False
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            return f"no answer ({type(error).__name__}: {reason})", True
        if status not in ASK_AGAIN_WITH_GET:
            break
    return ("", False) if 200 <= status < 300 else (f"answers {status}", status in PASSING)


def _status(address: str, method: str, seconds: float) -> int:
    """Return the status of the answer after all redirections."""
    parts = urlsplit(address)
    plain = parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~-._")).geturl()
    request = urllib.request.Request(plain, method=method, headers={"User-Agent": AGENT, "Accept": "*/*"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def check(
    links: Mapping[str, list[str]], allowed: Mapping[str, str] = ALLOWED, patience: Patience = Patience()
) -> list[Answer]:
    """Ask for every address that is not allowed to keep silent, several at a time; return the answers in order."""
    asked = [address for address in links if not address.startswith(tuple(allowed))]
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda address: ask(address, patience), asked))


def unused(links: Iterable[str], allowed: Mapping[str, str] = ALLOWED) -> list[str]:
    """Return the entries of the list of allowed addresses that fit no link any more."""
    return [prefix for prefix in allowed if not any(address.startswith(prefix) for address in links)]


def report(links: Mapping[str, list[str]], answers: list[Answer], allowed: Mapping[str, str] = ALLOWED) -> str:
    """Return what was found, in Markdown."""
    return "\n".join([*_lines(links, answers, allowed), ""])


def _lines(links: Mapping[str, list[str]], answers: list[Answer], allowed: Mapping[str, str]) -> Iterator[str]:
    broken = [answer for answer in answers if answer.fault]
    yield f"{len(links)} addresses, {len(answers)} asked, {len(broken)} do not answer as they should."
    if broken:
        yield ""
    for answer in broken:
        yield f"- {answer.address} {answer.fault}; linked from {'; '.join(links[answer.address])}"
    for prefix in unused(links, allowed):
        yield f"- the allowed address {prefix} is linked from nowhere; take it off the list in book_tools/links.py"


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.links", description=__doc__.split("\n")[0])
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write what was found to a file, in Markdown")
    given = parser.parse_args(arguments)
    links = external_links(Book())
    answers = check(links)
    text = report(links, answers)
    print(text, end="")
    if given.report:
        write_atomically(given.report, text.encode())
    return int(any(answer.fault for answer in answers) or bool(unused(links)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
