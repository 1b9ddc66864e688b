"""The explorer of a found circuit of a big sparse model: what it runs, what it weighs, what a reader can do with it."""

from __future__ import annotations

import pytest
import torch
from explorer_pages import RUN, host
from playwright.sync_api import Page
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
    chosen = list(range(0, len(edges), 3))
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
