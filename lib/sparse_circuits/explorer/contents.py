"""All that a page shows of a circuit and runs, and the JSON that its script reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from sparse_circuits.explorer.alone import BIAS, Fixed
from sparse_circuits.explorer.payload import Offer, pack
from sparse_circuits.explorer.questions import Prompt, visible
from sparse_circuits.explorer.wiring import Edge, Node, Traffic

MAX_RAILS = 16


@dataclass(frozen=True)
class Contents:
    """Everything that the page shows, checked; `build.explore` says what each field is."""

    title: str
    config: dict
    kept: dict[str, int]
    fixed: Fixed
    weights: dict[str, np.ndarray]
    spelling: list[str]
    prompts: list[Prompt]
    edges: list[Edge]
    nodes: dict[Node, float | None]
    channels: dict[int, Traffic]
    n_running: int
    ablation: str
    notes: dict[str, str]
    channel_names: dict[int, str]
    n_vocabulary: int
    inputs: list[int] | None = None

    @property
    def d_head(self) -> int:
        return self.config["d_head"]

    @property
    def tokens(self) -> list[str]:
        """The vocabulary as the page shows it."""
        return [visible(token) for token in self.spelling]

    def offering(self, offer: Offer) -> Contents:
        """Return the contents with no more tokens and positions than the offer has, tokens numbered anew."""
        limited = len(offer.inputs) < self.n_vocabulary
        prompts = [
            Prompt(offer.page_ids(prompt.tokens), None if prompt.answer is None else offer.page_ids([prompt.answer])[0])
            for prompt in self.prompts
        ]
        return replace(
            self,
            config=self.config | {"d_vocab": len(offer.outputs), "n_ctx": offer.n_ctx},
            weights=offer.restrict(self.weights),
            spelling=[self.spelling[token] for token in offer.outputs],
            prompts=prompts,
            inputs=offer.page_ids(offer.inputs) if limited else None,
        )

    @property
    def on_rails(self) -> bool:
        """Whether each channel gets a rail of its own: they have names, and there are few."""
        return bool(self.channel_names) and len(self.channels) <= MAX_RAILS

    def words(self, node: Node) -> str:
        """Return a node's layer and its words: `layer 1, value 0.0`."""
        return f"layer {node.layer}, {node.words(self.d_head, self.channel_names)}"

    def label(self, edge: Edge) -> str:
        """Return words for an edge: `layer 1, value 0.0 → attention write 4 (answer)`, or its nodes' short names."""
        if not self.on_rails:
            return f"{edge.source.short_name} → {edge.target.short_name}"
        ends = (node.words(self.d_head, self.channel_names) for node in (edge.source, edge.target))
        return f"layer {edge.source.layer}, " + " → ".join(ends)

    def has_entry(self, parameter: str) -> np.ndarray:
        """Return where a parameter is not zero; nowhere if the model has none of that name."""
        return self.weights.get(parameter, np.zeros((1, self.config["d_model"]))) != 0

    def kilobytes(self) -> dict[str, float]:
        """Return how much the parts of the weights take in the page, in units of 1000 bytes."""
        sizes = {"blocks' weights": 0.0, "embeddings": 0.0}
        for name, weight in self.weights.items():
            sizes["blocks' weights" if name.startswith("blocks") else "embeddings"] += len(as_json(pack(weight))) / 1000
        return sizes

    def to_json(self, heads: list[tuple[int, int]]) -> str:
        """Return what the script needs, as JSON in one line; heads as (layer, head)."""
        number = {node: i for i, node in enumerate(self.nodes)}
        matrices = list(dict.fromkeys(edge.parameter for edge in self.edges))
        data = {
            "config": self.config,
            "kept": self.kept,
            "fixed": {hook: pack(whole, index) for hook, (index, whole) in self.fixed.items()},
            "weights": {name: pack(weight) for name, weight in self.weights.items()},
            "vocabulary": self.tokens,
            "spelling": self.spelling,
            "inputs": self.inputs,
            "prompts": [{"tokens": prompt.tokens, "answer": prompt.answer} for prompt in self.prompts],
            "heads": heads,
            "matrices": matrices,
            "edges": [
                [matrices.index(edge.parameter), edge.index, number[edge.source], number[edge.target]]
                for edge in self.edges
            ],
            "nodes": [
                [node.short_name, self.words(node), node.hook, node.index, bias] for node, bias in self.nodes.items()
            ],
            "channels": {channel: [traffic.writing, traffic.reading] for channel, traffic in self.channels.items()},
        }
        return as_json(data)


def as_json(data: object) -> str:
    """Return compact JSON."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def without_measured(data: str) -> str:
    """Return what `Contents.to_json` gave without the values of ablated nodes, alone and within biases."""
    content = json.loads(data)
    if content["fixed"]:
        content["fixed"] = list(content["fixed"])
        content["weights"] = {
            name: weight for name, weight in content["weights"].items() if name.rpartition(".")[2] not in BIAS.values()
        }
    return as_json(content)
