"""The check of external links, against a server on this machine: what answers, what is gone, what needs patience."""

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from book_tools import links
from book_tools.links import Answer, Patience, absolute, ask, check, external_links, report, unused, what_to_ask
from book_tools.project import Book
from example_book import make_book

QUICK = Patience(seconds=0.5, attempts=3, pause=0.01)


class Server(ThreadingHTTPServer):
    """A server that remembers what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[tuple[str, str]] = Counter()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answer by the path: the status that it names, or what its name says."""

    def answer(self):
        self.server.asked[self.command, self.path] += 1
        name = self.path.strip("/").partition("?")[0]
        status = {
            "no-head": 405 if self.command == "HEAD" else 200,
            "head-says-gone": 404 if self.command == "HEAD" else 200,
            "recovers": 503 if self.server.asked[self.command, self.path] < 3 else 200,
            "moved": 301,
            "loop": 302,
            "slow": 200,
            "with space%20and%20mark": 200,
        }.get(name) or (int(name) if name.isdigit() else 200)
        if name == "slow":
            time.sleep(2)
        self.send_response(status)
        if name in ("moved", "loop"):
            self.send_header("Location", "/200" if name == "moved" else "/loop")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer

    def log_message(self, *_):
        """Keep the terminal clean."""


@pytest.fixture(scope="module")
def running():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(running):
    running.asked.clear()
    return running


@pytest.mark.parametrize("path", ["/200", "/moved", "/no-head", "/head-says-gone", "/recovers", "/page#part"])
def test_an_address_that_answers_has_no_fault(server, path):
    assert ask(server.address(path), QUICK) == Answer(server.address(path))


@pytest.mark.parametrize(("path", "requests"), [("/404", 2), ("/410", 1), ("/403", 2), ("/451", 1)])
def test_an_address_that_is_gone_is_not_asked_again(server, path, requests):
    assert ask(server.address(path), QUICK).fault == f"answers {path.strip('/')}"
    assert server.asked.total() == requests


@pytest.mark.parametrize("path", ["/500", "/503", "/429"])
def test_a_fault_that_may_pass_is_asked_for_three_times(server, path):
    assert ask(server.address(path), QUICK).fault == f"answers {path.strip('/')}"
    assert server.asked == {("HEAD", path): 3}


def test_an_address_that_does_not_answer_in_time_or_at_all_is_named(server):
    assert "no answer (TimeoutError" in ask(server.address("/slow"), Patience(0.1, 1)).fault
    with_nobody = Server()
    address = with_nobody.address("/200")
    with_nobody.server_close()
    assert "no answer (URLError" in ask(address, QUICK).fault
    assert ask(server.address("/loop"), Patience(1, 1)).fault == "answers 302"
    assert ask("http://[", QUICK).fault.startswith("it is no address")


def test_pauses_grow(monkeypatch, server):
    pauses = []
    monkeypatch.setattr(links.time, "sleep", pauses.append)
    ask(server.address("/500"), Patience(1, 4, 5))
    assert pauses == [5, 10, 20]


def test_a_fragment_is_not_sent_and_a_space_is_escaped(server):
    ask(server.address("/page?x=1#part"), QUICK)
    ask(server.address("/with space"), QUICK)
    assert set(server.asked) == {("HEAD", "/page?x=1"), ("HEAD", "/with%20space")}


def test_allowed_addresses_are_not_asked_and_must_be_in_use(server):
    good, silent = server.address("/200"), server.address("/silent/404")
    allowed = {server.address("/silent/"): "answers people only", "https://nowhere.example/": "was linked once"}
    places = {good: ["a.md, line 1"], silent: ["a.md, line 2"]}
    assert check(places, allowed, QUICK) == [Answer(good)]
    assert ("HEAD", "/silent/404") not in server.asked
    assert unused(places, allowed) == ["https://nowhere.example/"]
    assert "https://nowhere.example/ is linked from nowhere" in report(places, [Answer(good)], allowed)


def test_every_allowed_address_has_a_reason_and_is_linked():
    found = external_links(Book())
    assert unused(found) == []
    assert all(len(reason.split()) >= 3 for reason in links.ALLOWED.values())


def test_links_of_pages_notebooks_and_bibliography_are_found_with_their_places(tmp_path):
    book = make_book(tmp_path / "book")
    (book.root / "book" / "references.bib").write_text(
        "@misc{a,\n  url = {https://a.example/1},\n}\n@misc{b,\n  doi = {10.1000/xyz},\n}\n"
    )
    (book.root / "book" / "page.md").write_text(
        "[a](https://a.example/1) and <https://b.example/2>\n\n`[c](https://c.example/3)`\n\n"
        '<a href="https://d.example/4">d</a> [here](index.md) [file](repository:lib/a.py) [run](colab:90_example)\n'
    )
    notebook = book.notebooks()[0]
    hook = next(notebook.tagged("hook"))
    hook["source"] += "\n\n[b](https://b.example/2)"
    notebook.write()
    assert external_links(book) == {
        "https://a.example/1": ["book/page.md, line 1", "references.bib, line 2"],
        "https://b.example/2": [f"90_example.ipynb, {hook.id}", "book/page.md, line 1"],
        "https://colab.research.google.com/github/someone/a-book/blob/main/notebooks/90_example.ipynb": [
            "book/page.md, line 5"
        ],
        "https://d.example/4": ["book/page.md, line 5"],
        "https://doi.org/10.1000/xyz": ["references.bib, line 5"],
        "https://github.com/someone/a-book/blob/main/lib/a.py": ["book/page.md, line 5"],
    }
    assert absolute(book, "mailto:a@b.example") == ""
    assert absolute(book, "student:90_example").endswith("/blob/student/notebooks/90_example.ipynb")


def test_launch_links_are_checked_by_the_file_that_they_open():
    assert what_to_ask("https://colab.research.google.com/github/a/b/blob/main/notebooks/00_x.ipynb") == (
        "https://github.com/a/b/blob/main/notebooks/00_x.ipynb"
    )
    assert what_to_ask("https://mybinder.org/v2/gh/a/b/main?labpath=x.ipynb") == "https://github.com/a/b/tree/main"


def test_the_command_fails_on_a_broken_link_and_writes_its_report(server, tmp_path, monkeypatch, capsys):
    book = make_book(tmp_path / "book")
    page = book.root / "book" / "page.md"
    monkeypatch.setattr(links, "Book", lambda: book)
    file = tmp_path / "report.md"
    page.write_text(f"[good]({server.address('/200')})\n")
    assert links.main(["--report", str(file)]) == 0
    assert file.read_text() == "1 addresses, 1 asked, 0 do not answer as they should.\n"
    page.write_text(f"[gone]({server.address('/404')})\n")
    assert links.main(["--report", str(file)]) == 1
    assert f"- {server.address('/404')} answers 404; linked from book/page.md, line 1" in file.read_text()
    assert capsys.readouterr().out.endswith(file.read_text())
