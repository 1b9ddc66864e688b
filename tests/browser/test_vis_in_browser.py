"""CircuitsVis figures in a browser: drawn from the page's own script, or from the one that a live output brings."""

import shutil
from pathlib import Path

import pytest
import torch
from book_tools.assets import make_assets
from book_tools.project import ROOT
from playwright.sync_api import Browser
from sparse_circuits.vis import attention_heads, colored_tokens

pytestmark = pytest.mark.browser

TOKENS = ["a", "</script>", "c"]
LOADER = "circuitsvis-loader.js"


@pytest.mark.parametrize("live", [True, False])
def test_figures_are_drawn_without_a_foreign_request(browser: Browser, tmp_path: Path, live: bool) -> None:
    heads = attention_heads(torch.full((2, 3, 3), 0.25), TOKENS)
    tokens = colored_tokens(TOKENS, torch.tensor([-1.0, 0.0, 2.0]))
    figures = heads.html(with_script=live) + heads.html(with_script=False) + tokens.html(with_script=live)
    make_assets(tmp_path / "vendor")
    shutil.copy(ROOT / "book" / "_static" / LOADER, tmp_path)
    loader = "" if live else f'<script defer src="{LOADER}"></script>'
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><meta charset='utf-8'>{loader}{figures}", encoding="utf-8")

    page, problems = browser.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: request.url.startswith(tmp_path.as_uri()) or problems.append(request.url))
    page.goto(file.as_uri())
    if not live:
        page.get_by_role("button", name="Draw the attention patterns").first.click()
    page.wait_for_function("document.querySelectorAll('[data-circuitsvis] > *').length >= 3")
    page.get_by_text("Head 1").first.wait_for()
    page.get_by_text("</script>", exact=True).wait_for()
    page.close()
    assert problems == []
