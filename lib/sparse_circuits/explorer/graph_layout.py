"""Where the nodes of an attribution graph stand in its drawing: layers by positions, embeddings below, logits above."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparse_circuits.feature_nodes import KINDS, LAYER_BIASES, FeatureNodes

BOX_WIDTH, BOX_HEIGHT = 36.0, 17.0
PITCH_X, PITCH_Y = 42.0, 24.0
LEFT, RIGHT, TOP = 74.0, 16.0, 8.0
COLUMN_GAP, ROW_GAP, FOOT = 22.0, 26.0, 34.0
MOST_ABREAST = 4
LABELS = {"error": "err", "token": "tok", "position": "pos", "bigram": "big"}


@dataclass(frozen=True)
class Cell:
    """A column, which is a position (-1 for biases), or a row, which is a layer (-1 below all, n_layers above)."""

    number: int
    start: float
    size: float

    @property
    def middle(self) -> float:
        return self.start + self.size / 2


@dataclass
class GraphLayout:
    """Places of some nodes in SVG units; y grows downwards from 0.

    Parameters
    ----------
    nodes : FeatureNodes
        All nodes of the graph.
    drawn : list of int
        The indices of those to draw.
    """

    nodes: FeatureNodes
    drawn: Sequence[int]
    columns: list[Cell] = field(default_factory=list)
    rows: list[Cell] = field(default_factory=list)
    places: dict[int, tuple[float, float]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        cells: dict[tuple[int, int], list[int]] = defaultdict(list)
        for node in self.drawn:
            cells[self._column(node), self._row(node)].append(node)
        abreast: dict[int, int] = defaultdict(int)
        lines: dict[int, int] = defaultdict(int)
        for (column, row), inside in cells.items():
            abreast[column] = max(abreast[column], min(len(inside), MOST_ABREAST))
            lines[row] = max(lines[row], -(-len(inside) // MOST_ABREAST))
        x, y = LEFT, TOP
        for column in sorted(abreast):
            self.columns.append(Cell(column, x, abreast[column] * PITCH_X))
            x += self.columns[-1].size + COLUMN_GAP
        for row in sorted(lines, reverse=True):
            self.rows.append(Cell(row, y, lines[row] * PITCH_Y))
            y += self.rows[-1].size + ROW_GAP
        self.width, self.height = x - COLUMN_GAP + RIGHT, y - ROW_GAP + FOOT
        by_column, by_row = ({cell.number: cell for cell in cells} for cells in (self.columns, self.rows))
        for (column, row), inside in cells.items():
            self._place(inside, by_column[column], by_row[row])

    def _place(self, inside: list[int], column: Cell, row: Cell) -> None:
        lines = [inside[i : i + MOST_ABREAST] for i in range(0, len(inside), MOST_ABREAST)]
        top = row.middle - len(lines) * PITCH_Y / 2
        for i, line in enumerate(lines):
            left = column.middle - len(line) * PITCH_X / 2
            for j, node in enumerate(line):
                self.places[node] = left + (j + 0.5) * PITCH_X, top + (i + 0.5) * PITCH_Y

    def _column(self, node: int) -> int:
        return int(self.nodes.position[node])

    def _row(self, node: int) -> int:
        kind, layer = KINDS[int(self.nodes.kind[node])], int(self.nodes.layer[node])
        at_top = kind in ("logit", "bigram") or (kind == "bias" and layer < 0)
        return self.nodes.n_layers if at_top else layer

    def row_name(self, row: int) -> str:
        """Return what stands before a row."""
        return {-1: "embedding", self.nodes.n_layers: "logits"}.get(row, f"layer {row}")


def label_of(nodes: FeatureNodes, node: int, vocabulary: Sequence[str]) -> str:
    """Return what stands in the box of a node: few letters, since row and column say the rest."""
    kind, feature = KINDS[int(nodes.kind[node])], int(nodes.feature[node])
    if kind == "feature":
        return str(feature)
    if kind == "logit":
        return vocabulary[feature]
    if kind == "bias":
        return "b_U" if feature < 0 else LAYER_BIASES[feature]
    return LABELS[kind]


def words_of(nodes: FeatureNodes, node: int, vocabulary: Sequence[str], tokens: Sequence[int]) -> str:
    """Return a node in words: `feature 37 of layer 1 at position 5, after gave`."""
    kind, layer, feature = KINDS[int(nodes.kind[node])], int(nodes.layer[node]), int(nodes.feature[node])
    position = int(nodes.position[node])
    if kind == "bias":
        what = {"b_O": "output bias of attention", "b_V": "value bias of attention", "b_dec": "bias of the decoder"}
        name = "b_U" if feature < 0 else LAYER_BIASES[feature]
        return "bias of the unembedding" if feature < 0 else f"{what.get(name, 'bias of the encoder')}, layer {layer}"
    at = f"at position {position}, {vocabulary[tokens[position]]}"
    return {
        "feature": f"feature {feature} of layer {layer} {at}",
        "error": f"error of layer {layer} {at}",
        "token": f"embedding of the token {at}",
        "position": f"embedding of position {position}",
        "bigram": f"row of the bigram table {at}",
        "logit": f"logit of {vocabulary[feature] if kind == 'logit' else ''} {at}",
    }[kind]
