"""The explorer in a browser: its forward pass against PyTorch's, its edges by mouse and by keyboard, its looks."""

from __future__ import annotations

import pytest
import torch
from explorer_pages import CACHE, assert_same_logits, cut_in_table, host, random_prompts
from playwright.sync_api import Page, expect
from sparse_circuits.circuit import Circuit
from sparse_circuits.editing import cut_edges
from sparse_circuits.explorer import Explorer, explore
from sparse_circuits.explorer.wiring import find_edges, whole_circuit
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.planted import PlantedCircuit, planted_bracket_circuit, planted_quote_circuit

pytestmark = pytest.mark.browser

SHAPE = {"d_vocab": 7, "n_ctx": 9, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_head": 3, "d_mlp": 6}
OPTIONS = {
    "gelu": {},
    "relu": {"act_fn": "relu"},
    "sink": {"attention_sink": True},
    "no positions": {"positions": False},
    "bigram table": {"bigram_table": True, "act_fn": "relu", "positions": False},
    "everything": {"bigram_table": True, "attention_sink": True, "rms_eps": 0.1},
    "one head, one layer": {"n_heads": 1, "n_layers": 1},
    "four heads": {"n_heads": 4, "d_head": 2, "attention_sink": True},
    "AbsTopK everywhere": {"activation_density": 0.4, "attention_sink": True},
    "AbsTopK at some places": {"activation_density": 0.25, "activation_locations": ("attn.hook_v", "mlp.hook_post")},
    "AbsTopK of ties": {"activation_density": 0.5, "act_fn": "relu", "bigram_table": True},
}
VOCABULARY = ["a", "b", "ab", "'", '"', "<", " c"]


@torch.no_grad()
def sparse_model(**options) -> Transformer:
    """A model with few edges and wide activations, in float64: GELU is asked for values on all of its branches."""
    model = Transformer(TransformerConfig(**{**SHAPE, **options}), seed=3).double()
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        kind = name.rpartition(".")[2]
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if kind == "b_in":
            weight.copy_(torch.linspace(-9, 7, len(weight)))
        elif kind.startswith("b_") or kind in ("sink", "W_bigram"):
            weight.copy_(noise)
        elif name.startswith("blocks"):
            weight.mul_(3 * (noise > 1.2))
    return model


def planted_explorer(planted: PlantedCircuit, circuit: Circuit | None = None) -> Explorer:
    prompts = sorted(planted.sample(6, seed=1), key=lambda prompt: len(prompt.tokens))
    return explore(
        planted.model,
        prompts=[prompt.tokens for prompt in prompts],
        vocabulary=planted.vocabulary,
        title=planted.name,
        circuit=circuit,
        answers=[prompt.right for prompt in prompts],
        edge_notes=planted.carries,
        channel_names=dict(enumerate(planted.channels)),
    )


@pytest.fixture(scope="module")
def quotes() -> PlantedCircuit:
    return planted_quote_circuit()


@pytest.fixture
def quote_page(open_explorer, quotes: PlantedCircuit) -> Page:
    return open_explorer(planted_explorer(quotes, quotes.circuit))


@pytest.mark.parametrize("make", [planted_quote_circuit, planted_bracket_circuit])
def test_planted_logits_equal_torch(open_explorer, make) -> None:
    planted = make()
    page = open_explorer(planted_explorer(planted))
    assert_same_logits(page, planted.model, [list(prompt.tokens) for prompt in planted.sample(20, seed=2)])
    names = [edge.name for edge in find_edges(planted.model, whole_circuit(planted.model))]
    cut_in_table(page, [0, len(names) - 1])
    cut = cut_edges(planted.model, [names[0], names[-1]])
    assert_same_logits(page, cut, [list(prompt.tokens) for prompt in planted.sample(20, seed=2)])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_random_model_equals_torch_before_and_after_cuts(open_explorer, options: dict) -> None:
    model = sparse_model(**options)
    page = open_explorer(explore(model, prompts=[["a", "b"]], vocabulary=VOCABULARY))
    assert_same_logits(page, model, random_prompts(model))
    edges = find_edges(model, whole_circuit(model))
    chosen = list(range(0, len(edges), 3))
    cut_in_table(page, chosen)
    assert_same_logits(page, cut_edges(model, [edges[i].name for i in chosen]), random_prompts(model))
    page.get_by_role("button", name="Restore all").click()
    assert_same_logits(page, model, random_prompts(model))


def test_every_activation_of_the_page_equals_the_cache(open_explorer) -> None:
    model = sparse_model(**OPTIONS["everything"])
    tokens = [0, 3, 1, 6]
    found = host(open_explorer(explore(model, prompts=[["a"]], vocabulary=VOCABULARY))).evaluate(CACHE, tokens)
    _, cache = model.run_with_cache(torch.tensor([tokens]))
    assert len(found) == 3 + 9 * model.cfg.n_layers
    for name, values in found.items():
        torch.testing.assert_close(
            torch.tensor(values, dtype=torch.float64), cache[name][0].flatten(1), rtol=0, atol=1e-12
        )


def test_counts_equal_the_circuit(open_explorer, quotes: PlantedCircuit) -> None:
    for circuit in (quotes.circuit, whole_circuit(quotes.model)):
        page = open_explorer(planted_explorer(quotes, circuit))
        edges, nodes = circuit.count_edges(), circuit.count_nodes()
        assert page.locator("g[data-edge]").count() == page.locator("tr[data-edge]").count() == edges
        assert page.locator(".scx-node").count() == nodes
        expect(page.locator(".scx-counts")).to_contain_text(f"{edges} of {edges} edges kept")
        expect(page.locator(".scx-counts")).to_contain_text(f"{nodes} of {nodes} nodes in use")


def test_every_edge_can_be_cut_by_mouse_in_the_drawing(quote_page: Page, quotes: PlantedCircuit) -> None:
    lines = quote_page.locator("g[data-edge]")
    for number in range(lines.count()):
        lines.nth(number).locator("circle").click()
        expect(quote_page.locator(".scx-kept")).to_have_text(str(9))
        expect(lines.nth(number)).to_have_attribute("aria-pressed", "true")
        expect(quote_page.locator(f"tr[data-edge='{number}'] button")).to_have_attribute("aria-pressed", "true")
        lines.nth(number).locator("circle").click()
        expect(lines.nth(number)).to_have_attribute("aria-pressed", "false")
    expect(quote_page.locator(".scx-kept")).to_have_text("10")


def test_cutting_the_named_edge_by_keyboard_breaks_the_answer_and_says_so(
    quote_page: Page, quotes: PlantedCircuit
) -> None:
    status = quote_page.get_by_role("status")
    expect(status).to_contain_text("✓ right")
    last = quote_page.locator("g[data-edge]").last
    for _ in range(60):
        quote_page.keyboard.press("Tab")
        if last.evaluate("(line) => line === document.activeElement"):
            break
    else:
        pytest.fail("Tab never reached the last edge")
    outline = last.locator("circle").evaluate("(mark) => getComputedStyle(mark).strokeWidth")
    assert outline == "4px", "a focused edge must show it"
    quote_page.keyboard.press("Enter")
    expect(status).to_contain_text("✗ wrong")
    expect(status).to_contain_text("Cut layer 1, value 0.0 → attention write 11 (close with)")
    expect(last).to_have_attribute("aria-pressed", "true")
    assert last.evaluate("(line) => line === document.activeElement")
    quote_page.keyboard.press("Space")
    expect(status).to_contain_text("✓ right")
    expect(status).to_contain_text("Restored layer 1")
    quote_page.keyboard.press("ArrowLeft")
    assert quote_page.evaluate("document.activeElement.dataset.edge") == "8"


def test_edges_are_reached_in_the_order_of_the_forward_pass(quote_page: Page) -> None:
    quote_page.locator("g[data-edge]").first.focus()
    visited = []
    for _ in range(10):
        visited.append(int(quote_page.evaluate("document.activeElement.dataset.edge")))
        quote_page.keyboard.press("Tab")
    assert visited == list(range(10))


def test_restore_all_keeps_the_focus(quote_page: Page) -> None:
    cut_in_table(quote_page, [0, 4, 9])
    expect(quote_page.locator(".scx-kept")).to_have_text("7")
    restore = quote_page.get_by_role("button", name="Restore all")
    restore.focus()
    quote_page.keyboard.press("Enter")
    expect(quote_page.locator(".scx-kept")).to_have_text("10")
    expect(restore).to_be_focused()


def test_every_given_prompt_is_answered_right(quote_page: Page) -> None:
    choices = quote_page.get_by_label("Prompt", exact=True)
    for number in range(6):
        choices.select_option(str(number))
        expect(quote_page.get_by_role("status")).to_contain_text("✓ right")


def test_each_token_shows_its_own_prediction_and_activations(quote_page: Page, quotes: PlantedCircuit) -> None:
    tokens = host(quote_page).evaluate("(host) => host.explorer.tokens")
    logits, cache = quotes.model.run_with_cache(torch.tensor([tokens]))
    for position, token in enumerate(tokens):
        button = quote_page.locator(".scx-tokens button").nth(position)
        button.click()
        expect(button).to_be_focused()
        shown = [
            quotes.vocabulary[i].replace(" ", "␣").replace("\n", "⏎") for i in (token, logits[0, position].argmax())
        ]
        assert button.inner_text().split() == [shown[0], "→", shown[1]]
        neuron = quote_page.locator(
            ".scx-node[data-hook='blocks.0.mlp.hook_post'][data-index='0'] title"
        ).text_content()
        assert float(neuron.rpartition("= ")[2]) == pytest.approx(
            float(cache["blocks.0.mlp.hook_post"][0, position, 0]), abs=5e-3
        )


def test_an_own_prompt_runs_and_a_bad_one_says_what_is_wrong(quote_page: Page, quotes: PlantedCircuit) -> None:
    quote_page.get_by_text("Build your own prompt").click()
    field = quote_page.get_by_label("Tokens, with or without spaces")
    field.fill("log('bye␣moon and")
    quote_page.get_by_role("button", name="Run").click()
    assert host(quote_page).evaluate("(host) => host.explorer.tokens") == quotes.encode("log('bye moon and")
    expect(quote_page.get_by_role("status")).to_contain_text("= as intact")
    quote_page.get_by_role("button", name="append token ␣moon").click()
    assert host(quote_page).evaluate("(host) => host.explorer.tokens") == quotes.encode("log('bye moon and moon")
    field.fill("log(7")
    field.press("Enter")
    expect(quote_page.get_by_role("alert")).to_contain_text("No token of this model begins “(7”. Its tokens are: print")
    field.fill("print" * 17)
    field.press("Enter")
    expect(quote_page.get_by_role("alert")).to_have_text("The prompt has 17 tokens; this model reads 16.")
    field.fill("")
    field.press("Enter")
    expect(quote_page.get_by_role("alert")).to_have_text("The prompt is empty: append a token.")


def test_two_explorers_and_a_copy_of_one_keep_apart(open_explorer, quotes: PlantedCircuit) -> None:
    first, second = planted_explorer(quotes, quotes.circuit), planted_explorer(planted_bracket_circuit())
    page = open_explorer(first, second, first)
    assert page.locator(".sc-explorer[data-ready]").count() == 3
    host(page).nth(0).locator("tr[data-edge='9'] button").click()
    assert [host(page).nth(i).locator(".scx-kept").inner_text() for i in range(3)] == ["9", "4", "10"]
    assert page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)") == []


