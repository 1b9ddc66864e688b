"""The explorer's page as Python writes it: complete and exact data, one text for one circuit, clear refusals."""

import base64
import json
import math
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from sparse_circuits.ablation_values import mean_values, zero_values
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer import Explorer, explore
from sparse_circuits.explorer.layout import BADGE_RADIUS, Layout
from sparse_circuits.explorer.payload import pack
from sparse_circuits.explorer.wiring import Node, find_edges, whole_circuit
from sparse_circuits.graph import weight_graph
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.planted import PlantedCircuit, planted_bracket_circuit, planted_quote_circuit
from sparse_circuits.tasks.tokenizer import START, load_tokenizer
from sparse_circuits.two_way import TwoWayPrompts

TINY = TransformerConfig(d_vocab=3, n_ctx=4, n_layers=1, d_model=2, n_heads=1, d_head=1, d_mlp=1)
LETTERS = ["a", "b", "c"]


def inflated(explorer: Explorer) -> str:
    packed = BeautifulSoup(explorer.html(), "html.parser").select_one("script.scx-packed").string
    return zlib.decompress(base64.b64decode(packed)).decode()


def page_data(explorer: Explorer) -> dict:
    return json.loads(inflated(explorer).partition("\n")[0])


def explore_planted(planted: PlantedCircuit, **options) -> Explorer:
    prompts = planted.sample(4, seed=0)
    options = {"answers": [prompt.right for prompt in prompts], "edge_notes": planted.carries, **options}
    return explore(
        planted.model, prompts=[prompt.tokens for prompt in prompts], vocabulary=planted.vocabulary, **options
    )


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
    data = page_data(explore(model, prompts=[["a"]], vocabulary=list("abcde")))
    assert data["config"] == model.cfg.to_dict()
    assert data["weights"].keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        found, stored = unpack(data["weights"][name])
        assert np.array_equal(found, weight.detach().double().numpy())
        assert stored == int(weight.count_nonzero())


def unpack(record: dict) -> tuple[np.ndarray, int]:
    """Read a packed array byte by byte; return it and how many entries are stored."""
    kind = "f4" if "f4" in record else "f8"
    values = np.frombuffer(base64.b64decode(record[kind]), "<" + kind)
    found = np.zeros(math.prod(record["shape"]))
    if "gaps" not in record:
        return values.astype(float).reshape(record["shape"]), len(values)
    at, gap, shift, read = -1, 0, 0, iter(values)
    for byte in base64.b64decode(record["gaps"]):
        gap += (byte % 128) << shift
        shift += 7
        if byte < 128:
            at += gap + 1
            found[at] = next(read)
            gap = shift = 0
    assert next(read, None) is None
    return found.reshape(record["shape"]), len(values)


