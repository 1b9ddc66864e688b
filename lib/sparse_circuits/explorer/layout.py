"""Where everything stands in the drawing of a circuit: tokens below, logits above, one rail per channel."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sparse_circuits.explorer.wiring import HEAD_LOCATIONS, READS, WRITES, Edge, Node

LEFT, RIGHT = 64.0, 12.0
ROW, BLOCK_GAP = 50.0, 42.0
MINIMUM_WIDTH = 344.0
BOX_HEIGHT, HEAD_HEIGHT, HEAD_MINIMUM_WIDTH = 24.0, 32.0, 100.0
NODE_RADIUS, BADGE_RADIUS = 8.0, 7.0
LETTER_WIDTH, MAX_LOGIT_BOXES = 7.4, 9
NAME_LINE, NAME_LETTER_WIDTH = 10.5, 5.1

# The rows of a block from the bottom up; in the row without locations a head mixes what its values hold over tokens.
BLOCKS = {
    "Attention": (("read", READS[:1]), ("q, k, v", HEAD_LOCATIONS), ("attend", ()), ("write", WRITES[:1])),
    "MLP": (("read", READS[1:]), ("neurons", ("mlp.hook_post",)), ("write", WRITES[1:])),
}

Point = tuple[float, float]


@dataclass(frozen=True)
class Head:
    """The box of one head: where it stands and which layer and head it is."""

    layer: int
    number: int
    left: float
    right: float
    y: float


@dataclass(frozen=True)
class LogitBox:
    """The box of one next token; without a token, it names whichever other token leads."""

    token: int | None
    x: float
    width: float


@dataclass
class Layout:
    """Positions in SVG units; y is 0 at the bottom of the drawing and falls to `top`.

    Parameters
    ----------
    edges : list of Edge
        The edges to draw.
    node_set : iterable of Node
        All nodes, among them those without an edge.
    d_head : int
        Channels per head.
    embedding : ndarray of bool, shape (d_model,)
        Channels that token or position embeddings write.
    unembedding : ndarray of bool, shape (d_model, d_vocab)
        Non-zero entries of the unembedding.
    biased : ndarray of bool, shape (d_vocab,)
        Tokens whose logit has a bias.
    tokens : list of str
        The vocabulary as the page shows it.
    channel_names : mapping of int to str
        Names of residual channels; a channel without one shows its number.
    """

    edges: list[Edge]
    node_set: Iterable[Node]
    d_head: int
    embedding: np.ndarray
    unembedding: np.ndarray
    biased: np.ndarray
    tokens: list[str]
    channel_names: Mapping[int, str]
    rail: dict[int, float] = field(default_factory=dict)
    nodes: dict[Node, Point] = field(default_factory=dict)
    mixed: dict[Node, Point] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    logits: list[LogitBox] = field(default_factory=list)
    bands: list[tuple[str, float, float]] = field(default_factory=list)
    row_names: list[tuple[str, float]] = field(default_factory=list)
    badges: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node_set = sorted(self.node_set)
        channels = sorted({node.index for node in self.node_set if node.location in READS + WRITES})
        boxes = self._logit_boxes(channels)
        layers = sorted({node.layer for node in self.node_set})
        inner = [
            self._slots(layer, places, channels) for layer in layers for places in (HEAD_LOCATIONS, ("mlp.hook_post",))
        ]
        slots = max(len(channels), *map(len, inner))
        room = max(slots * (46.0 if slots <= 6 else 38.0), sum(width + 6 for _, width in boxes))
        self.width = max(MINIMUM_WIDTH, LEFT + RIGHT + room)
        self._place_logits(boxes)
        self.rail = dict(zip(channels, self.spread(len(channels)), strict=True))
        self._stack(layers)
        self._place_badges()

    @property
    def middle(self) -> float:
        return LEFT + (self.width - LEFT - RIGHT) / 2

    def spread(self, count: int) -> list[float]:
        """Return `count` x positions, evenly over the width between the margins."""
        step = (self.width - LEFT - RIGHT) / max(1, count)
        return [LEFT + step * (i + 0.5) for i in range(count)]

    def start(self, edge: Edge) -> Point:
        """Where an edge begins; what attention writes begins above the head, after tokens are mixed."""
        return self.mixed.get(edge.source, self.nodes[edge.source])

    def _row(self, layer: int, locations: Iterable[str]) -> list[Node]:
        return [node for node in self.node_set if node.layer == layer and node.location in locations]

    def _slots(self, layer: int, locations: tuple[str, ...], channels: list[int]) -> list[Node | None]:
        """Order a row that is not on rails: head by head with gaps between, or neurons near the rails they touch."""
        row = self._row(layer, locations)
        if locations != HEAD_LOCATIONS:
            return sorted(row, key=lambda node: (self._pull(node, channels), node))
        slots: list[Node | None] = []
        for head in sorted({node.index // self.d_head for node in row}):
            nodes = [node for node in row if node.index // self.d_head == head]
            slots += [None] * bool(slots) + sorted(nodes, key=lambda n: (HEAD_LOCATIONS.index(n.location), n.index))
        return slots

    def _pull(self, node: Node, channels: list[int]) -> float:
        touched = [
            e.source.index if e.target == node else e.target.index for e in self.edges if node in (e.source, e.target)
        ]
        return sum(map(channels.index, touched)) / len(touched) if touched else 0.0

    def _logit_boxes(self, channels: list[int]) -> list[tuple[int | None, float]]:
        reached = np.flatnonzero(self.unembedding[channels].any(0) | self.biased).tolist()
        boxes = [(token, max(26.0, LETTER_WIDTH * len(self.tokens[token]) + 10)) for token in reached]
        if len(reached) == len(self.tokens) <= MAX_LOGIT_BOXES:
            return boxes
        longest = LETTER_WIDTH * max(map(len, self.tokens)) + 14
        return [*(boxes if len(boxes) < MAX_LOGIT_BOXES else []), (None, longest)]

    def _place_logits(self, boxes: list[tuple[int | None, float]]) -> None:
        gap = (self.width - LEFT - RIGHT - sum(width for _, width in boxes)) / len(boxes)
        x = LEFT + gap / 2
        for token, width in boxes:
            self.logits.append(LogitBox(token, x + width / 2, width))
            x += width + gap

    def channel_label(self, channel: int) -> list[str]:
        """Return the name of a channel in lines that fit between two rails, or its number."""
        letters = int((self.width - LEFT - RIGHT) / len(self.rail) / NAME_LETTER_WIDTH)
        return textwrap.wrap(self.channel_names.get(channel, str(channel)), letters, break_long_words=False) or [""]

    def _stack(self, layers: list[int]) -> None:
        self.token_y = y = -BOX_HEIGHT / 2 - 2
        names = max(len(self.channel_label(channel)) for channel in self.rail)
        self.embed_y = y = y - ROW - NAME_LINE * (names - 1)
        self.row_names += [("token", self.token_y), ("embed", self.embed_y)]
        for layer in layers:
            for block, rows in BLOCKS.items():
                if not self._row(layer, [place for _, places in rows for place in places]):
                    continue
                bottom = y - BLOCK_GAP / 2
                for number, (name, locations) in enumerate(rows):
                    y -= ROW if number else BLOCK_GAP
                    self.row_names.append((name, y))
                    self._place_row(layer, locations, y)
                self.bands.append((f"{block} {layer}", y - BLOCK_GAP / 2, bottom))
        self.norm_y = y - BLOCK_GAP
        self.logit_y = self.norm_y - ROW
        self.row_names += [("norm", self.norm_y), ("logits", self.logit_y)]
        self.top = self.logit_y - BOX_HEIGHT / 2 - 2

    def _place_row(self, layer: int, locations: tuple[str, ...], y: float) -> None:
        if not locations:
            self._place_heads(layer, y)
        elif locations[0] in READS + WRITES:
            self.nodes |= {node: (self.rail[node.index], y) for node in self._row(layer, locations)}
        else:
            slots = self._slots(layer, locations, list(self.rail))
            places = zip(slots, self.spread(len(slots)), strict=True)
            self.nodes |= {node: (x, y) for node, x in places if node is not None}

    def _place_heads(self, layer: int, y: float) -> None:
        row = self._row(layer, HEAD_LOCATIONS)
        for number in sorted({node.index // self.d_head for node in row}):
            nodes = [node for node in row if node.index // self.d_head == number]
            xs = [self.nodes[node][0] for node in nodes]
            spare = max(0.0, HEAD_MINIMUM_WIDTH - (max(xs) - min(xs) + 32)) / 2
            self.heads.append(Head(layer, number, min(xs) - 16 - spare, max(xs) + 16 + spare, y))
            values = [node for node in nodes if node.location == "attn.hook_v"]
            self.mixed |= {node: (self.nodes[node][0], y - HEAD_HEIGHT / 2) for node in values}

    def _place_badges(self) -> None:
        """Put the mark of each edge on its curve where it covers least of what is there already."""
        taken = list(self.nodes.values())
        for edge in self.edges:
            start, end = self.start(edge), self.nodes[edge.target]
            options = [curve_point(start, end, t) for t in (0.5, 0.4, 0.6, 0.32, 0.68, 0.25, 0.75)]
            room = [min((math.dist(option, other) for other in taken), default=math.inf) for option in options]
            enough = [option for option, space in zip(options, room, strict=True) if space >= 2 * BADGE_RADIUS + 1]
            self.badges.append(enough[0] if enough else options[room.index(max(room))])
            taken.append(self.badges[-1])


def curve_point(start: Point, end: Point, t: float) -> Point:
    """Return the point at `t` in [0, 1] on the cubic curve that leaves `start` and enters `end` vertically."""
    early, late = (1 - t) ** 2 * (1 + 2 * t), t**2 * (3 - 2 * t)
    risen = 1.5 * t * (1 - t) + t**3
    return start[0] * early + end[0] * late, start[1] + (end[1] - start[1]) * risen
