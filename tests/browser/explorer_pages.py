"""What the browser tests of the explorer share: its forward pass beside PyTorch's, and cuts by mouse."""

from __future__ import annotations

import copy

import torch
from playwright.sync_api import Locator, Page
from sparse_circuits.model import Transformer

TOLERANCE = 1e-5
RUN = "(host, prompts) => prompts.map((tokens) => host.explorer.run(tokens).logits.map((row) => Array.from(row)))"
CACHE = """(host, tokens) => Object.fromEntries(Object.entries(host.explorer.run(tokens).cache)
    .filter(([name]) => !name.endsWith("pattern")).map(([name, rows]) => [name, rows.map((row) => Array.from(row))]))"""


def host(page: Page) -> Locator:
    return page.locator(".sc-explorer")


def assert_same_logits(page: Page, model: Transformer, prompts: list[list[int]]) -> None:
    doubled = copy.deepcopy(model).double()
    for tokens, logits in zip(prompts, host(page).evaluate(RUN, prompts), strict=True):
        found, batch = torch.tensor(logits, dtype=torch.float64), torch.tensor([tokens])
        with torch.no_grad():
            exact, stored = doubled(batch)[0], model(batch)[0].double()
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12 * max(1.0, float(exact.abs().max())))
        # float32 itself is only good to 1e-6 of a logit of 15.
        torch.testing.assert_close(found, stored, rtol=1e-6, atol=TOLERANCE)


def random_prompts(model: Transformer) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    lengths = (1, 2, 5, model.cfg.n_ctx)
    return [torch.randint(model.cfg.d_vocab, (length,), generator=generator).tolist() for length in lengths]


def cut_in_table(page: Page, edges: list[int]) -> None:
    """Cut by the buttons of the table, which is closed where there are many edges."""
    host(page).locator("details.scx-all").evaluate("(table) => { table.open = true; }")
    for edge in edges:
        page.locator(f"tr[data-edge='{edge}'] button").click()
