"""`explore`: check what it is given and build the page of a circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparse_circuits.ablation_values import AblationValues
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer.alone import circuit_alone
from sparse_circuits.explorer.contents import Contents
from sparse_circuits.explorer.offers import offers
from sparse_circuits.explorer.page import Explorer, write
from sparse_circuits.explorer.payload import read_weights
from sparse_circuits.explorer.questions import default_prompts, read_prompts, read_vocabulary, visible
from sparse_circuits.explorer.wiring import find_edges, find_nodes, find_traffic, whole_circuit
from sparse_circuits.graph import Graph, refuse_gated, weight_graph
from sparse_circuits.model import Transformer
from sparse_circuits.sparsity.activations import activation_count

if TYPE_CHECKING:
    from sparse_circuits.two_way import TwoWayPrompts

MAX_EDGES, MAX_NODES = 2000, 400


def explore(
    model: Transformer,
    circuit: Circuit | None = None,
    prompts: Sequence[Sequence[str | int]] | TwoWayPrompts | None = None,
    vocabulary: Sequence[str] | None = None,
    title: str = "The circuit",
    answers: Sequence[str | int] | None = None,
    values: AblationValues | None = None,
    edge_notes: Mapping[str, str] | None = None,
    channel_names: Mapping[int, str] | None = None,
    max_kilobytes: int = 1500,
) -> Explorer:
    """Draw a whole circuit, live: a click cuts an edge and the page runs the model again.

    First used in chapter 0. The page holds weights and runs the forward pass in float64 in JavaScript; it needs no
    kernel and no network. Edges are counted as `sparse_circuits.circuit` defines them. Embedding, unembedding and the
    residual stream are drawn too, in another way, and are not counted.

    Parameters
    ----------
    model : Transformer
        The model that has the circuit.
    circuit : Circuit, optional
        At most 400 nodes and 2000 edges to draw; all edges of the model by default. Without `values`, weights outside
        it still run, but cannot be cut.
    prompts : list of list of str or int, or TwoWayPrompts, optional
        Prompts to choose from, as tokens or their numbers. The reader may build others. A model with the book's
        tokenizer has two of its own: an open double and an open single quote.
    vocabulary : list of str, optional
        The token of each row of the embedding; by default those of the book's tokenizer.
    title : str
        Heading of the drawing.
    answers : list of str or int, optional
        The right next token of each prompt. Without it, verdicts compare with the circuit before any cut.
    values : AblationValues, optional
        Run the circuit alone: all nodes outside it stand at these values, one for each node. The page then holds
        little more than the circuit.
    edge_notes : mapping of str to str, optional
        What an edge carries, by its name as in `Circuit.edges()`; edges that are not drawn may be among them.
    channel_names : mapping of int to str, optional
        Short names of residual channels. A small circuit whose channels have names is drawn on a rail per channel.
    max_kilobytes : int
        The most that the page may weigh, in units of 1000 bytes. Where it would weigh more, it holds the embedding of
        fewer tokens: those of the prompts, the answers and what leads at each position; if that is not enough, it
        leaves the other tokens out of the logits too, and says so; in the end it keeps the tokens of the prompts, the
        answers and the leading next tokens alone.

    Returns
    -------
    Explorer
        Shown by a notebook as the result of a cell; `.save(path)` writes it as one HTML file.

    Raises
    ------
    ValueError
        If the circuit is too big to draw, has no edge or is of another model, if the page weighs too much, if the
        vocabulary has the wrong length or names a token twice, if a prompt is empty, too long or has an unknown token,
        if the values are not one for each node, if a note names no edge of the model, or if attention or the MLPs
        have gates, which the page's forward pass does not know.
    """
    if model.cfg.attention_gate_bias is not None:
        raise ValueError(
            f"The model has attention gates with bias {model.cfg.attention_gate_bias}, which the page cannot run; give "
            "a model without gates."
        )
    refuse_gated(model, "the page cannot run")
    circuit = whole_circuit(model) if circuit is None else circuit
    _check_size(model, circuit)
    vocabulary = read_vocabulary(vocabulary, model.cfg.d_vocab)
    given = default_prompts(vocabulary) if prompts is None else prompts
    questions = read_prompts(given, answers, vocabulary, model.cfg.n_ctx)
    weights, fixed = (read_weights(model), {}) if values is None else circuit_alone(model, circuit, values)
    contents = Contents(
        title=title,
        config=model.cfg.to_dict(),
        kept=_counts_kept(model, circuit.graph),
        fixed=fixed,
        weights=weights,
        spelling=vocabulary,
        prompts=questions,
        edges=find_edges(model, circuit),
        nodes=find_nodes(model, circuit),
        channels=find_traffic(model, circuit, [visible(token) for token in vocabulary]),
        n_running=_within(circuit, values).count_edges(),
        ablation="" if values is None else _in_words(values),
        notes=_notes(edge_notes or {}, circuit.graph),
        channel_names=dict(channel_names or {}),
        n_vocabulary=len(vocabulary),
    )
    for offer in offers(model, circuit, values, questions):
        explorer = write(contents.offering(offer))
        size = len(explorer.html().encode())
        if size <= 1000 * max_kilobytes:
            return explorer
    raise ValueError(_too_heavy(contents.offering(offer), size, max_kilobytes, values))


def _counts_kept(model: Transformer, graph: Graph) -> dict[str, int]:
    """Return how many coordinates AbsTopK keeps, by hook name; empty for a model without it."""
    cfg = model.cfg
    return {
        place: activation_count(n, cfg.activation_density)
        for place, n in graph.sizes.items()
        if cfg.activation_density < 1 and place.split(".", 2)[2] in cfg.activation_locations
    }


def _in_words(values: AblationValues) -> str:
    return "zero" if values.kind == "zero" else f"their {values.kind} over {values.reference}"


def _within(circuit: Circuit, values: AblationValues | None) -> Circuit:
    """Return all edges that run in the page: those of the model, or those between the nodes of the circuit."""
    return Circuit.full(circuit.graph) if values is None else Circuit.induced(circuit.graph, circuit.node_masks)


def _too_heavy(contents: Contents, size: int, limit: int, values: AblationValues | None) -> str:
    parts = contents.kilobytes()
    largest = max(parts, key=parts.get)
    remedy = "a smaller circuit, fewer or shorter prompts"
    if values is None:
        remedy = "values=sc.mean_values(...), so that the page holds the circuit alone"
    return (
        f"The page weighs {size / 1000:.0f} kB and may weigh {limit}; the largest part are the {largest} with "
        f"{parts[largest]:.0f} kB. Give {remedy}, or a larger max_kilobytes."
    )


def _check_size(model: Transformer, circuit: Circuit) -> None:
    if not isinstance(circuit, Circuit):
        raise TypeError(f"circuit is {type(circuit).__name__}; give a Circuit, and name the others: prompts=[...].")
    if not weight_graph(model).same_as(circuit.graph):
        raise ValueError("The circuit is of another model's graph; build it from weight_graph(model).")
    n_edges, n_nodes = circuit.count_edges(), circuit.count_nodes()
    if n_edges == 0:
        raise ValueError("There is no edge to draw: give a model, or a circuit, with non-zero weights.")
    for n, most, what in ((n_edges, MAX_EDGES, "edges"), (n_nodes, MAX_NODES, "nodes")):
        if n > most:
            raise ValueError(f"There are {n} {what} and the explorer draws at most {most}; give a smaller circuit.")


def _notes(notes: Mapping[str, str], graph: Graph) -> dict[str, str]:
    for name in notes:
        graph.find_edge(name)
    return dict(notes)
