"""`explore_graph`: the drawing of an attribution graph, in which a reader pins, groups and annotates nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sparse_circuits.attribution_graph import EDGES, NODE
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer.contents import as_json
from sparse_circuits.explorer.graph_layout import (
    BOX_HEIGHT,
    BOX_WIDTH,
    GraphLayout,
    label_of,
    words_of,
)
from sparse_circuits.explorer.packed import packed_script, script_text
from sparse_circuits.explorer.page import legend_key, one_line_style, write_page
from sparse_circuits.explorer.questions import visible
from sparse_circuits.feature_nodes import KINDS
from sparse_circuits.graph_pruning import influence, prune_graph
from sparse_circuits.reading import Reading

if TYPE_CHECKING:
    from sparse_circuits.attribution_graph import AttributionGraph

SCRIPTS = ("text.js", "graph_state.js", "graph_panel.js", "graph.js", "graph_mount.js")
STYLES = ("explorer.css", "found.css", "graph.css")
MAX_NODES, MAX_EDGES = 400, 3000
DIGITS = 4


@dataclass(frozen=True)
class GraphExplorer:
    """An attribution graph that can be read in the page; notebooks show it as the result of a cell.

    Parameters
    ----------
    title : str
        Its title.
    n_nodes, n_edges : int
        How many nodes and edges it draws.
    name : str
        A text that is the same whenever the same graph is drawn; small differences of its numbers do not count.
    body : str
        The HTML between the style sheet and the script.
    data : str
        What the script reads, as JSON in one line.
    """

    title: str
    n_nodes: int
    n_edges: int
    name: str = field(repr=False)
    body: str = field(repr=False)
    data: str = field(repr=False)

    @property
    def identifier(self) -> str:
        """Name of this drawing in the page: a hash of what it shows and of its script, but for the numbers."""
        return hashlib.sha256(script_text(self.name, SCRIPTS).encode()).hexdigest()[:12]

    def html(self) -> str:
        """Return a fragment of HTML that holds the drawing, the numbers, the style and the script."""
        return (
            f'<section class="sc-explorer sc-graph tex2jax_ignore mathjax_ignore" data-explorer="{self.identifier}" '
            f'aria-label="Attribution graph: {escape(self.title)}">\n<style>{one_line_style(STYLES)}</style>\n'
            f"{self.body}\n{packed_script(self.identifier, script_text(self.data, SCRIPTS))}\n</section>\n"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | Path) -> Path:
        """Write a complete HTML file that needs no other file and no network, and return its path."""
        return write_page(Path(path), self.title, self.html())


def explore_graph(
    graph: AttributionGraph,
    circuit: Circuit | None = None,
    vocabulary: Sequence[str] | None = None,
    title: str = "An attribution graph",
    reading: Reading | None = None,
) -> GraphExplorer:
    """Draw an attribution graph, layers by positions, for a reader to pin, group and annotate.

    First used in chapter 11. Nothing leaves the page: a reading is saved as JSON, the drawing as PNG, by the browser.

    Parameters
    ----------
    graph : AttributionGraph
        The graph.
    circuit : Circuit, optional
        The part to draw; what `prune_graph` leaves by default. Nodes without an edge in it are not drawn.
    vocabulary : list of str, optional
        A word for each token; its number if not given.
    title : str
        Heading of the drawing.
    reading : Reading, optional
        What is pinned, grouped and noted at the start. Its nodes are drawn whether or not the part has them.

    Returns
    -------
    GraphExplorer
        Shown by a notebook as the result of a cell; `.save(path)` writes it as one HTML file.

    Raises
    ------
    ValueError
        If the part is of another graph, has no edge, or more than 400 nodes or 3000 edges, if the vocabulary has
        another length than the model's, or the reading speaks of a node that the graph has not.
    """
    reading = reading or Reading()
    reading.check(graph.nodes)
    words = _words(vocabulary, graph)
    drawn, edges = _drawn(graph, circuit, reading)
    layout = GraphLayout(graph.nodes, drawn)
    tokens, names = graph.local.tokens.tolist(), graph.nodes.names
    share, inflow = influence(graph), graph.adjacency.abs().sum(1)
    place = {node: i for i, node in enumerate(drawn)}
    described = [words_of(graph.nodes, node, words, tokens) for node in drawn]
    data = {
        "title": title,
        "prompt": [words[token] for token in tokens],
        "width": layout.width,
        "height": layout.height,
        "nodes": [
            [
                names[node],
                KINDS[int(graph.nodes.kind[node])],
                *layout.places[node],
                text,
                *(_short(numbers[node]) for numbers in (graph.values, share, inflow)),
            ]
            for node, text in zip(drawn, described, strict=True)
        ],
        "edges": [[place[s], place[t], _short(graph.adjacency[t, s])] for s, t in edges],
        "reading": reading.to_dict(),
    }
    labels = [label_of(graph.nodes, node, words) for node in drawn]
    body = _body(layout, drawn, labels, described, data, words)
    # The reading in the page is what its author wrote; the numbers differ in their last digits between machines.
    name = as_json([title, data["prompt"], [names[n] for n in drawn], [edge[:2] for edge in data["edges"]], labels])
    return GraphExplorer(title, len(drawn), len(edges), f"{name}\n{as_json(data['reading'])}", body, as_json(data))


def _short(number: torch.Tensor) -> float:
    return float(f"{float(number):.{DIGITS}g}")


def _words(vocabulary: Sequence[str] | None, graph: AttributionGraph) -> list[str]:
    size = graph.local.model.cfg.d_vocab
    if vocabulary is None:
        return [str(token) for token in range(size)]
    if len(vocabulary) != size:
        raise ValueError(f"The vocabulary has {len(vocabulary)} words, the model {size} tokens; give a word for each.")
    return [visible(word) for word in vocabulary]


def _drawn(
    graph: AttributionGraph, circuit: Circuit | None, reading: Reading
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the nodes to draw, in the order of the graph, and the edges between them as (source, target)."""
    circuit = prune_graph(graph) if circuit is None else circuit
    if circuit.graph is not graph.graph and not circuit.graph.same_as(graph.graph):
        raise ValueError("The part is of another graph; take it from prune_graph(graph).")
    mask = circuit.edge_masks[EDGES]
    if not mask.any():
        raise ValueError("There is no edge to draw; give a part with edges, such as prune_graph(graph).")
    touched = (mask.any(0) | mask.any(1)) & circuit.node_masks[NODE]
    touched[[graph.nodes.index(name) for name in reading.names()]] = True
    drawn = touched.nonzero()[:, 0].tolist()
    edges = [(s, t) for s, t in mask.nonzero().tolist()]
    for n, most, what in ((len(drawn), MAX_NODES, "nodes"), (len(edges), MAX_EDGES, "edges")):
        if n > most:
            raise ValueError(f"There are {n} {what} and at most {most} are drawn; prune more: prune_graph(graph, 0.5).")
    return drawn, edges


