"""The circuit as a static SVG, in which the page's script finds nodes, edges and heads by their `data-` attributes."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from sparse_circuits.explorer.layout import (
    BADGE_RADIUS,
    BOX_HEIGHT,
    HEAD_HEIGHT,
    NAME_LINE,
    NODE_RADIUS,
    Layout,
    Point,
)
from sparse_circuits.explorer.wiring import HEAD_LOCATIONS, WRITES, Edge, Node


def draw(layout: Layout, edge_labels: list[str], title: str) -> str:
    """Return the `<svg>` element of a circuit.

    Parameters
    ----------
    layout : Layout
        Where everything stands.
    edge_labels : list of str
        One sentence for each edge, shown as its tooltip.
    title : str
        What a screen reader says of the whole drawing.
    """
    parts = [
        *_bands(layout),
        *_not_edges(layout),
        *_ends(layout),
        *_heads(layout),
        *_edges(layout, edge_labels),
        *(_node(layout, node) for node in layout.nodes),
    ]
    return (
        f'<svg class="scx-svg" viewBox="0 {layout.top:g} {layout.width:g} {-layout.top:g}" '
        f'style="--scx-width:{layout.width:g}px" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _bands(layout: Layout) -> list[str]:
    width = layout.width - 6
    bands = [
        f'<rect class="scx-band" x="3" y="{top + 3:g}" width="{width:g}" height="{bottom - top - 6:g}" rx="8"/>'
        f'<text class="scx-band-name" transform="translate(15 {(top + bottom) / 2:g}) rotate(-90)">{name}</text>'
        for name, top, bottom in layout.bands
    ]
    names = [f'<text class="scx-row-name" x="22" y="{y + 3.5:g}">{name}</text>' for name, y in layout.row_names]
    rails = [f'<path class="scx-rail" d="M{x:g} {layout.embed_y:g}V{layout.norm_y:g}"/>' for x in layout.rail.values()]
    return bands + rails + names


def _not_edges(layout: Layout) -> list[str]:
    """Draw embedding, unembedding and the paths inside a head as dotted lines: they carry values but are no edges."""
    token_top = layout.token_y - BOX_HEIGHT / 2
    lines = [
        _dotted((layout.middle, token_top), (x, layout.embed_y))
        for channel, x in layout.rail.items()
        if layout.embedding[channel]
    ]
    for box in layout.logits:
        others = np.setdiff1d(
            np.arange(layout.unembedding.shape[1]), [other.token for other in layout.logits if other.token is not None]
        )
        columns = layout.unembedding[:, others if box.token is None else [box.token]]
        lines += [
            _dotted((x, layout.norm_y), (box.x, layout.logit_y + BOX_HEIGHT / 2))
            for channel, x in layout.rail.items()
            if columns[channel].any()
        ]
    for head in layout.heads:
        inside = [
            node
            for node in layout.nodes
            if node.layer == head.layer
            and node.location in HEAD_LOCATIONS
            and node.index // layout.d_head == head.number
        ]
        lines += [_dotted(layout.nodes[node], (layout.nodes[node][0], head.y)) for node in inside]
    return lines


def _ends(layout: Layout) -> list[str]:
    """Draw the token that goes in, the channels of the embedding and of the last norm, and the logits that come out."""
    parts = [_box(layout.middle, layout.token_y, 130, "scx-token-box", "token")]
    for channel, x in layout.rail.items():
        name = layout.channel_names.get(channel, f"channel {channel}")
        square = f'<path d="M{x - 6:g} {layout.embed_y - 6:g}h12v12h-12z"/>'
        diamond = f'<path d="M{x:g} {layout.norm_y - 8:g}l8 8-8 8-8-8z"/>'
        for hook, shape, y, words in (
            ("blocks.0.hook_resid_pre", square, layout.embed_y, "embedding"),
            ("ln_final.hook_normalized", diamond, layout.norm_y, "after the last norm"),
        ):
            parts.append(_mark("scx-end", hook, channel, (x, y), f"{words}, {name}", shape))
        for line, text in enumerate(layout.channel_label(channel)):
            y = layout.embed_y + 18 + line * NAME_LINE
            parts.append(f'<text class="scx-channel" x="{x:g}" y="{y:g}">{escape(text)}</text>')
    for box in layout.logits:
        data = "" if box.token is None else f' data-token="{box.token}"'
        kind = "scx-logit scx-other-logit" if box.token is None else "scx-logit"
        text = "…" if box.token is None else layout.tokens[box.token]
        parts.append(_box(box.x, layout.logit_y, box.width, kind, text, data))
    return parts


def _heads(layout: Layout) -> list[str]:
    return [
        f'<g class="scx-head" data-layer="{head.layer}" data-head="{head.number}" '
        f'data-width="{head.right - head.left:g}" transform="translate({head.left:g} {head.y - HEAD_HEIGHT / 2:g})">'
        f"<title>layer {head.layer}, head {head.number}: where the chosen token looks</title>"
        f'<rect width="{head.right - head.left:g}" height="{HEAD_HEIGHT:g}" rx="5"/>'
        f'<text x="5" y="10">head {head.number}</text><g class="scx-strip"></g></g>'
        for head in layout.heads
    ]


def _edges(layout: Layout, labels: list[str]) -> list[str]:
    """Draw each edge as a wire and, above all wires, the mark that carries its sign and takes the focus."""
    wires, marks = [], []
    for i, (edge, (x, y), width) in enumerate(
        zip(layout.edges, layout.badges, _line_widths(layout.edges), strict=True)
    ):
        sign = "scx-positive" if edge.weight > 0 else "scx-negative"
        curve = _curve(layout.start(edge), layout.nodes[edge.target])
        bars = f"M{x - 3.5:g} {y:g}h7" + (f"M{x:g} {y - 3.5:g}v7" if edge.weight > 0 else "")
        wires.append(
            f'<g class="scx-wire {sign}" data-wire="{i}">'
            f'<path class="scx-line" d="{curve}" style="stroke-width:{width:.1f}"/></g>'
        )
        marks.append(
            f'<g class="scx-edge {sign}" data-edge="{i}"><title>{escape(labels[i])}</title>'
            f'<circle cx="{x:g}" cy="{y:g}" r="{BADGE_RADIUS:g}"/><path class="scx-sign" d="{bars}"/>'
            f'<path class="scx-cross" d="M{x - 3.5:g} {y - 3.5:g}l7 7m0-7l-7 7"/></g>'
        )
    return [*wires, *marks]


def _line_widths(edges: list[Edge]) -> list[float]:
    """Return how thick to draw each edge: as the logarithm of its weight, for planted weights span powers of ten."""
    sizes = [math.log(abs(edge.weight)) for edge in edges]
    low, high = min(sizes, default=0.0), max(sizes, default=0.0)
    return [1.5 + 2.5 * (size - low) / (high - low) if high > low else 2.5 for size in sizes]


def _node(layout: Layout, node: Node) -> str:
    x, y = at = layout.nodes[node]
    shape = f'<circle cx="{x:g}" cy="{y:g}" r="{NODE_RADIUS:g}"/>'
    if node.location in HEAD_LOCATIONS:
        shape = f'<rect x="{x - 8:g}" y="{y - 8:g}" width="16" height="16" rx="4"/>'
        shape += f'<text class="scx-letter" x="{x:g}" y="{y + 3.5:g}">{node.location[-1]}</text>'
    elif node.location in WRITES:
        shape += f'<path class="scx-plus" d="M{x - 4:g} {y:g}h8M{x:g} {y - 4:g}v8"/>'
    words = node.words(layout.d_head, layout.channel_names)
    return _mark("scx-node", node.hook, node.index, at, f"layer {node.layer}, {words}", shape)


def _mark(kind: str, hook: str, index: int, at: Point, title: str, shape: str) -> str:
    x, y = at
    return (
        f'<g class="{kind}" data-hook="{hook}" data-index="{index}"><title>{escape(title)}</title>{shape}'
        f'<text class="scx-value" x="{x + 6:g}" y="{y - 10:g}"></text></g>'
    )


def _box(x: float, y: float, width: float, kind: str, text: str, data: str = "") -> str:
    return (
        f'<g class="{kind}"{data}><rect x="{x - width / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{width:g}" '
        f'height="{BOX_HEIGHT:g}" rx="5"/><text x="{x:g}" y="{y + 4:g}">{escape(text)}</text></g>'
    )


def _curve(start: Point, end: Point) -> str:
    bend = (start[1] + end[1]) / 2
    return f"M{start[0]:g} {start[1]:g}C{start[0]:g} {bend:g} {end[0]:g} {bend:g} {end[0]:g} {end[1]:g}"


def _dotted(start: Point, end: Point) -> str:
    return f'<path class="scx-dotted" d="{_curve(start, end)}"/>'
