"""Where everything stands in the drawing of a found circuit: columns in the order of the forward pass.

What blocks read and write stands on rows, one residual channel to a row for as long as the circuit uses it; heads and
neurons stand between rows, so that the thin line of a channel passes them by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from math import floor
from statistics import fmean

from sparse_circuits.explorer.wiring import HEAD_LOCATIONS, READS, RESIDUAL, WRITES, Edge, Node

LEFT, RIGHT, TOP = 40.0, 40.0, 46.0
EDGE_GAP, CHANNEL_GAP = 70.0, 50.0
LETTER_WIDTH, PADDING = 6.1, 12.0
PITCH, CLOSE_PITCH, ROOMY_ROWS = 24.0, 15.0, 60
HEAD_SLOTS = 1
SWEEPS = 4
PLACES = (READS[:1], HEAD_LOCATIONS, WRITES[:1], READS[1:], ("mlp.hook_post",), WRITES[1:])
TITLES = ("attention {} reads", "heads of layer {}", "attention {} writes")
TITLES += ("MLP {} reads", "neurons of layer {}", "MLP {} writes")

Point = tuple[float, float]


@dataclass(frozen=True)
class Column:
    """One column: its title, the x of its middle and the width of its boxes."""

    title: str
    nodes: list[Node]
    x: float
    width: float


@dataclass(frozen=True)
class HeadFrame:
    """The frame around the channels of one head."""

    layer: int
    number: int
    column: Column
    top: float
    bottom: float


@dataclass(frozen=True)
class Channel:
    """The line of a residual channel, from its first node to its last."""

    index: int
    first: Node
    last: Node
    start: float
    end: float
    y: float


@dataclass
class ColumnLayout:
    """Positions in SVG units; y grows downwards from 0.

    Parameters
    ----------
    edges : list of Edge
        The edges to draw.
    node_set : iterable of Node
        All nodes, among them those without an edge.
    d_head : int
        Channels per head.
    """

    edges: list[Edge]
    node_set: Iterable[Node]
    d_head: int
    columns: list[Column] = field(default_factory=list)
    nodes: dict[Node, Point] = field(default_factory=dict)
    frames: list[HeadFrame] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._neighbours = defaultdict(list)
        for edge in self.edges:
            self._neighbours[edge.source].append(edge.target)
            self._neighbours[edge.target].append(edge.source)
        self.width = self._place_columns()
        slots = self._place_rows()
        first, last = min(slots.values()), max(slots.values())
        self.is_close = last - first >= ROOMY_ROWS
        self.pitch = CLOSE_PITCH if self.is_close else PITCH
        self.box_height = self.pitch - (2 if self.is_close else 5)
        column_of = {node: column for column in self.columns for node in column.nodes}
        for node in sorted(self.node_set):
            self.nodes[node] = (column_of[node].x, TOP + (slots[node] - first + 1.5) * self.pitch)
        self.height = TOP + (last - first + 3) * self.pitch
        self.frames = list(self._frames())
        self.channels = list(self._channels())

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Layer and number of each head that has a node."""
        return sorted((frame.layer, frame.number) for frame in self.frames)

    def ends(self, edge: Edge) -> tuple[Point, Point]:
        """Where an edge leaves the box of its source and enters that of its target."""
        (x, y), (x_target, y_target) = self.nodes[edge.source], self.nodes[edge.target]
        half = [self._half_width[node] for node in (edge.source, edge.target)]
        return (x + half[0], y), (x_target - half[1], y_target)

    def _place_columns(self) -> float:
        x = LEFT
        self._half_width = {}
        for layer in sorted({node.layer for node in self.node_set}):
            for title, places in zip(TITLES, PLACES, strict=True):
                nodes = sorted(node for node in self.node_set if node.layer == layer and node.location in places)
                if not nodes:
                    continue
                # No edge joins what one block writes to what the next one reads.
                x += (CHANNEL_GAP if places[0] in READS else EDGE_GAP) if self.columns else 0
                width = PADDING + LETTER_WIDTH * max(len(node.short_name) for node in nodes)
                self.columns.append(Column(title.format(layer), nodes, x + width / 2, width))
                self._half_width |= dict.fromkeys(nodes, width / 2)
                x += width
        return x + RIGHT

    def _place_rows(self) -> dict[Node, float]:
        """Put each node near those that it is joined to; a few sweeps, each over the places of the one before."""
        slots: dict[Node, float] = {}
        for _ in range(SWEEPS):
            slots = self._sweep(slots)
        return _without_gaps(slots)

    def _sweep(self, before: dict[Node, float]) -> dict[Node, float]:
        slots: dict[Node, float] = {}
        rows: dict[int, int] = {}
        spans = self._spans()
        taken: dict[int, list[tuple[int, int]]] = defaultdict(list)

        def wish(node: Node, otherwise: float) -> float:
            known = [slots.get(other, before.get(other)) for other in self._neighbours[node]]
            known = [slot for slot in known if slot is not None]
            return fmean(known) if known else before.get(node, otherwise)

        for column in self.columns:
            middle = len(column.nodes) / 2
            wishes = {node: wish(node, i - middle) for i, node in enumerate(column.nodes)}
            if column.nodes[0].location not in RESIDUAL:
                slots |= self._stack(wishes)
                continue
            for node in sorted(column.nodes, key=wishes.__getitem__):
                if node.index not in rows:
                    rows[node.index] = _free_row(wishes[node], spans[node.index], taken)
                    taken[rows[node.index]].append(spans[node.index])
                slots[node] = rows[node.index]
        return slots

    def _spans(self) -> dict[int, tuple[int, int]]:
        """Return first and last column of each residual channel."""
        places = defaultdict(list)
        for number, column in enumerate(self.columns):
            for node in column.nodes:
                if node.location in RESIDUAL:
                    places[node.index].append(number)
        return {channel: (min(numbers), max(numbers)) for channel, numbers in places.items()}

    def _stack(self, wishes: dict[Node, float]) -> dict[Node, float]:
        """Give each node a slot halfway between rows, near its wish; a head stays together, below its name."""
        groups: dict[tuple, list[Node]] = defaultdict(list)
        for node in wishes:
            groups[(node.index // self.d_head,) if node.location in HEAD_LOCATIONS else (node,)].append(node)
        wanted = {key: fmean(wishes[node] for node in nodes) for key, nodes in groups.items()}
        slots: dict[Node, float] = {}
        free = None
        for key in sorted(groups, key=lambda key: (wanted[key], key)):
            nodes = sorted(
                groups[key],
                key=lambda node: (
                    (HEAD_LOCATIONS.index(node.location), node.index)
                    if node.location in HEAD_LOCATIONS
                    else (0, node.index)
                ),
            )
            start = round(wanted[key] - len(nodes) / 2)
            start = start if free is None else max(start, free)
            start += HEAD_SLOTS if nodes[0].location in HEAD_LOCATIONS else 0
            slots |= {node: start + i + 0.5 for i, node in enumerate(nodes)}
            free = start + len(nodes)
        shift = round(fmean(wishes[node] - slots[node] for node in slots))
        return {node: slot + shift for node, slot in slots.items()}

    def _frames(self) -> Iterator[HeadFrame]:
        for column in self.columns:
            heads = defaultdict(list)
            for node in column.nodes:
                if node.location in HEAD_LOCATIONS:
                    heads[node.layer, node.index // self.d_head].append(self.nodes[node][1])
            for (layer, number), ys in heads.items():
                top = min(ys) - (HEAD_SLOTS + 0.5) * self.pitch + 4
                yield HeadFrame(layer, number, column, top, max(ys) + self.pitch / 2 - 1)

    def _channels(self) -> Iterator[Channel]:
        ends = defaultdict(list)
        for node in self.nodes:
            if node.location in RESIDUAL:
                ends[node.index].append(node)
        for index, nodes in sorted(ends.items()):
            first, last = (pick(nodes, key=lambda node: self.nodes[node][0]) for pick in (min, max))
            start, end = self.nodes[first][0] - self._half_width[first], self.nodes[last][0] + self._half_width[last]
            yield Channel(index, first, last, start, end, self.nodes[first][1])


def _without_gaps(slots: dict[Node, float]) -> dict[Node, float]:
    """Draw together what whole empty rows part; room for the name of a head stays."""
    used = sorted(set(slots.values()))
    moved = dict(zip(used[:1], used[:1], strict=True))
    for upper, lower in pairwise(used):
        moved[lower] = moved[upper] + lower - upper - max(0, floor(lower - upper - 1 - HEAD_SLOTS))
    return {node: moved[slot] for node, slot in slots.items()}


def _free_row(wish: float, span: tuple[int, int], taken: dict[int, list[tuple[int, int]]]) -> int:
    """Return the row nearest to the wish that no other channel holds in any of the columns."""
    nearest = round(wish)
    rows = (row for distance in count() for row in (nearest + distance, nearest - distance))
    return next(row for row in rows if all(span[1] < start or end < span[0] for start, end in taken[row]))
