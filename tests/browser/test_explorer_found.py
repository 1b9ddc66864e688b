"""The explorer of a found circuit of a big sparse model: what it runs, what it weighs, what a reader can do with it."""

from __future__ import annotations

import pytest
import torch
from explorer_pages import RUN, host
from playwright.sync_api import Page, expect
from sparse_circuits.ablation import ablated
from sparse_circuits.ablation_masks import nodes_outside
from sparse_circuits.ablation_values import AblationValues, mean_values, zero_values
from sparse_circuits.circuit import Circuit
from sparse_circuits.editing import cut_edges
from sparse_circuits.explorer import Explorer, explore
from sparse_circuits.explorer.wiring import find_edges
from sparse_circuits.graph import weight_graph
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import keep_largest

pytestmark = pytest.mark.browser

BIG = TransformerConfig(
    d_vocab=2048,
    n_ctx=64,
    n_layers=2,
    d_model=256,
    n_heads=16,
    d_head=16,
    d_mlp=1024,
    attention_sink=True,
    activation_density=0.25,
)
SMALL = {"d_vocab": 9, "n_ctx": 8, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_head": 3, "d_mlp": 12}
OPTIONS = {
    "dense": {},
    "sink": {"attention_sink": True},
    "AbsTopK everywhere": {"activation_density": 0.4, "attention_sink": True},
    "AbsTopK where the values and neurons are": {
        "activation_density": 0.25,
        "activation_locations": ("attn.hook_v", "mlp.hook_post"),
        "bigram_table": True,
    },
}


@torch.no_grad()
def sparse_model(cfg: TransformerConfig, density: float, embedding_density: float, seed: int = 0) -> Transformer:
    """A model of random weights of which few are left, with random biases and sinks, in float64."""
    model = Transformer(cfg, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        kind = name.rpartition(".")[2]
        if kind.startswith("b_") or kind in ("sink", "W_bigram"):
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / 5)
        else:
            share = density if name.startswith("blocks") else embedding_density
            weight.copy_(3 * keep_largest(weight, max(1, round(weight.numel() * share))))
    return model


def random_circuit(model: Transformer, n_nodes: int, seed: int = 0) -> Circuit:
    """Both ends of random edges until there are so many nodes, and all edges between them."""
    graph = weight_graph(model)
    masks = {place: torch.zeros(n, dtype=torch.bool) for place, n in graph.sizes.items()}
    edges = [(matrix, i, j) for matrix, mask in graph.edge_masks.items() for i, j in mask.nonzero().tolist()]
    for edge in torch.randperm(len(edges), generator=torch.Generator().manual_seed(seed)).tolist():
        matrix, i, j = edges[edge]
        source, target = graph.ends[matrix]
        masks[source][i] = masks[target][j] = True
        if sum(int(mask.sum()) for mask in masks.values()) >= n_nodes:
            break
    return Circuit.induced(graph, masks)


def random_tokens(model: Transformer, n: int, length: int, seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.cfg.d_vocab, (n, length), generator=generator).tolist()


def names(n: int) -> list[str]:
    return [f"w{number}" for number in range(n)]


def page_tokens(page: Page, tokens: list[int]) -> list[int]:
    """The numbers that tokens have in the page, which knows them by their names."""
    spelling = host(page).evaluate("(host) => host.explorer.spelling")
    return [spelling.index(f"w{token}") for token in tokens]


@torch.no_grad()
def assert_page_runs(page: Page, model: Transformer, circuit: Circuit, values: AblationValues | None, tokens) -> None:
    """The logits of the page equal PyTorch's at 1e-9, for the tokens that it has."""
    nodes = nodes_outside(circuit) if values else {}
    outputs = [int(name[1:]) for name in host(page).evaluate("(host) => host.explorer.spelling")]
    found = host(page).evaluate(RUN, [page_tokens(page, row) for row in tokens])
    for row, logits in zip(tokens, found, strict=True):
        with ablated(model, nodes, values=values):
            expected = model(torch.tensor([row]))[0][:, outputs]
        torch.testing.assert_close(torch.tensor(logits, dtype=torch.float64), expected, rtol=0, atol=1e-9)


def cut(page: Page, edges: list[int]) -> None:
    host(page).evaluate("(host, edges) => edges.forEach((i) => host.explorer.toggle(i))", edges)


def assert_page_runs_and_cuts(page: Page, model, circuit, values, tokens) -> None:
    assert_page_runs(page, model, circuit, values, tokens)
    edges = find_edges(model, circuit)
    chosen = list(range(0, len(edges), 1 + len(edges) // 5))
    cut(page, chosen)
    assert_page_runs(page, cut_edges(model, [edges[i].name for i in chosen]), circuit, values, tokens)
    cut(page, chosen)
    assert_page_runs(page, model, circuit, values, tokens)


@pytest.fixture(scope="module")
def big() -> Transformer:
    return sparse_model(BIG, 1 / 32, 1 / 4)


@pytest.fixture(scope="module")
def found(big: Transformer) -> Circuit:
    return random_circuit(big, 60)


def explore_big(big: Transformer, found: Circuit, **options) -> Explorer:
    options = {"prompts": random_tokens(big, 2, 20), "vocabulary": names(2048), **options}
    return explore(big, found, title="Found", **options)


def test_a_big_model_runs_whole_in_a_page_of_at_most_1500_kb(open_explorer, big: Transformer, found: Circuit) -> None:
    single = Transformer(BIG)
    single.load_state_dict(big.state_dict())
    explorer = explore_big(single, found)
    assert len(explorer.html().encode()) <= 1_500_000
    assert_page_runs_and_cuts(open_explorer(explorer), single.double(), found, None, random_tokens(big, 2, 20))


def test_a_big_circuit_runs_alone_in_a_light_page(open_explorer, big: Transformer, found: Circuit) -> None:
    values = mean_values(big, torch.tensor(random_tokens(big, 8, 16, seed=9)), reference="random tokens")
    explorer = explore_big(big, found, values=values, max_kilobytes=400)
    assert len(explorer.html().encode()) <= 400_000
    assert_page_runs_and_cuts(open_explorer(explorer), big, found, values, random_tokens(big, 2, 20))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", ["mean", "zero"])
def test_a_circuit_alone_equals_ablation(open_explorer, name: str, kind: str) -> None:
    model = sparse_model(TransformerConfig(**{**SMALL, **OPTIONS[name]}), 0.3, 0.5, seed=1)
    circuit = random_circuit(model, 20)
    tokens = random_tokens(model, 3, 8)
    values = zero_values() if kind == "zero" else mean_values(model, torch.tensor(tokens), reference="random tokens")
    page = open_explorer(explore(model, circuit, prompts=tokens, vocabulary=names(9), values=values))
    assert_page_runs_and_cuts(page, model, circuit, values, tokens)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("part", ["blocks.0.attn", "blocks.1.mlp"])
def test_a_circuit_in_one_block_equals_ablation(open_explorer, name: str, part: str) -> None:
    model = sparse_model(TransformerConfig(**{**SMALL, **OPTIONS[name]}), 0.3, 0.5, seed=2)
    everything = Circuit.full(weight_graph(model))
    circuit = Circuit.from_names(everything.graph, [edge for edge in everything.edges() if edge.startswith(part)])
    tokens = random_tokens(model, 3, 8)
    values = mean_values(model, torch.tensor(tokens), reference="random tokens")
    page = open_explorer(explore(model, circuit, prompts=tokens, vocabulary=names(9), values=values))
    assert_page_runs_and_cuts(page, model, circuit, values, tokens)


@pytest.fixture
def found_page(open_explorer, big: Transformer, found: Circuit) -> Page:
    values = zero_values()
    return open_explorer(explore_big(big, found, values=values, max_kilobytes=400, answers=[5, 7]))


def boxes(page: Page, selector: str) -> list[dict]:
    """Places of the drawn elements, in the units of the drawing."""
    read = "({ x, y, width, height }) => [x, y, width, height]"
    found = f"(marks) => marks.map((mark) => ({read})(mark.getBBox()))"
    return [dict(zip("xywh", box, strict=True)) for box in page.locator(selector).evaluate_all(found)]


def test_nodes_stand_in_columns_in_the_order_of_the_forward_pass(found_page: Page, found: Circuit) -> None:
    rectangles = boxes(found_page, ".scx-node rect")
    assert len(rectangles) == found.count_nodes() >= 60
    for i, a in enumerate(rectangles):
        for b in rectangles[:i]:
            apart = a["x"] >= b["x"] + b["w"] or b["x"] >= a["x"] + a["w"]
            assert apart or a["y"] >= b["y"] + b["h"] or b["y"] >= a["y"] + a["h"], "two nodes overlap"
    texts = boxes(found_page, ".scx-node text")
    assert all(text["w"] <= box["w"] for text, box in zip(texts, rectangles, strict=True)), "a label sticks out"
    order = [
        "ln1.hook_normalized",
        "attn.hook_",
        "hook_attn_out",
        "ln2.hook_normalized",
        "mlp.hook_post",
        "hook_mlp_out",
    ]
    hooks = found_page.locator(".scx-node").evaluate_all("(marks) => marks.map((mark) => mark.dataset.hook)")
    stages = [int(hook.split(".")[1]) * 6 + max(k for k, place in enumerate(order) if place in hook) for hook in hooks]
    for stage, box in zip(stages, rectangles, strict=True):
        for other, second in zip(stages, rectangles, strict=True):
            assert (stage < other) == (box["x"] + box["w"] < second["x"]) or stage == other


def test_a_channel_is_a_thin_line_that_touches_no_other_node(found_page: Page, found: Circuit) -> None:
    """From the first node of each channel to its last, and free of the boxes of all other nodes."""
    residual = [name for name in found.nodes() if "attn.hook" not in name and "post" not in name]
    by_channel: dict[int, list[str]] = {}
    for name in residual:
        by_channel.setdefault(int(name.partition("[")[2][:-1]), []).append(name)
    joined = {channel for channel, nodes in by_channel.items() if len(nodes) > 1}
    lines = found_page.locator("svg .scx-flow[data-channel]")
    drawn = [int(channel) for channel in lines.evaluate_all("(lines) => lines.map((line) => line.dataset.channel)")]
    assert joined <= set(drawn) and joined
    places = boxes(found_page, "svg .scx-flow[data-channel]")
    nodes = found_page.locator(".scx-node").evaluate_all(
        "(marks) => marks.map((mark) => [mark.dataset.hook, Number(mark.dataset.index)])"
    )
    rectangles = boxes(found_page, ".scx-node rect")
    for channel, line in zip(drawn, places, strict=True):
        for (hook, index), box in zip(nodes, rectangles, strict=True):
            inside = box["x"] + box["w"] > line["x"] and box["x"] < line["x"] + line["w"]
            on_it = inside and box["y"] < line["y"] < box["y"] + box["h"]
            assert on_it == (f"{hook}[{index}]" in by_channel[channel])


def test_a_chosen_node_shows_what_it_reads_writes_and_does(found_page: Page, big: Transformer, found: Circuit) -> None:
    edges = find_edges(big, found)
    node = next(edge.target for edge in edges if edge.target.location == "mlp.hook_post")
    reading = [edge for edge in edges if edge.target == node]
    writing = [edge for edge in edges if edge.source == node]
    panel = found_page.get_by_role("region", name="Chosen node")
    expect(panel).to_be_hidden()
    mark = found_page.get_by_role("button", name=f"{node.short_name}, layer {node.layer}")
    mark.locator("rect").click()
    expect(panel).to_contain_text(node.short_name)
    bias = big.get_parameter(f"blocks.{node.layer}.mlp.b_in")[node.index].item()
    expect(panel).to_contain_text(f"bias {bias:.4g}".replace("-", "−"))
    rows = panel.locator(".scx-joined tbody tr")
    assert rows.count() == len(reading) + len(writing)
    weights = {edge.source.short_name: edge.weight for edge in reading} | {
        edge.target.short_name: edge.weight for edge in writing
    }
    for row in rows.all():
        name, weight, *_ = row.locator("th, td").all_inner_texts()
        assert float(weight.replace("−", "-")) == pytest.approx(weights[name], rel=1e-3)
    tokens = random_tokens(big, 1, 20)[0]
    with torch.no_grad(), ablated(big, nodes_outside(found), values=zero_values()):
        activation = big.run_with_cache(torch.tensor([tokens]))[1][node.hook][0, :, node.index]
    shown = [cell.split("\n") for cell in panel.locator(".scx-heat li").all_inner_texts()]
    assert [token for token, _ in shown] == [f"w{token}" for token in tokens]
    for (_, text), value in zip(shown, activation.tolist(), strict=True):
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=6e-3)
    kept = found_page.locator(".scx-kept")
    rows.first.locator(".scx-state button").focus()
    found_page.keyboard.press("Enter")
    expect(kept).to_have_text(str(len(edges) - 1))
    expect(rows.first.locator(".scx-state button")).to_be_focused()
    expect(rows.first.locator(".scx-state button")).to_have_text("✕ cut")
    mark.press("Escape")
    expect(panel).to_be_hidden()


def test_a_residual_node_names_who_writes_and_reads_its_channel(
    found_page: Page, big: Transformer, found: Circuit
) -> None:
    names_of = found.nodes()
    index = next(i for i, name in enumerate(names_of) if "hook_normalized" in name)
    channel = int(names_of[index].partition("[")[2][:-1])
    found_page.locator(".scx-node").nth(0).focus()
    host(found_page).evaluate("(host, i) => host.explorer.panel.choose(i)", index)
    words = found_page.locator(".scx-traffic").inner_text()
    top = big.W_E[:, channel].abs().topk(6).indices.tolist()
    assert all(f"w{token} " in words.split("whose logit")[0].replace("\n", " ") for token in top)
    top = big.W_U[channel].abs().topk(6).indices.tolist()
    assert all(f"w{token} " in words.split("whose logit")[1].replace("\n", " ") for token in top)
    others = [name for name in names_of[index + 1 :] if name.endswith(f"[{channel}]") and "hook_normalized" in name]
    assert f"Residual channel {channel}" in words
    assert ("Read later, in this circuit, by: none" in words) == (not others)


def test_the_drawing_is_one_stop_for_tab_and_arrows_go_from_node_to_node(found_page: Page, found: Circuit) -> None:
    stops = "[...document.querySelectorAll('.scx-svg [tabindex=\"0\"]')].length"
    assert found_page.evaluate(stops) == 1
    found_page.locator(".scx-node[tabindex='0']").focus()
    x = found_page.evaluate("document.activeElement.querySelector('rect').getBBox().x")
    for _ in range(3):
        found_page.keyboard.press("ArrowRight")
        further = found_page.evaluate("document.activeElement.querySelector('rect').getBBox().x")
        assert further > x
        x = further
    assert found_page.evaluate(stops) == 1
    outline = found_page.evaluate("getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth")
    assert outline == "4px", "a focused node must show it"
    found_page.keyboard.press("Enter")
    name = found_page.evaluate("document.activeElement.textContent")
    expect(found_page.locator(".scx-node-name strong").first).to_be_visible()
    assert found_page.locator(".scx-node-name strong").first.inner_text() in name


def test_a_click_on_a_line_cuts_its_edge(found_page: Page, found: Circuit) -> None:
    wire = found_page.locator("g[data-wire='0']")
    wire.dispatch_event("click")
    expect(found_page.locator(".scx-kept")).to_have_text(str(found.count_edges() - 1))
    expect(found_page.get_by_role("status")).to_contain_text("Cut a")
    expect(wire.locator(".scx-cross")).to_be_visible()
    found_page.get_by_role("button", name="Restore all").click()
    expect(found_page.locator(".scx-kept")).to_have_text(str(found.count_edges()))


def test_signs_differ_by_more_than_colour(found_page: Page) -> None:
    dashes = "(lines) => lines.map((line) => getComputedStyle(line).strokeDasharray)"
    assert set(found_page.locator("svg.scx-wide .scx-positive .scx-line").evaluate_all(dashes)) == {"none"}
    assert set(found_page.locator("svg.scx-wide .scx-negative .scx-line").evaluate_all(dashes)) == {"7px, 3px"}


def test_it_fits_a_phone_and_both_themes(found_page: Page) -> None:
    found_page.set_viewport_size({"width": 375, "height": 740})
    assert found_page.evaluate("document.documentElement.scrollWidth") <= 375
    for theme in ("dark", "light"):
        found_page.emulate_media(color_scheme=theme)
        ink = found_page.locator(".scx-node text").first.evaluate("(text) => getComputedStyle(text).fill")
        paper = host(found_page).evaluate("(host) => getComputedStyle(host).backgroundColor")
        assert ink != paper
    assert "among the" in found_page.locator(".scx-leading caption").inner_text()


@pytest.mark.parametrize("tokens", [["'", "(", "('", " c"], ["a", "b", "ab", "a b"], [" ", "  ", "x"]])
def test_every_prompt_is_written_so_that_it_reads_back(open_explorer, tokens: list[str]) -> None:
    model = Transformer(TransformerConfig(len(tokens), 9, 1, 2, 1, 1, 1))
    page = open_explorer(explore(model, prompts=[[0]], vocabulary=tokens))
    for prompt in ([0, 1], [1, 0, 2], [2, 0, 1, 1, 2], [len(tokens) - 1, 0, 0]):
        text = host(page).evaluate("(host, tokens) => host.explorer.spell(tokens)", prompt)
        page.get_by_text("Build your own prompt").click()
        page.get_by_label("Tokens, with or without spaces").fill(text)
        page.get_by_role("button", name="Run").click()
        assert host(page).evaluate("(host) => host.explorer.tokens") == prompt, text
        page.get_by_text("Build your own prompt").click()
