"""The circuit explorer: the whole circuit of a small model, drawn in a page that runs the model itself."""

from sparse_circuits.explorer.build import explore
from sparse_circuits.explorer.graph_page import GraphExplorer, explore_graph
from sparse_circuits.explorer.page import Explorer

__all__ = ["Explorer", "GraphExplorer", "explore", "explore_graph"]
