"""Every page for readers who use a keyboard, a screen reader or a small screen, and on a slow line."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from test_site import CHAPTERS, MODES, PAGES, open_settled

pytestmark = pytest.mark.browser

KEYBOARD = (Path(__file__).parent / "keyboard.js").read_text(encoding="utf-8")
MAX_BYTES = 1_500_000
MAX_STOPS, BATCH = 1500, 50
# Without preloading axe fetches no style sheet a second time; it would look for their imports in the wrong folder.
AXE = {"resultTypes": ["violations"], "preload": False}
GRAVE = ("serious", "critical")
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
# All code has one ground, and its colours go by class: one token of each class speaks for the others. Thousands of them
# would take minutes.
ONE_TOKEN_OF_EACH_CLASS = """() => {
  const known = new Set();
  for (const token of document.querySelectorAll(".highlight pre span[class]")) {
    if (known.has(token.className)) token.replaceWith(...token.childNodes);
    known.add(token.className);
  }
}"""


def violations(page: Page, **options: object) -> list[str]:
    """Return what axe-core finds serious or critical on a page, one sentence for each element."""
    page.evaluate(ONE_TOKEN_OF_EACH_CLASS)
    found = Axe().run(page, options={**AXE, **options}).response["violations"]
    return [
        f"{rule['id']}: {element['target']}: {element['html'][:120]}"
        for rule in found
        if rule["impact"] in GRAVE
        for element in rule["nodes"]
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("address", PAGES)
def test_axe_finds_nothing_serious(open_context, address: str, mode: str) -> None:
    """In the light every rule is asked; in the dark those that depend on colours."""
    context, _ = open_context(color_scheme=mode, viewport={"width": 1280, "height": 860})
    page = context.new_page()
    open_settled(page, address)
    assert violations(page, **({} if mode == "light" else {"runOnly": COLOUR_RULES})) == []


@pytest.mark.parametrize("address", PAGES)
def test_a_phone(open_context, address: str) -> None:
    """Nothing scrolls sideways but what scrolls inside itself, and that can be reached with the keyboard."""
    context, _ = open_context(viewport={"width": 375, "height": 740})
    page = context.new_page()
    open_settled(page, address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert violations(page, runOnly=["scrollable-region-focusable"]) == []


@pytest.mark.parametrize("address", PAGES)
def test_a_page_weighs_little(open_context, address: str) -> None:
    """All that the browser fetches when a page is opened and scrolled to its end, counted without compression.

    What a reader then asks for with a button comes on top and says its size.
    """
    context, _ = open_context(viewport={"width": 1280, "height": 860})
    page, responses = context.new_page(), []
    page.on("response", lambda response: responses.append(response))
    open_settled(page, address)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    sizes = {response.url: len(response.body()) for response in responses}
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) <= MAX_BYTES, heaviest


@pytest.mark.parametrize("address", PAGES)
def test_the_tab_key_reaches_everything(page: Page, address: str) -> None:
    """Each visible link, button, summary and field gets the focus, shows it, and lets it go again."""
    open_settled(page, address)
    total = page.evaluate(KEYBOARD)
    assert total > 10
    # A page has stops that a reader does not see at first, such as the link that skips to the text.
    for _ in range(1 + MAX_STOPS // BATCH):
        for _ in range(BATCH):
            page.keyboard.press("Tab")
        if not page.evaluate("keyboardWalk.left().length"):
            break
    assert page.evaluate("keyboardWalk.left()") == []
    assert page.evaluate("keyboardWalk.hidden()") == []


@pytest.mark.parametrize("address", CHAPTERS)
def test_a_quiz_answers_from_the_keyboard(page: Page, address: str) -> None:
    """Each choice opens and closes with a key, and what it says is read in full."""
    open_settled(page, address)
    choices = page.locator("section#quiz details")
    assert choices.count() >= 10
    for choice in (choices.first, choices.last):
        feedback = choice.locator(":scope > :not(summary)").first
        expect(feedback).to_be_hidden()
        choice.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(feedback).to_be_visible()
        assert len(feedback.inner_text().split()) >= 3
        page.keyboard.press("Space")
        expect(feedback).to_be_hidden()


@pytest.mark.parametrize("address", CHAPTERS)
def test_quiz_hints_and_solutions_open_without_server_or_script(browser, site: Path, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / address.lstrip("/")).as_uri())
    for part in ("section#quiz details", "section#check-yourself details:has(summary:text('Hint 3'))"):
        folded = page.locator(part).first
        body = folded.locator(":scope > :not(summary)").first
        expect(body).to_be_hidden()
        folded.locator("summary").click()
        expect(body).to_be_visible()
    context.close()


def test_a_drawing_that_is_heavy_comes_when_asked_for(page: Page) -> None:
    """CircuitsVis is fetched by a press of a button; its canvases have names and its headings can be read."""
    drawn = [address for address in CHAPTERS if address.startswith("/notebooks/01")]
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    open_settled(page, drawn[0])
    assert not any("circuitsvis.js" in url for url in fetched)
    button = page.get_by_role("button", name="Draw the attention patterns")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('[data-circuitsvis] canvas[aria-label]').length >= 4")
    assert sum("circuitsvis.js" in url for url in fetched) == 1
    found = Axe().run(page, {"include": [["[data-circuitsvis]"]]}, AXE).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:100]) for rule in found if rule["impact"] in GRAVE] == []