def _body(
    layout: GraphLayout, drawn: list[int], labels: list[str], described: list[str], data: dict, words: list[str]
) -> str:
    n_nodes, n_edges, title = len(drawn), len(data["edges"]), data["title"]
    drawing = _svg(layout, drawn, labels, described, data)
    return f"""<p class="scx-title">{escape(title)}</p>
<noscript><p>Where scripts run, this drawing is live: nodes can be pinned, grouped and annotated.</p></noscript>
<div class="scx-live scx-controls" role="group" aria-label="The whole drawing"></div>
<p class="scx-live scx-verdict" role="status">Choose a node: click it, or reach the drawing with Tab, go from node to
node with the arrow keys and press Enter. P pins a node.</p>
<div class="scx-columns scx-stacked">
<figure class="scx-figure"><div class="scx-scroll">{drawing}</div>
<figcaption>{_legend(n_nodes, n_edges)}</figcaption></figure>
<div class="scx-live scx-side"><div class="scx-chosen-node" role="region" aria-label="Chosen node" hidden></div>
<div class="scx-reading" role="region" aria-label="Your reading"></div></div>
</div>"""


def _svg(layout: GraphLayout, drawn: list[int], labels: list[str], described: list[str], data: dict) -> str:
    prompt = data["prompt"]
    parts = [
        f'<rect class="scx-band" x="0" y="{row.start - 4:g}" width="{layout.width:g}" height="{row.size + 8:g}"/>'
        f'<text class="scx-row-name" x="4" y="{row.middle + 3.5:g}">{layout.row_name(row.number)}</text>'
        for row in layout.rows
    ]
    foot = layout.height - 18
    for column in layout.columns:
        word = "biases" if column.number < 0 else prompt[column.number]
        below = "" if column.number < 0 else f'<tspan x="{column.middle:g}" dy="12">{column.number}</tspan>'
        parts.append(f'<text class="scx-column-name" x="{column.middle:g}" y="{foot:g}">{escape(word)}{below}</text>')
    places = [layout.places[node] for node in drawn]
    half = BOX_HEIGHT / 2
    lines = "".join(
        f"M{places[s][0]:g} {places[s][1] - half:g}L{places[t][0]:g} {places[t][1] + half:g}"
        for s, t, _ in data["edges"]
    )
    parts.append(f'<g class="scx-wires"><path class="scx-still-wires" d="{lines}"/></g><g class="scx-boxes">')
    for i, ((x, y), label, text) in enumerate(zip(places, labels, described, strict=True)):
        kind = data["nodes"][i][1]
        size = f'x="{x - BOX_WIDTH / 2:g}" y="{y - half:g}" width="{BOX_WIDTH:g}" height="{BOX_HEIGHT:g}"'
        parts.append(
            f'<g class="scx-unit scx-{kind}" data-node="{i}"><title>{escape(text)}</title>'
            f'<rect {size} rx="{3 if kind in ("token", "position") else 8}"/>'
            f'<text x="{x:g}" y="{y + 3.5:g}">{escape(label)}</text></g>'
        )
    title = f"{data['title']}: {len(drawn)} nodes and {len(data['edges'])} edges, layers from bottom to top"
    return (
        f'<svg class="scx-svg scx-wide" viewBox="0 0 {layout.width:g} {layout.height:g}" '
        f'style="--scx-width:{layout.width:g}px" role="img" aria-label="{escape(title)}">{"".join(parts)}</g></svg>'
    )


def _legend(n_nodes: int, n_edges: int) -> str:
    line = '<path class="scx-line" d="M0 7h24"/>'
    keys = [
        ("scx-wire scx-positive", line, "edge that adds"),
        ("scx-wire scx-negative", line, "edge that takes away"),
        *(
            (f"scx-unit scx-{kind}", f'<rect x="1" y="2" width="22" height="10" rx="{radius}"/>', words)
            for kind, radius, words in (
                ("feature", 5, "feature, with its number"),
                ("error", 5, "error"),
                ("token", 2, "embedding"),
                ("bias", 5, "bias"),
                ("logit", 5, "logit"),
            )
        ),
    ]
    drawn = "".join(legend_key(*key) for key in keys)
    counts = f"{n_nodes} nodes, {n_edges} edges. Width of a line: its share of all that enters its target."
    return f"{drawn}<span>{counts}</span>"
