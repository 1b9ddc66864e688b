"""The columns of a found circuit as a static SVG, with the same `data-` attributes as the drawing on rails."""

from __future__ import annotations

from html import escape

import numpy as np

from sparse_circuits.explorer.columns import Channel, Column, ColumnLayout, HeadFrame
from sparse_circuits.explorer.wiring import READS, WRITES, Edge, Node

STUB = 10.0
CROSS = 4.0
THINNEST, THICKEST = 0.6, 4.5


def draw_columns(
    layout: ColumnLayout, words: dict[Node, str], embedding: np.ndarray, unembedding: np.ndarray, title: str
) -> str:
    """Return the `<svg>` element of a circuit in columns.

    Parameters
    ----------
    layout : ColumnLayout
        Where everything stands.
    words : dict of Node to str
        What a node's tooltip says.
    embedding, unembedding : ndarray of bool, shape (d_model,)
        Residual channels that the embedding of some token or position writes, and that some token's logit reads.
    title : str
        What a screen reader says of the whole drawing.
    """
    parts = [
        *(_title(column) for column in layout.columns),
        *(_channel(channel) for channel in layout.channels if channel.start < channel.end),
        *_stubs(layout, embedding, unembedding),
        *(_frame(frame) for frame in layout.frames),
        *(
            _wire(i, edge, layout, width)
            for i, (edge, width) in enumerate(zip(layout.edges, _widths(layout.edges), strict=True))
        ),
        *(_box(column, node, layout, words[node]) for column in layout.columns for node in column.nodes),
    ]
    close = " scx-close" if layout.is_close else ""
    return (
        f'<svg class="scx-svg scx-wide{close}" viewBox="0 0 {layout.width:g} {layout.height:g}" '
        f'style="--scx-width:{layout.width:g}px" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _title(column: Column) -> str:
    n = len(column.nodes)
    return (
        f'<text class="scx-column-name" x="{column.x:g}" y="13">{column.title}'
        f'<tspan x="{column.x:g}" dy="13">{n} node{"s" * (n > 1)}</tspan></text>'
    )


def _channel(channel: Channel) -> str:
    line = f'd="M{channel.start:g} {channel.y:g}H{channel.end:g}"'
    title = f"<title>channel {channel.index}</title>"
    return f'<path class="scx-flow" data-channel="{channel.index}" {line}>{title}</path>'


def _stubs(layout: ColumnLayout, embedding: np.ndarray, unembedding: np.ndarray) -> list[str]:
    """Mark the channels whose first node reads what the embedding wrote, and whose last writes what the logits read."""
    stubs = []
    for channel in layout.channels:
        y = channel.y
        if channel.first.location in READS and embedding[channel.index]:
            stubs.append(_stub(channel.start - STUB, y, f"M{channel.start - STUB:g} {y - 3:g}h-6v6h6z"))
        if channel.last.location in WRITES and unembedding[channel.index]:
            stubs.append(_stub(channel.end, y, f"M{channel.end + STUB:g} {y:g}l4-4 4 4-4 4z"))
    return stubs


def _stub(x: float, y: float, mark: str) -> str:
    return f'<path class="scx-dotted" d="M{x:g} {y:g}h{STUB:g}"/><path class="scx-source" d="{mark}"/>'


def _frame(frame: HeadFrame) -> str:
    left, top = frame.column.x - frame.column.width / 2 - 5, frame.top
    size = f'width="{frame.column.width + 10:g}" height="{frame.bottom - top:g}"'
    return (
        f'<rect class="scx-frame" x="{left:g}" y="{top:g}" {size} rx="6"/>'
        f'<text class="scx-frame-name" x="{left + 6:g}" y="{top + 10:g}">head {frame.number}</text>'
    )


def _widths(edges: list[Edge]) -> list[float]:
    """Return how thick to draw each edge: in proportion to its weight, with no line too thin to see."""
    most = max((abs(edge.weight) for edge in edges), default=1.0)
    return [THINNEST + (THICKEST - THINNEST) * abs(edge.weight) / most for edge in edges]


def _wire(i: int, edge: Edge, layout: ColumnLayout, width: float) -> str:
    (x, y), (x_target, y_target) = layout.ends(edge)
    bend = (x_target - x) / 2
    x_mid, y_mid = x + bend, (y + y_target) / 2
    return (
        f'<g class="scx-wire {"scx-positive" if edge.weight > 0 else "scx-negative"}" data-wire="{i}">'
        f'<path class="scx-line" d="M{x:g} {y:g}c{bend:g} 0 {bend:g} {y_target - y:g} {2 * bend:g} {y_target - y:g}" '
        f'style="stroke-width:{width:.1f}"/><path class="scx-cross" '
        f'd="M{x_mid - CROSS:g} {y_mid - CROSS:g}l8 8m0-8l-8 8"/></g>'
    )


def _box(column: Column, node: Node, layout: ColumnLayout, words: str) -> str:
    (x, y), height = layout.nodes[node], layout.box_height
    size = f'width="{column.width:g}" height="{height:g}"'
    return (
        f'<g class="scx-node scx-boxed" data-hook="{node.hook}" data-index="{node.index}">'
        f'<title>{escape(words)}</title><rect x="{x - column.width / 2:g}" y="{y - height / 2:g}" {size} rx="4"/>'
        f'<text x="{x:g}" y="{y + 3.5:g}">{node.short_name}</text></g>'
    )
