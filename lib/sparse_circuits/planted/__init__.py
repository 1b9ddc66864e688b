"""Models compiled by hand, whose circuits are known exactly: the oracles of chapters and tests.

First used in chapter 0. Nothing here is trained. Every weight is written down in `quotes.py`,
`brackets.py`, `cancelling.py` and `two_hop.py`; `hidden.py` puts them among random ones.
"""

from .base import PlantedCircuit, Prompt
from .brackets import planted_bracket_circuit
from .cancelling import planted_cancelling_heads
from .hidden import hidden_circuit
from .quotes import planted_quote_circuit
from .two_hop import planted_two_hop, second_hop_share, two_hop_transcoder

__all__ = [
    "PlantedCircuit",
    "Prompt",
    "hidden_circuit",
    "planted_bracket_circuit",
    "planted_cancelling_heads",
    "planted_quote_circuit",
    "planted_two_hop",
    "second_hop_share",
    "two_hop_transcoder",
]
