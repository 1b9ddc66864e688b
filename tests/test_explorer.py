"""The explorer's page as Python writes it: complete and exact data, one text for one circuit, clear refusals."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer import Explorer, explore
from sparse_circuits.explorer.layout import BADGE_RADIUS, Layout
from sparse_circuits.explorer.wiring import Node, find_edges, whole_circuit
from sparse_circuits.graph import weight_graph
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.planted import PlantedCircuit, planted_bracket_circuit, planted_quote_circuit

TINY = TransformerConfig(d_vocab=3, n_ctx=4, n_layers=1, d_model=2, n_heads=1, d_head=1, d_mlp=1)
LETTERS = ["a", "b", "c"]


def page_data(explorer: Explorer) -> dict:
    return json.loads(BeautifulSoup(explorer.html(), "html.parser").select_one("script.scx-data").string)


def explore_planted(planted: PlantedCircuit, **options) -> Explorer:
    prompts = planted.sample(4, seed=0)
    options = {"answers": [prompt.right for prompt in prompts], "edge_notes": planted.carries, **options}
    return explore(planted.model, [prompt.tokens for prompt in prompts], planted.vocabulary, **options)


@pytest.fixture(scope="module", params=[planted_quote_circuit, planted_bracket_circuit])
def planted(request: pytest.FixtureRequest) -> PlantedCircuit:
    return request.param()


@pytest.fixture
def tiny() -> Transformer:
    return Transformer(TINY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_come_back_from_the_page_bit_by_bit(dtype: torch.dtype) -> None:
    config = TransformerConfig(5, 4, 2, 4, 2, 2, 3, attention_sink=True, bigram_table=True)
    model = Transformer(config, seed=1).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=dtype) / 3)
            weight[..., ::2] = 0
    data = page_data(explore(model, [["a"]], list("abcde")))
    assert data["config"] == model.cfg.to_dict()
    assert data["weights"].keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        record = data["weights"][name]
        found = torch.zeros(weight.numel(), dtype=torch.float64)
        found[record["index"]] = torch.tensor(record["value"], dtype=torch.float64)
        assert torch.equal(found.view(record["shape"]), weight.detach().double())
        assert 0 not in record["value"]


def test_edges_and_nodes_are_those_of_the_circuit(planted: PlantedCircuit) -> None:
    for circuit in (planted.circuit, whole_circuit(planted.model)):
        explorer = explore_planted(planted, circuit=circuit)
        data = page_data(explorer)
        assert (explorer.n_edges, explorer.n_nodes) == (circuit.count_edges(), circuit.count_nodes())
        assert [" -> ".join(edge["ends"]) for edge in data["edges"]] == circuit.edges()
        assert {end for edge in data["edges"] for end in edge["ends"]} | set(data["alone"]) == set(circuit.nodes())
        parameters = planted.model.state_dict()
        for edge in data["edges"]:
            assert float(parameters[edge["parameter"]].flatten()[edge["index"]]) == edge["weight"] != 0


def test_the_whole_circuit_has_all_edges_and_the_queries_that_are_a_bias() -> None:
    planted = planted_quote_circuit()
    whole = whole_circuit(planted.model)
    assert whole.count_edges() == weight_graph(planted.model).count_edges()
    assert {"blocks.1.attn.hook_q[0]", "blocks.1.attn.hook_q[1]"} <= set(whole.nodes())
    assert (planted.circuit | whole) == whole


def test_drawing_and_table_are_there_without_the_script(planted: PlantedCircuit) -> None:
    page = BeautifulSoup(explore_planted(planted, circuit=planted.circuit).html(), "html.parser")
    edges = find_edges(planted.model, planted.circuit)
    assert len(page.select("svg g[data-edge]")) == len(page.select("tr[data-edge]")) == len(edges)
    assert len(page.select("svg g.scx-node")) == planted.circuit.count_nodes()
    for row, edge in zip(page.select("tr[data-edge]"), edges, strict=True):
        cells = [cell.get_text() for cell in row.select("td")]
        assert float(cells[0].replace("−", "-")) == edge.weight
        assert cells[1] == planted.carries[edge.name].replace("`", "")


def test_the_page_is_one_small_text_that_names_no_host(planted: PlantedCircuit) -> None:
    html = explore_planted(planted, circuit=planted.circuit).html()
    assert html == explore_planted(planted, circuit=planted.circuit)._repr_html_()
    assert html != explore_planted(planted, circuit=planted.circuit, title="another").html()
    data = re.search(r'class="scx-data">(.*?)</script>', html)[1]
    assert len(data) < 10_000
    assert len(html.encode()) < 80_000
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {"http://www.w3.org/2000/svg"}
    assert " id=" not in html


def test_tokens_cannot_break_the_page(tiny: Transformer) -> None:
    hostile = ["</script>", "<!--", '"><img src=x>']
    html = explore(tiny, [hostile], hostile, title="<b>&", channel_names={0: "<i>", 1: "&amp;"}).html()
    page = BeautifulSoup(html, "html.parser")
    assert json.loads(page.select_one("script.scx-data").string)["spelling"] == hostile
    assert page.select_one(".scx-title").get_text() == "<b>&"
    assert not page.select("img, b:not([class]), i")
    assert len(page.select("script")) == 2


def test_saved_file_is_complete_and_replaces_the_old_one_at_once(tmp_path: Path, tiny: Transformer) -> None:
    explorer = explore(tiny, [["a"]], LETTERS, title="Tiny")
    path = tmp_path / "tiny.html"
    path.write_text("old")
    assert explorer.save(str(path)) == path
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n") and explorer.html() in text
    HTMLParser().feed(text)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.html"]


def test_prompts_may_be_numbers_or_strings(tiny: Transformer) -> None:
    by_name = explore(tiny, [["a", "c"]], LETTERS, answers=["b"])
    assert by_name == explore(tiny, [[0, 2]], LETTERS, answers=[1])
    assert page_data(by_name)["prompts"] == [{"tokens": [0, 2], "answer": 1}]


@pytest.mark.parametrize("seed", range(5))
def test_marks_of_edges_hide_no_node_and_seldom_each_other(seed: int) -> None:
    model = Transformer(TransformerConfig(5, 4, 2, 6, 2, 2, 5), seed=seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".W_" in name:
                weight.mul_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.12)
    circuit = whole_circuit(model)
    layout = Layout(
        edges=find_edges(model, circuit),
        node_set=[Node.parse(name) for name in circuit.nodes()],
        d_head=2,
        embedding=torch.ones(6, dtype=torch.bool).numpy(),
        unembedding=torch.ones(6, 5, dtype=torch.bool).numpy(),
        biased=torch.zeros(5, dtype=torch.bool).numpy(),
        tokens=list("abcde"),
        channel_names={},
    )
    marks, nodes = torch.tensor(layout.badges), torch.tensor(list(layout.nodes.values()))
    assert torch.cdist(marks, nodes).min() > BADGE_RADIUS
    assert len(set(layout.nodes.values())) == len(layout.nodes) == circuit.count_nodes()
    assert bool((marks[:, 0] < layout.width).all() and (marks[:, 1] > layout.top).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"prompts": [["a", "z"]]},
            r"prompts\[0\] has the token 'z', which is not in the vocabulary \['a', 'b', 'c'\]",
        ),
        ({"prompts": [["a"], [0, 3]]}, r"prompts\[1\] has the token 3"),
        ({"prompts": [list("abcab")]}, r"prompts\[0\] has 5 tokens; the model reads 1 to 4"),
        ({"prompts": [[]]}, r"prompts\[0\] has 0 tokens"),
        ({"prompts": []}, "prompts is empty"),
        ({"answers": ["a", "b"]}, "2 answers for 1 prompts"),
        ({"answers": ["z"]}, r"answers\[0\] has the token 'z'"),
        ({"vocabulary": ["a", "b"]}, "vocabulary has 2 tokens, the model 3"),
        ({"vocabulary": ["a", "b", "a"]}, "'a' twice"),
        ({"edge_notes": {"blocks.0.mlp.hook_post[0]": ""}}, "is no name of an edge"),
    ],
)
def test_wrong_input_is_refused(tiny: Transformer, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explore(tiny, **{"prompts": [["a"]], "vocabulary": LETTERS, **arguments})


def test_strings_in_place_of_lists_are_refused(tiny: Transformer) -> None:
    for arguments in ({"prompts": "ab"}, {"prompts": ["ab"]}, {"vocabulary": "abc"}):
        with pytest.raises(TypeError, match="give a list"):
            explore(tiny, **{"prompts": [["a"]], "vocabulary": LETTERS, **arguments})


def test_models_that_cannot_be_drawn_are_refused(tiny: Transformer) -> None:
    wide = Transformer(TransformerConfig(3, 4, 1, 20, 1, 10, 20))
    with pytest.raises(ValueError, match="There are 1600 edges and the explorer draws at most 400"):
        explore(wide, [["a"]], LETTERS)
    few = Circuit.from_names(weight_graph(wide), Circuit.full(weight_graph(wide)).edges()[:3])
    assert explore(wide, [["a"]], LETTERS, circuit=few).n_edges == 3
    gated = Transformer(replace(TINY, activation_density=0.5))
    with pytest.raises(ValueError, match=r"a share of 0\.5 of its activations"):
        explore(gated, [["a"]], LETTERS)
    talkative = Transformer(TransformerConfig(6000, 4, 1, 2, 1, 1, 1))
    with pytest.raises(ValueError, match="non-zero weights, the page holds at most 20000"):
        explore(talkative, [[0]], [str(token) for token in range(6000)])
    with pytest.raises(ValueError, match="another model's graph"):
        explore(tiny, [["a"]], LETTERS, circuit=few)
    with torch.no_grad():
        for weight in tiny.parameters():
            weight.zero_()
    with pytest.raises(ValueError, match="There is no edge to draw"):
        explore(tiny, [["a"]], LETTERS)
