"""The explorer's page: checks what it is given and writes it as one fragment of HTML, or as one file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from sparse_circuits.checkpoints import write_atomically
from sparse_circuits.explorer.column_drawing import draw_columns
from sparse_circuits.explorer.columns import ColumnLayout
from sparse_circuits.explorer.contents import Contents, without_measured
from sparse_circuits.explorer.drawing import draw
from sparse_circuits.explorer.layout import Layout
from sparse_circuits.explorer.packed import packed_script, read_lines, script_text

NO_SCRIPT = "Where scripts run, this drawing is live: click an edge to cut it, and the model runs again in the page."
SPACE_IN_STYLE = re.compile(r"\s*([{};,])\s*")
STYLES = ("explorer.css", "found.css")
OPEN_ROWS = 60
REACH = {True: "reach it with Tab and press Enter", False: "use the buttons of a node or of the table below"}


@dataclass(frozen=True)
class Explorer:
    """A circuit that can be cut in the page; notebooks show it as the result of a cell.

    Parameters
    ----------
    title : str
        Its title.
    body : str
        The HTML between the style sheet and the script.
    data : str
        What the script reads, as JSON in one line.
    n_edges, n_nodes : int
        How many edges and nodes it shows.
    """

    title: str
    n_edges: int
    n_nodes: int
    body: str = field(repr=False)
    data: str = field(repr=False)

    @property
    def identifier(self) -> str:
        """Name of this explorer in the page: a hash of its content, so the same circuit always makes the same text."""
        # Builds of zlib deflate differently: the checks of a stored page compare this name in place of the packed text.
        # Means over many tokens differ in their last digits with the number of threads, so the name leaves them out.
        content = f"{self.body}\n{script_text(without_measured(self.data))}"
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def html(self) -> str:
        """Return a fragment of HTML that holds the drawing, the table, the weights, the style and the script."""
        return (
            f'<section class="sc-explorer tex2jax_ignore mathjax_ignore" data-explorer="{self.identifier}" '
            f'aria-label="Circuit explorer: {escape(self.title)}">\n<style>{one_line_style(STYLES)}</style>\n'
            f"{self.body}\n"
            f"{packed_script(self.identifier, script_text(self.data))}\n</section>\n"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | Path) -> Path:
        """Write a complete HTML file that needs no other file and no network, and return its path.

        The file is written beside its place and moved there, so a reader never sees half of it.
        """
        return write_page(Path(path), self.title, self.html())


def one_line_style(names: Sequence[str]) -> str:
    """Return style sheets as one line: a notebook stores each line of an output as a string of its own."""
    return SPACE_IN_STYLE.sub(r"\1", " ".join(line for name in names for line in read_lines(name)))


def write_page(path: Path, title: str, fragment: str) -> Path:
    """Write a fragment as a complete HTML file, beside its place and then moved there, and return its path."""
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n"
        "<style>html{color-scheme:light dark}body{margin:1rem auto;max-width:60rem;padding:0 .75rem}</style>\n"
        f"</head>\n<body>\n{fragment}</body>\n</html>\n"
    )
    write_atomically(path, page.encode())
    return path


def write(contents: Contents) -> Explorer:
    """Return the page: the drawing and the table of edges as HTML, and the data of its script."""
    labels = [contents.label(edge) for edge in contents.edges]
    n_edges, n_nodes = len(contents.edges), len(contents.nodes)
    drawing, heads = _drawing(contents, labels, f"{contents.title}: {n_edges} edges and {n_nodes} nodes")
    among = (
        ""
        if len(contents.spelling) == contents.n_vocabulary
        else (f", among the {len(contents.spelling)} of {contents.n_vocabulary} that this page holds")
    )
    body = f"""<p class="scx-title">{escape(contents.title)}</p>
