"""A headless Chromium, and the built site served from this machine; nothing else can be reached from the pages."""

from __future__ import annotations

import functools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from book_tools.chromium import CHROMIUM, missing_reason
from book_tools.project import ROOT
from book_tools.site_rules import SITE
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright
from sparse_circuits.explorer import Explorer

# As root Chromium needs --no-sandbox; the others keep it from looking up hosts of its own at every start.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A page that runs a model takes seconds on a busy machine.
PATIENCE = 90_000
NO_SERVER = ("data:", "blob:", "about:", "file:")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a line per request."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yield its address, without a slash at the end."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Watch:
    """Keeps what goes wrong on the pages of one browser context, and stops requests to any other host."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.address = address
        self.problems: list[str] = []
        context.route("**/*", self._route)
        context.on("page", self._follow)

    def _route(self, route: Route) -> None:
        url = route.request.url
        if url.startswith((self.address + "/", *NO_SERVER)):
            route.continue_()
        else:
            self.problems.append(f"request to another host: {url}")
            route.abort()

    def _follow(self, page: Page) -> None:
        page.on("console", lambda message: message.type in ("error", "warning") and self._keep("console", message.text))
        page.on("pageerror", lambda error: self._keep("script error", str(error)))
        page.on("requestfailed", lambda request: self._keep("request failed", request.url))
        page.on("response", lambda response: response.status >= 400 and self._keep(str(response.status), response.url))

    def _keep(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text}")


@pytest.fixture
def served_folder() -> Iterator[Callable[[Path], str]]:
    """Return a function that serves a folder until the test ends and gives its address."""
    with ExitStack() as servers:
        yield lambda folder: servers.enter_context(served(folder))


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site; built now if nobody has."""
    if not (SITE / "index.html").exists():
        subprocess.run(["make", "book"], cwd=ROOT, check=True)
    return SITE


@pytest.fixture(scope="session")
def site_address(site: Path) -> Iterator[str]:
    """Where the built site is served."""
    with served(site) as address:
        yield address


# Not for the whole session: while Playwright runs, its event loop would be in the way of the tests that run kernels.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, or a skip with the reason why there is none; in CI that is a failure."""
    reason = missing_reason()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_context(browser: Browser, site_address: str) -> Iterator[Callable[..., tuple[BrowserContext, Watch]]]:
    """Return a function that opens a watched context, as in `open_context(color_scheme="dark", viewport=...)`."""
    opened: list[BrowserContext] = []

    def open_one(address: str = site_address, **options: object) -> tuple[BrowserContext, Watch]:
        context = browser.new_context(base_url=address, **options)
        opened.append(context)
        return context, Watch(context, address)

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def page(open_context) -> Iterator[Page]:
    """A page on the built site; the test fails if anything went wrong on it, in the end."""
    context, watch = open_context(viewport={"width": 1280, "height": 860})
    yield context.new_page()
    assert watch.problems == []


@pytest.fixture
def open_explorer(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Return a function that opens explorers from a file; requests and reports on their pages fail the test."""
    contexts, problems = [], []

    def open_one(*explorers: Explorer, html: str | None = None, **options) -> Page:
        file = explorers[0].save(tmp_path / "explorer.html")
        if len(explorers) > 1 or html is not None:
            file.write_text(html or f"<!doctype html>{''.join(e.html() for e in explorers)}", encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        allowed = (file.as_uri(), *NO_SERVER[:2])
        page.on("request", lambda request: request.url.startswith(allowed) or problems.append(request.url))
        page.goto(file.as_uri(), timeout=PATIENCE)
        if options.get("java_script_enabled", True):
            page.wait_for_function("!document.querySelector('.sc-explorer:not([data-ready], :has(.scx-still))')")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []
