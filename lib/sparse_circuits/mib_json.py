"""Component graphs in the JSON format of EAP-IG and of the MIB benchmark, so that circuits can be moved across.

First used in chapter 9. A file has `cfg` (layers, heads, width), `nodes` (name to whether it is in the circuit) and
`edges` (name to score and whether it is in the circuit). The names are those of `components.py`. The scores of
EAP-IG's own scripts are changes of a loss: of the negative logit difference, so that they have the opposite sign of
`eap(model, pairs)`. Scores are written and read as they are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from .checkpoints import canonical_json, write_atomically
from .circuit import Circuit
from .components import EDGES, SOURCE, ComponentGraph
from .edge_scores import EdgeScores


def write_mib_graph(path: str | os.PathLike, scores: EdgeScores, circuit: Circuit, d_model: int) -> None:
    """Write scores and a circuit as a graph file that EAP-IG and MIB read; atomically.

    Parameters
    ----------
    path : path
        The file.
    scores : EdgeScores
        Of a component graph.
    circuit : Circuit
        Of the same graph; its edges are marked as `in_graph`.
    d_model : int
        Width of the model, which the format asks for.

    Raises
    ------
    ValueError
        If the scores are not of a component graph, or the circuit is of another one.
    """
    graph = scores.graph
    if not isinstance(graph, ComponentGraph) or not graph.same_as(circuit.graph):
        raise ValueError(
            f"The scores are of {graph!r}, the circuit of {circuit.graph!r}; give both of one component graph."
        )
    inside = {"input", "logits", *graph.components(circuit)}
    kept, values = circuit.edge_masks[EDGES].tolist(), scores.scores[EDGES].tolist()
    edges = {
        graph.edge_name(EDGES, i, j): {"score": values[i][j], "in_graph": kept[i][j]}
        for i, j in graph.edge_masks[EDGES].nonzero().tolist()
    }
    cfg = {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": False, "d_model": d_model}
    nodes = {name: {"in_graph": name in inside} for name in [*graph.names[SOURCE], "logits"]}
    write_atomically(Path(path), canonical_json({"cfg": cfg, "nodes": nodes, "edges": edges}))


def read_mib_graph(path: str | os.PathLike, graph: ComponentGraph) -> tuple[EdgeScores, Circuit]:
    """Read a graph file of EAP-IG or MIB: its scores, and the circuit of the edges that it marks.

    Parameters
    ----------
    path : path
        The file.
    graph : ComponentGraph
        Of the model that the file is about.

    Raises
    ------
    ValueError
        If the file is no such graph, is of a model of another shape or with parallel attention and MLP, or lacks an
        edge or its score. The message names the file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        cfg, edges = content["cfg"], content["edges"]
        shape, parallel = (cfg["n_layers"], cfg["n_heads"]), bool(cfg.get("parallel_attn_mlp"))
        stored = {name: (float(edge["score"]), bool(edge["in_graph"])) for name, edge in edges.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no graph file of EAP-IG ({error!r}); write it with Graph.to_json.") from error
    if shape != (graph.n_layers, graph.n_heads) or parallel:
        raise ValueError(
            f"{path} is about {shape[0]} layers of {shape[1]} heads{', attention beside the MLP' if parallel else ''}; "
            f"this model has {graph.n_layers} layers of {graph.n_heads} heads, one after the other. Give its file."
        )
    expected = {graph.edge_name(EDGES, i, j): (i, j) for i, j in graph.edge_masks[EDGES].nonzero().tolist()}
    if odd := sorted(expected.keys() ^ stored.keys()):
        raise ValueError(f"{path} does not have the edges of {graph!r}, for example {odd[0]!r}; write it again.")
    scores, kept = torch.zeros(graph.edge_masks[EDGES].shape), torch.zeros_like(graph.edge_masks[EDGES])
    for name, (i, j) in expected.items():
        scores[i, j], kept[i, j] = stored[name]
    masks = {EDGES: kept}
    return EdgeScores(graph, {EDGES: scores}, f"from {Path(path).name}"), Circuit(graph, graph.ends_of(masks), masks)