<noscript><p>{NO_SCRIPT}</p></noscript>
<div class="scx-live scx-prompt"></div>
<p class="scx-live scx-verdict" role="status"></p>
<p class="scx-counts"><span class="scx-tally"><b class="scx-kept">{n_edges}</b> of {n_edges} edges kept</span>
<span class="scx-tally"><b class="scx-touched">{n_nodes}</b> of {n_nodes} nodes in use</span>
<button type="button" class="scx-live scx-restore">Restore all</button></p>
<div class="scx-columns{"" if contents.on_rails else " scx-stacked"}">
<figure class="scx-figure"><div class="scx-scroll">{drawing}</div>
<figcaption>{_legend(contents)}</figcaption></figure>
<div class="scx-live scx-side"><div><p class="scx-detail"><strong>Cut an edge, choose a node</strong>Click a line, or
{REACH[contents.on_rails]}. A second time restores it. Click a node, or reach it with Tab and the arrow keys and press
Enter, for all that it reads and writes. Pale lines carry nothing at the chosen token; choose another token above.</p>
<div class="scx-chosen-node" role="region" aria-label="Chosen node" hidden></div></div>
<div><div class="scx-scroll"><table class="scx-leading">
<caption>Leading next tokens{among}</caption><thead><tr><td></td><th scope="col">now</th><th scope="col">logit</th>
<th scope="col">intact</th><th scope="col">logit</th></tr></thead><tbody></tbody></table></div>
<p class="scx-heading">Where each token looks, in %</p><div class="scx-attention"></div></div></div>
</div>
{_edge_table(contents, labels)}"""
    return Explorer(contents.title, n_edges, n_nodes, body, contents.to_json(heads))


def _drawing(contents: Contents, labels: list[str], title: str) -> tuple[str, list[tuple[int, int]]]:
    """Draw the circuit, on rails or in columns; return it and the heads in it, as (layer, head)."""
    embedding = contents.has_entry("W_E").any(0) | contents.has_entry("W_pos").any(0)
    unembedding = contents.has_entry("W_U")
    if not contents.on_rails:
        columns = ColumnLayout(contents.edges, contents.nodes, contents.d_head)
        words = {node: contents.words(node) for node in contents.nodes}
        return draw_columns(columns, words, embedding, unembedding.any(1), title), columns.heads
    rails = Layout(
        edges=contents.edges,
        node_set=contents.nodes,
        d_head=contents.d_head,
        embedding=embedding,
        unembedding=unembedding,
        biased=contents.has_entry("b_U"),
        tokens=contents.tokens,
        channel_names=contents.channel_names,
    )
    tooltips = [f"{label}, weight {_number(edge.weight)}" for label, edge in zip(labels, contents.edges, strict=True)]
    return draw(rails, tooltips, title), [(head.layer, head.number) for head in rails.heads]


def _legend(contents: Contents) -> str:
    """Name the kinds of lines, each with a sample, and what is not drawn."""
    line = '<path class="scx-line" d="M0 7h24"/>'
    keys = [legend_key(kind, line + mark, words) for kind, mark, words in _samples(contents)]
    if contents.on_rails:
        keys += [
            legend_key(
                "", '<path class="scx-dotted" d="M0 7h24"/>', "embedding, unembedding, inside a head: not edges"
            ),
            legend_key("", '<path class="scx-rail" d="M0 7h24"/>', "residual stream, one rail per channel: not edges"),
        ]
    else:
        ends = '<path class="scx-source" d="M7 4h-6v6h6z"/><path class="scx-source" d="M15 7l4-4 4 4-4 4z"/>'
        keys += [
            legend_key(
                "", '<path class="scx-flow" d="M0 7h24"/>', "the same residual channel, read later: not an edge"
            ),
            legend_key("", ends, "from the embedding, to the logits: not edges"),
        ]
    n_undrawn = contents.n_running - len(contents.edges)
    left_out = f" {n_undrawn} more edges run but are not drawn." if n_undrawn else ""
    alone = f" Nodes outside the circuit are set to {contents.ablation}." if contents.ablation else ""
    return "".join(keys) + f"<span>Not drawn: channels that no edge here touches.{left_out}{escape(alone)}</span>"


def _samples(contents: Contents) -> list[tuple[str, str, str]]:
    """Return class, mark and meaning of the kinds of edges; on rails each edge carries its sign."""
    kinds = (
        ("scx-positive", "M12 3.5v7M8.5 7h7", "edge, weight above 0"),
        ("scx-negative", "M8.5 7h7", "edge, weight below 0"),
        ("scx-positive scx-cut", "M8.5 3.5l7 7m0-7l-7 7", "edge that is cut"),
    )
    if not contents.on_rails:
        cross = '<path class="scx-cross" d="{}"/>'
        return [(f"scx-wire {sign}", cross.format(d) if "cut" in sign else "", words) for sign, d, words in kinds]
    mark = '<circle cx="12" cy="7" r="6"/><path class="scx-sign scx-key-sign" d="{}"/>'
    return [(f"scx-edge {sign}", mark.format(d), words) for sign, d, words in kinds]


def legend_key(kind: str, sample: str, words: str) -> str:
    """Return one sample of a legend, with its meaning."""
    drawn = f'<svg width="24" height="14" aria-hidden="true"><g class="{kind}">{sample}</g></svg>'
    return f'<span class="scx-key">{drawn} {words}</span>'


def _edge_table(contents: Contents, labels: list[str]) -> str:
    rows = [
        f'<tr data-edge="{i}"><th scope="row"><span class="scx-matrix">{edge.parameter.rpartition(".")[2]}</span> '
        f'<span class="scx-name">{escape(label)}</span></th>'
        f"<td>{_number(edge.weight)}</td>"
        f'<td class="scx-note">{_with_code(contents.notes.get(edge.name, ""))}</td><td class="scx-state">kept</td></tr>'
        for i, (edge, label) in enumerate(zip(contents.edges, labels, strict=True))
    ]
    carries = "what it carries" if contents.notes else ""
    opened = " open" if len(rows) <= OPEN_ROWS else ""
    return (
        f'<details class="scx-all"{opened}><summary>All {len(rows)} edges, in the order of the forward pass</summary>'
        '<div class="scx-scroll"><table class="scx-edges">'
        '<thead><tr><th scope="col">edge</th><th scope="col">weight</th>'
        f'<th scope="col">{carries}</th><th scope="col">state</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _with_code(note: str) -> str:
    """Escape a note and set what stands between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(note))
