"""The explorer's page: checks what it is given and writes it as one fragment of HTML, or as one file."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

from sparse_circuits.checkpoints import write_atomically
from sparse_circuits.explorer.contents import Contents
from sparse_circuits.explorer.drawing import draw
from sparse_circuits.explorer.layout import Layout

NO_SCRIPT = "Where scripts run, this drawing is live: click an edge to cut it, and the model runs again in the page."
ASSETS = ("explorer.css", "forward.js", "explorer.js")


@dataclass(frozen=True)
class Explorer:
    """A circuit that can be cut in the page; notebooks show it as the result of a cell.

    Parameters
    ----------
    title : str
        Its title.
    body : str
        The HTML between the style sheet and the script.
    n_edges, n_nodes : int
        How many edges and nodes it shows.
    """

    title: str
    n_edges: int
    n_nodes: int
    body: str = field(repr=False)

    @property
    def identifier(self) -> str:
        """Name of this explorer in the page: a hash of its content, so the same circuit always makes the same text."""
        return hashlib.sha256(self.body.encode()).hexdigest()[:12]

    def html(self) -> str:
        """Return a fragment of HTML that holds the drawing, the table, the weights, the style and the script."""
        css, forward, explorer = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ASSETS)
        mount = f"document.querySelectorAll('[data-explorer=\"{self.identifier}\"]:not([data-ready])')"
        return (
            f'<section class="sc-explorer tex2jax_ignore mathjax_ignore" data-explorer="{self.identifier}" '
            f'aria-label="Circuit explorer: {escape(self.title)}">\n<style>\n{css}</style>\n{self.body}\n'
            f"<script>\n(() => {{\n{forward}\n{explorer}\n"
            f"{mount}.forEach((host) => {{ host.explorer = new Explorer(host); }});\n}})();\n</script>\n</section>\n"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | Path) -> Path:
        """Write a complete HTML file that needs no other file and no network, and return its path.

        The file is written beside its place and moved there, so a reader never sees half of it.
        """
        path = Path(path)
        page = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'
            f"<title>{escape(self.title)}</title>\n"
            "<style>html{color-scheme:light dark}body{margin:1rem auto;max-width:60rem;padding:0 .75rem}</style>\n"
            f"</head>\n<body>\n{self.html()}</body>\n</html>\n"
        )
        write_atomically(path, page.encode())
        return path


def write_body(contents: Contents) -> str:
    """Return the HTML of the page between style and script: the drawing, the table of edges and the data."""
    layout = Layout(
        edges=contents.edges,
        node_set=contents.nodes,
        d_head=contents.d_head,
        embedding=contents.has_entry("W_E").any(0) | contents.has_entry("W_pos").any(0),
        unembedding=contents.has_entry("W_U"),
        biased=contents.has_entry("b_U"),
        tokens=contents.tokens,
        channel_names=contents.channel_names,
    )
    labels = [contents.label(edge) for edge in contents.edges]
    tooltips = [f"{label}, weight {_number(edge.weight)}" for label, edge in zip(labels, contents.edges, strict=True)]
    count = f"{len(contents.edges)} edges and {len(contents.nodes)} nodes"
    drawing = draw(layout, tooltips, f"{contents.title}: {count}")
    heads = [(head.layer, head.number) for head in layout.heads]
    n_edges, n_nodes = len(contents.edges), len(contents.nodes)
    return f"""<p class="scx-title">{escape(contents.title)}</p>
<noscript><p>{NO_SCRIPT}</p></noscript>
<div class="scx-live scx-prompt"></div>
<p class="scx-live scx-verdict" role="status"></p>
<p class="scx-counts"><span class="scx-tally"><b class="scx-kept">{n_edges}</b> of {n_edges} edges kept</span>
<span class="scx-tally"><b class="scx-touched">{n_nodes}</b> of {n_nodes} nodes in use</span>
<button type="button" class="scx-live scx-restore">Restore all</button></p>
<div class="scx-columns">
<figure class="scx-figure"><div class="scx-scroll">{drawing}</div>
<figcaption>{_legend(contents)}</figcaption></figure>
<div class="scx-live scx-side"><p class="scx-detail"><strong>Cut an edge</strong>Click a line, or reach it with Tab
and press Enter. A second time restores it. Pale lines carry nothing at the chosen token;
choose another token above.</p>
<div class="scx-scroll"><table class="scx-leading">
<caption>Leading next tokens</caption><thead><tr><td></td><th scope="col">now</th><th scope="col">logit</th>
<th scope="col">intact</th><th scope="col">logit</th></tr></thead><tbody></tbody></table></div>
<p class="scx-heading">Where each token looks, in %</p><div class="scx-attention"></div></div>
</div>
{_edge_table(contents, labels)}
<script type="application/json" class="scx-data">{contents.to_json(heads)}</script>"""


def _legend(contents: Contents) -> str:
    """Name the kinds of lines, each with a sample, and what is not drawn."""
    samples = (
        ("scx-edge scx-positive", "M12 3.5v7M8.5 7h7", "edge, weight above 0"),
        ("scx-edge scx-negative", "M8.5 7h7", "edge, weight below 0"),
        ("scx-edge scx-positive scx-cut", "M8.5 3.5l7 7m0-7l-7 7", "edge that is cut"),
        ("", "", "embedding, unembedding, inside a head: not edges"),
    )
    keys = [
        f'<span class="scx-key"><svg width="24" height="14" aria-hidden="true"><g class="{kind}">'
        + (
            f'<path class="scx-line" d="M0 7h24"/><circle cx="12" cy="7" r="6"/>'
            f'<path class="scx-sign scx-key-sign" d="{sign}"/>'
            if kind
            else '<path class="scx-dotted" d="M0 7h24"/>'
        )
        + f"</g></svg> {words}</span>"
        for kind, sign, words in samples
    ]
    rail = '<svg width="24" height="14" aria-hidden="true"><path class="scx-rail" d="M0 7h24"/></svg>'
    keys.append(f'<span class="scx-key">{rail} residual stream, one rail per channel: not edges</span>')
    n_undrawn = contents.n_running - len(contents.edges)
    left_out = f" {n_undrawn} more edges run but are not drawn." if n_undrawn else ""
    return "".join(keys) + f"<span>Not drawn: channels that no edge here touches.{left_out}</span>"


def _edge_table(contents: Contents, labels: list[str]) -> str:
    rows = [
        f'<tr data-edge="{i}"><th scope="row"><span class="scx-matrix">{edge.parameter.rpartition(".")[2]}</span> '
        f'<span class="scx-name">{escape(label)}</span></th>'
        f"<td>{_number(edge.weight)}</td>"
        f'<td class="scx-note">{_with_code(contents.notes.get(edge.name, ""))}</td><td class="scx-state">kept</td></tr>'
        for i, (edge, label) in enumerate(zip(contents.edges, labels, strict=True))
    ]
    carries = "what it carries" if contents.notes else ""
    return (
        '<div class="scx-scroll"><table class="scx-edges">'
        "<caption>All edges, in the order of the forward pass</caption>"
        '<thead><tr><th scope="col">edge</th><th scope="col">weight</th>'
        f'<th scope="col">{carries}</th><th scope="col">state</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _with_code(note: str) -> str:
    """Escape a note and set what stands between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(note))