@pytest.mark.parametrize("size", [1, 2, 127, 128, 129, 130, 17_000, 2_200_000])
def test_far_entries_are_packed_where_they_stand(size: int) -> None:
    for index in ([0], [size - 1], sorted({0, size // 2, size - 1}), []):
        values = np.zeros(size)
        values[index] = np.linspace(1, 2, len(index)) / 3
        assert np.array_equal(unpack(pack(values))[0], values)
        single = np.float32(values).astype(float)
        assert np.array_equal(unpack(pack(single))[0], single) and "f8" not in pack(single)
        assert unpack(pack(values, np.arange(size)))[1] == size


def test_edges_and_nodes_are_those_of_the_circuit(planted: PlantedCircuit) -> None:
    for circuit in (planted.circuit, whole_circuit(planted.model)):
        explorer = explore_planted(planted, circuit=circuit)
        data = page_data(explorer)
        assert (explorer.n_edges, explorer.n_nodes) == (circuit.count_edges(), circuit.count_nodes())
        names = [f"{hook}[{index}]" for _, _, hook, index, _ in data["nodes"]]
        assert names == circuit.nodes()
        assert [f"{names[source]} -> {names[target]}" for *_, source, target in data["edges"]] == circuit.edges()
        parameters = planted.model.state_dict()
        edges = find_edges(planted.model, circuit)
        for (matrix, index, *_), edge in zip(data["edges"], edges, strict=True):
            assert float(parameters[data["matrices"][matrix]].flatten()[index]) == edge.weight != 0


def test_each_node_has_its_bias_and_a_short_name() -> None:
    model = Transformer(TransformerConfig(5, 4, 2, 4, 2, 2, 3), seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".b_" in name:
                weight.copy_(torch.arange(weight.numel()).view(weight.shape) + len(name))
    data = page_data(explore(model, prompts=[["a"]], vocabulary=list("abcde")))
    nodes = {f"{hook}[{index}]": (short, bias) for short, _, hook, index, bias in data["nodes"]}
    assert len(nodes) == weight_graph(model).count_nodes()
    for name, short, bias in (
        ("blocks.0.ln1.hook_normalized[3]", "a0.read[3]", None),
        ("blocks.1.attn.hook_q[2]", "a1.q[2]", model.blocks[1].attn.b_Q[1, 0]),
        ("blocks.1.attn.hook_k[1]", "a1.k[1]", model.blocks[1].attn.b_K[0, 1]),
        ("blocks.0.attn.hook_v[3]", "a0.v[3]", model.blocks[0].attn.b_V[1, 1]),
        ("blocks.0.hook_attn_out[1]", "a0.write[1]", model.blocks[0].attn.b_O[1]),
        ("blocks.1.ln2.hook_normalized[0]", "m1.read[0]", None),
        ("blocks.1.mlp.hook_post[2]", "m1.neuron[2]", model.blocks[1].mlp.b_in[2]),
        ("blocks.0.hook_mlp_out[3]", "m0.write[3]", model.blocks[0].mlp.b_out[3]),
    ):
        assert nodes[name] == (short, None if bias is None else bias.item())


def test_the_whole_circuit_has_all_edges_and_the_queries_that_are_a_bias() -> None:
    planted = planted_quote_circuit()
    whole = whole_circuit(planted.model)
    assert whole.count_edges() == weight_graph(planted.model).count_edges()
    assert {"blocks.1.attn.hook_q[0]", "blocks.1.attn.hook_q[1]"} <= set(whole.nodes())
    assert (planted.circuit | whole) == whole


def test_drawing_and_table_are_there_without_the_script(planted: PlantedCircuit) -> None:
    page = BeautifulSoup(explore_planted(planted, circuit=planted.circuit).html(), "html.parser")
    edges = find_edges(planted.model, planted.circuit)
    assert len(page.select("svg g[data-wire]")) == len(page.select("tr[data-edge]")) == len(edges)
    assert len(page.select("svg g.scx-node")) == planted.circuit.count_nodes()
    for row, edge in zip(page.select("tr[data-edge]"), edges, strict=True):
        cells = [cell.get_text() for cell in row.select("td")]
        assert float(cells[0].replace("−", "-")) == edge.weight
        assert cells[1] == planted.carries[edge.name].replace("`", "")


def test_the_page_is_one_small_text_that_names_no_host(planted: PlantedCircuit) -> None:
    explorer = explore_planted(planted, circuit=planted.circuit)
    html = explorer.html()
    assert html == explore_planted(planted, circuit=planted.circuit)._repr_html_()
    assert html != explore_planted(planted, circuit=planted.circuit, title="another").html()
    assert len(inflated(explorer).partition("\n")[0]) < 10_000
    assert len(html.encode()) < 60_000
    assert set(re.findall(r"https?://[^\s\"']+", html + inflated(explorer))) == {"http://www.w3.org/2000/svg"}
    assert " id=" not in html


def test_the_name_in_the_page_changes_with_drawing_data_and_script(
    planted: PlantedCircuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = explore_planted(planted, circuit=planted.circuit)
    assert f'data-explorer="{explorer.identifier}"' in explorer.html()
    changed = explorer.data.replace('"n_ctx":', '"n_context":')
    assert changed != explorer.data
    others = [replace(explorer, data=changed), replace(explorer, body=explorer.body + " ")]
    names = {explorer.identifier, *(other.identifier for other in others)}
    monkeypatch.setattr("sparse_circuits.explorer.packed.SCRIPTS", ("forward.js",))
    assert len(names | {explorer.identifier}) == 4


def test_the_name_in_the_page_leaves_out_the_last_digits_of_means(tiny: Transformer) -> None:
    circuit = Circuit.from_names(weight_graph(tiny), Circuit.full(weight_graph(tiny)).edges()[:1])
    values = mean_values(tiny, torch.tensor([[0, 1, 2]]), reference="r")
    nearly = replace(values, activations={place: mean * 1.0001 for place, mean in values.activations.items()})
    one, other = (
        explore(tiny, circuit, prompts=[["a"]], vocabulary=LETTERS, values=given) for given in (values, nearly)
    )
    assert one.data != other.data
    assert one.identifier == other.identifier
    assert one.identifier != explore(tiny, circuit, prompts=[["b"]], vocabulary=LETTERS, values=values).identifier


def test_tokens_cannot_break_the_page(tiny: Transformer) -> None:
    hostile = ["</script>", "<!--", '"><img src=x>']
    explorer = explore(tiny, prompts=[hostile], vocabulary=hostile, title="<b>&", channel_names={0: "<i>", 1: "&amp;"})
    assert page_data(explorer)["spelling"] == hostile
    page = BeautifulSoup(explorer.html(), "html.parser")
    assert page.select_one(".scx-title").get_text() == "<b>&"
    assert not page.select("img, b:not([class]), i")
    assert len(page.select("script")) == 2


def test_saved_file_is_complete_and_replaces_the_old_one_at_once(tmp_path: Path, tiny: Transformer) -> None:
    explorer = explore(tiny, prompts=[["a"]], vocabulary=LETTERS, title="Tiny")
    path = tmp_path / "tiny.html"
    path.write_text("old")
    assert explorer.save(str(path)) == path
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n") and explorer.html() in text
    HTMLParser().feed(text)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.html"]


def test_prompts_may_be_numbers_or_strings(tiny: Transformer) -> None:
    by_name = explore(tiny, prompts=[["a", "c"]], vocabulary=LETTERS, answers=["b"])
    assert by_name == explore(tiny, prompts=[[0, 2]], vocabulary=LETTERS, answers=[1])
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
    wide = Transformer(TransformerConfig(3, 4, 1, 25, 1, 10, 25))
    with pytest.raises(ValueError, match="There are 2250 edges and the explorer draws at most 2000"):
        explore(wide, prompts=[["a"]], vocabulary=LETTERS)
    few = Circuit.from_names(weight_graph(wide), Circuit.full(weight_graph(wide)).edges()[:3])
    assert explore(wide, prompts=[["a"]], vocabulary=LETTERS, circuit=few).n_edges == 3
    with pytest.raises(TypeError, match="circuit is list; give a Circuit"):
        explore(tiny, [["a"]], LETTERS)
    long = Transformer(TransformerConfig(3, 4, 1, 1, 1, 1, 500))
    with pytest.raises(ValueError, match="There are 507 nodes and the explorer draws at most 400"):
        explore(long, prompts=[["a"]], vocabulary=LETTERS)
    with pytest.raises(ValueError, match="another model's graph"):
        explore(tiny, prompts=[["a"]], vocabulary=LETTERS, circuit=few)
    with torch.no_grad():
        for weight in tiny.parameters():
            weight.zero_()
    with pytest.raises(ValueError, match="There is no edge to draw"):
        explore(tiny, prompts=[["a"]], vocabulary=LETTERS)


@pytest.fixture(scope="module")
def talkative() -> tuple[Transformer, Circuit]:
    """A model with far more embeddings than blocks, and three of its edges."""
    model = Transformer(TransformerConfig(2000, 64, 1, 20, 1, 4, 10), seed=2)
    graph = weight_graph(model)
    return model, Circuit.from_names(graph, Circuit.full(graph).edges()[:3])


def test_a_page_leaves_out_tokens_until_it_is_light_enough(talkative: tuple[Transformer, Circuit]) -> None:
    model, circuit = talkative
    names = [f"w{number}" for number in range(2000)]
    prompts = [[5, 7, 1999, 7], [7, 30]]
    logits = [model(torch.tensor([prompt]))[0] for prompt in prompts]
    leading = {token for row in logits for token in [*row.argmax(-1).tolist(), *row[-1].topk(5).indices.tolist()]}
    few = sorted({5, 7, 1999, 30, 44} | leading)
    fewest = sorted({5, 7, 1999, 30, 44} | {row[-1].argmax().item() for row in logits})
    sizes = []
    for limit, outputs, inputs, n_ctx in (
        (1500, range(2000), None, 64),
        (400, range(2000), few, 8),
        (150, few, few, 8),
        (42, fewest, fewest, 4),
    ):
        explorer = explore(model, circuit, prompts, names, answers=[44, 5], max_kilobytes=limit)
        data = page_data(explorer)
        sizes.append(len(explorer.html().encode()))
        assert sizes[-1] <= 1000 * limit
        assert data["spelling"] == [names[token] for token in outputs]
        assert data["config"]["n_ctx"] == n_ctx and data["config"]["d_vocab"] == len(outputs)
        assert inputs is None or [data["spelling"][token] for token in data["inputs"]] == [names[t] for t in inputs]
        assert [[data["spelling"][token] for token in prompt["tokens"]] for prompt in data["prompts"]] == [
            [names[token] for token in prompt] for prompt in prompts
        ]
        assert [data["spelling"][prompt["answer"]] for prompt in data["prompts"]] == ["w44", "w5"]
        rows = torch.tensor(inputs or range(2000))
        stored = torch.tensor(unpack(data["weights"]["W_E"])[0])
        places = data["inputs"] or range(2000)
        assert torch.equal(stored[list(places)], model.W_E.detach()[rows].double())
        assert len(unpack(data["weights"]["W_E"])[0].nonzero()[0]) == 20 * len(rows)
        assert np.array_equal(unpack(data["weights"]["W_U"])[0], model.W_U.detach()[:, list(outputs)].double().numpy())
    assert sizes == sorted(sizes, reverse=True)


def test_a_page_that_is_too_heavy_says_what_weighs_and_what_to_do(talkative: tuple[Transformer, Circuit]) -> None:
    model, circuit = talkative
    names = [f"w{number}" for number in range(2000)]
    with pytest.raises(ValueError, match=r"weighs \d+ kB and may weigh 20; .* values=sc.mean_values"):
        explore(model, circuit, [[5]], names, max_kilobytes=20)
    with pytest.raises(ValueError, match=r"a smaller circuit, fewer or shorter prompts, or a larger max_kilobytes"):
        explore(model, circuit, [[5]], names, values=zero_values(), max_kilobytes=20)


def test_values_that_differ_between_positions_are_refused(tiny: Transformer) -> None:
    values = mean_values(tiny, torch.tensor([[0, 1, 2]]), reference="r", by_position=True)
    with pytest.raises(ValueError, match="differ between prompts or positions; give mean_values"):
        explore(tiny, prompts=[["a"]], vocabulary=LETTERS, values=values)


def test_what_only_constants_hear_is_not_sent() -> None:
    model = Transformer(TransformerConfig(3, 4, 2, 4, 2, 2, 5, attention_sink=True), seed=1)
    graph = weight_graph(model)
    in_first_attention = [name for name in Circuit.full(graph).edges() if name.startswith("blocks.0.attn.hook_v")]
    circuit = Circuit.from_names(graph, in_first_attention)
    values = mean_values(model, torch.tensor([[0, 1, 2]]), reference="r")
    data = page_data(explore(model, circuit, prompts=[["a"]], vocabulary=LETTERS, values=values))
    sent = {name for name, record in data["weights"].items() if name.startswith("blocks") and unpack(record)[1]}
    assert sent == {"blocks.0.attn.b_V", "blocks.0.attn.W_O"}
    within = {"blocks.0.attn.hook_q", "blocks.0.attn.hook_k", "blocks.0.attn.hook_v"}
    assert data["fixed"].keys() == within | {f"blocks.{i}.hook_{part}_out" for i in (0, 1) for part in ("attn", "mlp")}


def test_zero_values_leave_the_model_as_it_was(tiny: Transformer) -> None:
    model = tiny.double()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    circuit = Circuit.from_names(weight_graph(model), Circuit.full(weight_graph(model)).edges()[:1])
    explore(model, circuit, prompts=[["a"]], vocabulary=LETTERS, values=zero_values())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_the_books_own_tokens_and_prompts_stand_in() -> None:
    model = Transformer(TransformerConfig(2048, 16, 1, 2, 1, 1, 1))
    data = page_data(explore(model))
    tokenizer = load_tokenizer()
    assert [[data["spelling"][token] for token in prompt["tokens"]] for prompt in data["prompts"]] == [
        [START, *tokenizer.tokens("print('hello".replace("'", quote))] for quote in "\"'"
    ]
    assert "␣×12" in data["vocabulary"] and len(set(data["vocabulary"])) == 2048
    assert data == page_data(explore(model, Circuit.full(weight_graph(model))))
    with pytest.raises(ValueError, match="The model has 3 tokens and the book's tokenizer 2048; give vocabulary"):
        explore(Transformer(TINY), prompts=[["a"]])
    with pytest.raises(ValueError, match="prompts is not given and the vocabulary is not the book's"):
        explore(Transformer(TINY), vocabulary=LETTERS)


def test_two_way_prompts_end_where_the_answer_is_read(tiny: Transformer) -> None:
    prompts = TwoWayPrompts(
        torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([1, 2]), torch.tensor([2, 0]), torch.tensor([0, 2])
    )
    data = page_data(explore(tiny, prompts=prompts, vocabulary=LETTERS))
    assert data["prompts"] == [{"tokens": [0, 1], "answer": 2}, {"tokens": [2, 1, 0], "answer": 0}]
