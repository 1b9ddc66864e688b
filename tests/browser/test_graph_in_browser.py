"""The drawing of an attribution graph in a browser: pin, group, annotate, save, by mouse and by keyboard."""

from __future__ import annotations

import io
import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from explorer_pages import host
from graph_pages import WORDS, small_graph
from PIL import Image
from playwright.sync_api import Page, expect
from sparse_circuits.explorer import explore_graph
from sparse_circuits.graph_pruning import prune_graph
from sparse_circuits.reading import Reading, supernode_edges

pytestmark = pytest.mark.browser

STORED = "(host) => host.explorer.state.stored()"
WIRES = "(host) => host.explorer.wires.map(({ source, target, weight }) => [source.name, target.name, weight])"


@pytest.fixture(scope="module")
def graph():
    return small_graph()


@pytest.fixture(scope="module")
def features(graph) -> list[str]:
    return [name for name in prune_graph(graph).nodes() if name.startswith("f")]


@pytest.fixture
def graph_page(open_explorer, graph) -> Page:
    return open_explorer(explore_graph(graph, vocabulary=WORDS, title="A small graph"))


def box(page: Page, name: str):
    return page.locator(f".scx-unit[aria-label^='{name},']")


def panel(page: Page):
    return page.get_by_role("region", name="Chosen node")


def put_into(page: Page, node: str, group: str) -> None:
    box(page, node).locator("rect").click()
    page.get_by_label("Supernode").fill(group)
    page.get_by_role("button", name="Put into").click()
    page.get_by_role("button", name="Close").click()


def test_a_chosen_node_lists_what_enters_and_leaves_it(graph_page: Page, graph, features) -> None:
    circuit = prune_graph(graph)
    expect(panel(graph_page)).to_be_hidden()
    box(graph_page, features[-1]).locator("rect").click()
    expect(panel(graph_page)).to_contain_text(features[-1])
    into = [edge.split("->")[0] for edge in circuit.edges() if edge.endswith(f"->{features[-1]}")]
    shown = graph_page.locator(".scx-joined").first.locator("tbody button").all_inner_texts()
    largest = sorted(into, key=lambda name: -abs(graph.edge(name, features[-1])))
    assert shown == largest[:12]
    weight = graph_page.locator(".scx-joined").first.locator("td").first.inner_text()
    assert float(weight.replace("−", "-")) == pytest.approx(graph.edge(largest[0], features[-1]), rel=1e-3)
    graph_page.locator(".scx-joined").first.locator("tbody button").first.click()
    expect(panel(graph_page)).to_contain_text(largest[0])


def test_pin_group_annotate_and_save(graph_page: Page, graph, features, tmp_path) -> None:
    one, two, three = features[:3]
    box(graph_page, one).locator("rect").click()
    graph_page.get_by_role("button", name="Pin", exact=True).click()
    expect(graph_page.get_by_role("button", name="Unpin")).to_be_focused()
    graph_page.get_by_label("Note").fill('says "a" & more')
    graph_page.get_by_role("button", name="Close").click()
    for name in (one, two):
        put_into(graph_page, name, "pair")
    put_into(graph_page, three, "other")
    with graph_page.expect_download() as download:
        graph_page.get_by_role("button", name="Save JSON").click()
    download.value.save_as(tmp_path / "reading.json")
    reading = Reading.load(tmp_path / "reading.json")
    assert reading.groups == {"pair": [one, two], "other": [three]}
    assert reading.pins == [one] and reading.notes == {one: 'says "a" & more'}
    reading.check(graph.nodes)
    expect(graph_page.locator(".scx-reading")).to_contain_text('says "a" & more')


def test_collapsed_supernodes_are_joined_by_the_sums_of_their_edges(open_explorer, graph, features) -> None:
    circuit = prune_graph(graph)
    groups = {f"layer {i}": [name for name in features if name[1] == str(i)] for i in (0, 1)}
    reading = Reading(groups)
    page = open_explorer(explore_graph(graph, circuit, WORDS, reading=reading))
    page.get_by_role("button", name="Collapse supernodes").click()
    expect(page.locator(".scx-group")).to_have_count(2)
    page.get_by_role("button", name="Only pinned and grouped").click()
    found = {(source, target): weight for source, target, weight in host(page).evaluate(WIRES)}
    kept = set(circuit.edges())
    for (source, target), total in supernode_edges(graph, reading).items():
        ends = [groups.get(unit, [unit]) for unit in (source, target)]
        drawn = sum(graph.edge(s, t) for s in ends[0] for t in ends[1] if f"{s}->{t}" in kept)
        assert found.get((source, target), 0) == pytest.approx(drawn, rel=2e-3, abs=1e-3), (source, target, total)
    page.locator(".scx-group").first.locator("rect").click()
    expect(panel(page)).to_contain_text(f"supernode of {len(groups['layer 0'])} nodes")
    page.get_by_label("Name of the supernode").fill("renamed")
    page.get_by_label("Name of the supernode").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("renamed")
    assert list(host(page).evaluate(STORED)["groups"]) == ["renamed", "layer 1"]