def test_it_runs_where_a_notebook_inserts_it(open_explorer, quotes: PlantedCircuit) -> None:
    explorer = planted_explorer(quotes, quotes.circuit)
    page = open_explorer(explorer, html="<!doctype html><body><div></div></body>")
    page.evaluate(
        """(html) => {
        const cell = document.querySelector("div");
        cell.innerHTML = html;
        for (const old of cell.querySelectorAll("script")) {
            const script = document.createElement("script");
            for (const { name, value } of old.attributes) script.setAttribute(name, value);
            script.textContent = old.textContent;
            old.replaceWith(script);
        }}""",
        explorer.html(),
    )
    expect(page.get_by_role("status")).to_contain_text("✓ right")


def test_without_scripts_the_circuit_is_still_there(open_explorer, quotes: PlantedCircuit) -> None:
    page = open_explorer(planted_explorer(quotes, quotes.circuit), java_script_enabled=False)
    expect(page.locator("svg.scx-svg")).to_be_visible()
    expect(page.locator("tr[data-edge]")).to_have_count(10)
    expect(page.get_by_role("status")).to_have_count(0)
    expect(page.get_by_role("button")).to_have_count(0)


def test_a_browser_that_cannot_inflate_says_so_and_shows_the_drawing(open_explorer, quotes: PlantedCircuit) -> None:
    explorer = planted_explorer(quotes, quotes.circuit)
    old = "<script>delete globalThis.DecompressionStream</script>"
    page = open_explorer(explorer, html=f"<!doctype html><body>{old}{explorer.html()}</body>")
    expect(page.get_by_text("This browser is too old to run the circuit")).to_be_visible()
    expect(page.locator("svg.scx-svg")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)


