"""Planted circuits, plain and hidden, as pruning meets them, and what there is to find in them."""

from __future__ import annotations

from functools import cache

from sparse_circuits.circuit import Circuit
from sparse_circuits.planted import hidden_circuit, planted_bracket_circuit, planted_quote_circuit
from sparse_circuits.planted_search import PlantedSearch

QUERY = "blocks.1.attn.hook_q[0]"
NAMES = ("quotes", "brackets", "hidden quotes", "hidden brackets")


@cache
def case(name: str, seed: int = 0) -> PlantedSearch:
    """Return a case; hidden ones are hidden anew for each seed."""
    planted = planted_quote_circuit() if name.endswith("quotes") else planted_bracket_circuit()
    return PlantedSearch.of(hidden_circuit(planted, seed) if name.startswith("hidden") else planted, seed)


def needed(planted, zero=False) -> Circuit:
    """The planted circuit, less the constant query of the quote circuit where it stays constant when it is ablated."""
    constant = planted.name.startswith("quotes") and not zero
    queries = [node for node in planted.circuit.nodes() if "hook_q" in node]
    return planted.circuit.without(nodes=queries) if constant else planted.circuit