def test_a_saved_reading_opens_again_and_a_foreign_one_is_refused(graph_page: Page, features, tmp_path) -> None:
    reading = Reading({"pair": features[:2]}, pins=features[2:3], notes={features[0]: "a note"})
    reading.save(tmp_path / "mine.json")
    graph_page.locator("input[type=file]").set_input_files(tmp_path / "mine.json")
    expect(graph_page.get_by_role("status")).to_have_text("Opened mine.json.")
    assert host(graph_page).evaluate(STORED) == reading.to_dict()
    (tmp_path / "foreign.json").write_text(json.dumps(reading.to_dict() | {"pins": ["f1.999@3"]}))
    graph_page.locator("input[type=file]").set_input_files(tmp_path / "foreign.json")
    expect(graph_page.get_by_role("status")).to_contain_text("no node f1.999@3")
    assert host(graph_page).evaluate(STORED) == reading.to_dict()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_picture_is_the_drawing_in_the_colours_of_the_page(open_explorer, graph, mode, tmp_path) -> None:
    page = open_explorer(explore_graph(graph, vocabulary=WORDS), color_scheme=mode)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    download.value.save_as(tmp_path / "graph.png")
    picture = Image.open(io.BytesIO((tmp_path / "graph.png").read_bytes())).convert("RGB")
    width = host(page).evaluate("(host) => host.explorer.width")
    assert picture.width == pytest.approx(2 * width, abs=2)
    paper = host(page).evaluate("(host) => getComputedStyle(host).backgroundColor")
    assert f"rgb{picture.getpixel((1, picture.height - 2))}" == paper
    assert len(picture.getcolors(maxcolors=10**6)) > 20


def test_everything_can_be_done_with_the_keyboard(graph_page: Page, features) -> None:
    stops = "[...document.querySelectorAll('.scx-svg [tabindex=\"0\"]')].length"
    assert graph_page.evaluate(stops) == 1
    graph_page.locator(".scx-unit[tabindex='0']").focus()
    before = graph_page.evaluate("document.activeElement.querySelector('rect').getBBox().y")
    graph_page.keyboard.press("ArrowUp")
    after = graph_page.evaluate("document.activeElement.querySelector('rect').getBBox().y")
    assert after < before and graph_page.evaluate(stops) == 1
    name = graph_page.evaluate("document.activeElement.getAttribute('aria-label')").partition(",")[0]
    graph_page.keyboard.press("p")
    assert host(graph_page).evaluate(STORED)["pins"] == [name]
    graph_page.keyboard.press("Enter")
    expect(panel(graph_page)).to_contain_text(name)
    field = graph_page.get_by_label("Supernode")
    field.focus()
    graph_page.keyboard.type("by keys")
    graph_page.keyboard.press("Enter")
    assert host(graph_page).evaluate(STORED)["groups"] == {"by keys": [name]}
    box(graph_page, name).focus()
    graph_page.keyboard.press("Escape")
    expect(panel(graph_page)).to_be_hidden()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_axe_finds_nothing_serious_and_a_phone_does_not_scroll_sideways(open_explorer, graph, features, mode) -> None:
    reading = Reading({"pair": features[:2]}, pins=features[2:3], notes={features[0]: "a note"})
    page = open_explorer(explore_graph(graph, vocabulary=WORDS, reading=reading), color_scheme=mode)
    box(page, features[0]).locator("rect").click()
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 375, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_signs_and_kinds_differ_by_more_than_colour(graph_page: Page) -> None:
    dashes = "(lines) => [...new Set(lines.map((line) => getComputedStyle(line).strokeDasharray))]"
    wires = graph_page.locator(".scx-wires")
    assert wires.locator(".scx-positive").evaluate_all(dashes) == ["none"]
    assert wires.locator(".scx-negative").evaluate_all(dashes) == ["7px, 3px"]
    kinds = {kind: graph_page.locator(f"svg .scx-boxes .scx-{kind} rect") for kind in ("feature", "error")}
    assert kinds["feature"].evaluate_all(dashes) != kinds["error"].evaluate_all(dashes)


def test_without_scripts_the_drawing_is_there(open_explorer, graph) -> None:
    page = open_explorer(explore_graph(graph, vocabulary=WORDS), java_script_enabled=False)
    expect(page.locator(".scx-still-wires")).to_have_count(1)
    expect(page.locator(".scx-controls")).to_be_hidden()