def test_an_explorer_adds_no_name_to_the_page(open_explorer, quotes: PlantedCircuit) -> None:
    names = "Object.getOwnPropertyNames(window).sort()"
    without = open_explorer(planted_explorer(quotes), html="<!doctype html><body></body>").evaluate(names)
    assert open_explorer(planted_explorer(quotes)).evaluate(names) == without


@pytest.mark.parametrize("theme", ["data-theme", "theme"])
def test_the_theme_of_the_page_wins_over_the_system(quote_page: Page, theme: str) -> None:
    for system, chosen, dark in (
        ("dark", None, True),
        ("light", None, False),
        ("light", "dark", True),
        ("dark", "light", False),
    ):
        quote_page.emulate_media(color_scheme=system)
        set_theme = "([name, value]) => value && document.documentElement.setAttribute(name, value)"
        quote_page.evaluate(set_theme, [theme, chosen])
        background = host(quote_page).evaluate("(host) => getComputedStyle(host).backgroundColor")
        assert background == ("rgb(22, 25, 29)" if dark else "rgb(255, 255, 255)")


def test_a_phone_needs_no_sideways_scrolling(open_explorer, quotes: PlantedCircuit) -> None:
    page = open_explorer(planted_explorer(quotes))
    page.set_viewport_size({"width": 375, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator("g[data-edge]").first.locator("circle").click()
    expect(page.get_by_role("status")).to_be_in_viewport()


def test_reduced_motion_is_respected(open_explorer, quotes: PlantedCircuit) -> None:
    page = open_explorer(planted_explorer(quotes), reduced_motion="reduce")
    seconds = "[...document.querySelectorAll('*')].map((e) => parseFloat(getComputedStyle(e).transitionDuration))"
    assert set(page.evaluate(seconds)) == {0}
