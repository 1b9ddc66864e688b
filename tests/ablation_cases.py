"""Random arguments of `sc.ablated`, each with the same in the terms of the oracle."""

import random
from dataclasses import dataclass

import sparse_circuits as sc
import torch
from ablation_oracle import Replacement, forward, locations, means_by_loops, random_model, random_tokens
from torch import Tensor

KINDS = ("zero", "mean", "mean of chosen tokens", "mean by position", "resample")
REMEDY = r"; .*\b(give|choose|use|name|write|take|make|run|let|lists?|leave|draw)\b|, give\b"
EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass
class Case:
    """Arguments of `sc.ablated` that name values and positions, and the same in the oracle's terms."""

    model: sc.Transformer
    tokens: Tensor
    values: object
    positions: object
    at: Tensor
    put_in: dict[str, Tensor]

    def node_mask(self, coordinates: Tensor) -> Tensor:
        return self.at[:, :, None] * coordinates

    def edge_mask(self, entries: Tensor) -> Tensor:
        return self.at[:, :, None, None] * entries

    @property
    def arguments(self) -> dict:
        return {"values": self.values, "positions": self.positions}

    def replaced(self, nodes=(), edges=(), **more) -> Replacement:
        return Replacement(
            {place: self.node_mask(mask) for place, mask in dict(nodes).items()},
            {matrix: self.edge_mask(mask) for matrix, mask in dict(edges).items()},
            self.put_in,
            **more,
        )


def make_case(seed: int, kind: str | None = None, dtype: torch.dtype = torch.float64, everywhere: bool = False) -> Case:
    """Draw a model, a batch, a kind of values and positions from `seed`."""
    draw = random.Random(seed)
    model = random_model(seed, dtype)
    batch, length = draw.randint(1, 3), draw.randint(2, model.cfg.n_ctx)
    tokens = random_tokens(seed, batch, length)
    kind = kind or KINDS[seed % len(KINDS)]
    values, put_in = make_values(kind, model, batch, length, seed)
    n_chosen = draw.randint(1, length)
    chosen = sorted(draw.sample(range(length), n_chosen))
    at = torch.zeros(batch, length, dtype=torch.bool)
    at[:, chosen] = True
    form = "none" if everywhere else draw.choice(["none", "list", "per position", "per prompt"])
    positions = {"none": None, "list": chosen, "per position": at[0].clone(), "per prompt": at}[form]
    if form == "none":
        at = torch.ones_like(at)
    elif form == "per prompt":
        at ^= torch.rand(at.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    return Case(model, tokens, values, positions, at, put_in)


@torch.no_grad()
def make_values(kind: str, model, batch: int, length: int, seed: int):
    """Return the library's values, and what they are: location -> (batch, pos, coordinate), by the oracle."""
    sizes = locations(model.cfg)
    if kind == "zero":
        values = None if seed % 2 else sc.zero_values()
        dtype = model.W_E.dtype
        return values, {place: torch.zeros(batch, length, n, dtype=dtype) for place, n in sizes.items()}
    if kind == "resample":
        other = random_tokens(seed + 1000, batch, length)
        return sc.resample_values(model, other, reference="other prompts"), by_location(forward(model, other)[1], sizes)
    reference = random_tokens(seed + 2000, 4, model.cfg.n_ctx)
    options, where = {}, None
    if kind == "mean of chosen tokens":
        where = torch.rand(reference.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        where[0, 0] = True
        options = {"where": where}
    elif kind == "mean by position":
        options = {"by_position": True}
    values = sc.mean_values(model, reference, reference="uniform tokens", **options)
    means = means_by_loops(by_location(forward(model, reference)[1], sizes), where, kind == "mean by position")
    shaped = {p: (m[:length] if m.ndim == 2 else m).expand(batch, length, -1) for p, m in means.items()}
    return values, shaped


def by_location(seen: dict[str, Tensor], sizes) -> dict[str, Tensor]:
    return {place: seen[place] for place in sizes}


def random_nodes(model, seed: int, share: float = 0.3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {place: torch.rand(n, generator=generator) < share for place, n in locations(model.cfg).items()}


def random_edges(model, seed: int, share: float = 0.3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edges = sc.weight_graph(model).edge_masks
    return {matrix: mask & (torch.rand(mask.shape, generator=generator) < share) for matrix, mask in edges.items()}


def assert_close(found: Tensor, expected: Tensor, message: str = "") -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), message
    error = (found - expected).abs().max().item()
    assert error <= EXACT[found.dtype], f"{message}: off by {error}"
