"""`explore`: check what it is given and build the page of a circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparse_circuits.circuit import Circuit, listed
from sparse_circuits.explorer.page import Contents, Explorer, Prompt, write_body
from sparse_circuits.explorer.wiring import Node, find_edges, nonzero_weights, whole_circuit
from sparse_circuits.graph import Graph, weight_graph
from sparse_circuits.model import Transformer

MAX_EDGES = 400
MAX_WEIGHTS = 20_000
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def explore(
    model: Transformer,
    prompts: Sequence[Sequence[str | int]],
    vocabulary: Sequence[str],
    title: str = "The circuit",
    circuit: Circuit | None = None,
    answers: Sequence[str | int] | None = None,
    edge_notes: Mapping[str, str] | None = None,
    channel_names: Mapping[int, str] | None = None,
) -> Explorer:
    """Draw the whole circuit of a small model, live: a click cuts an edge and the page runs the model again.

    First used in chapter 0. The page holds the weights and runs the forward pass in float64 in JavaScript; it needs no
    kernel and no network. Edges are counted as `sparse_circuits.circuit` defines them. Embedding, unembedding and the
    residual stream are drawn too, in another way, and are not counted.

    Parameters
    ----------
    model : Transformer
        At most 400 edges and 20 000 non-zero weights.
    prompts : list of list of str or int
        Prompts to choose from, as tokens or their numbers. The reader may build others.
    vocabulary : list of str
        The token of each row of the embedding.
    title : str
        Heading of the drawing.
    circuit : Circuit, optional
        Edges to draw; all edges of the model by default. Weights outside it still run, but cannot be cut.
    answers : list of str or int, optional
        The right next token of each prompt. Without it, verdicts compare with the intact model.
    edge_notes : mapping of str to str, optional
        What an edge carries, by its name as in `Circuit.edges()`; edges that are not drawn may be among them.
    channel_names : mapping of int to str, optional
        Short names of residual channels, written at their rails.

    Returns
    -------
    Explorer
        Shown by a notebook as the result of a cell; `.save(path)` writes it as one HTML file.

    Raises
    ------
    ValueError
        If the model is too big to draw, has no edge or has sparse activations, if the vocabulary has the wrong length
        or names a token twice, if a prompt is empty, too long or has an unknown token, or if a note names no edge of
        the model.
    """
    circuit = whole_circuit(model) if circuit is None else circuit
    _check_size(model, circuit)
    vocabulary = listed(vocabulary, "vocabulary")
    _check_vocabulary(vocabulary, model.cfg.d_vocab)
    edges = find_edges(model, circuit)
    contents = Contents(
        title=title,
        config=model.cfg.to_dict(),
        weights=nonzero_weights(model),
        spelling=vocabulary,
        tokens=["".join(VISIBLE.get(letter, letter) for letter in token) for token in vocabulary],
        prompts=_prompts(prompts, answers, vocabulary, model.cfg.n_ctx),
        edges=edges,
        nodes=[Node.parse(name) for name in circuit.nodes()],
        n_undrawn=circuit.graph.count_edges() - len(edges),
        notes=_notes(edge_notes or {}, circuit.graph),
        channel_names=dict(channel_names or {}),
    )
    return Explorer(title, len(contents.edges), len(contents.nodes), write_body(contents))


def _check_size(model: Transformer, circuit: Circuit) -> None:
    if not weight_graph(model).same_as(circuit.graph):
        raise ValueError("The circuit is of another model's graph; build it from weight_graph(model).")
    if model.cfg.activation_density < 1:
        raise ValueError(
            f"The model keeps a share of {model.cfg.activation_density} of its activations (AbsTopK), which the page's "
            "own forward pass does not do; give a model with activation_density = 1."
        )
    n_edges = circuit.count_edges()
    if n_edges == 0:
        raise ValueError("There is no edge to draw: give a model, or a circuit, with non-zero weights.")
    if n_edges > MAX_EDGES:
        raise ValueError(
            f"There are {n_edges} edges and the explorer draws at most {MAX_EDGES}; give a smaller circuit."
        )
    n_weights = sum(int(weight.count_nonzero()) for weight in model.parameters())
    if n_weights > MAX_WEIGHTS:
        raise ValueError(
            f"The model has {n_weights} non-zero weights, the page holds at most {MAX_WEIGHTS}; give a smaller model."
        )


def _check_vocabulary(vocabulary: list[str], d_vocab: int) -> None:
    if len(vocabulary) != d_vocab:
        raise ValueError(f"vocabulary has {len(vocabulary)} tokens, the model {d_vocab}; name each row of W_E once.")
    twice = sorted({token for token in vocabulary if vocabulary.count(token) > 1 or not token})
    if twice:
        raise ValueError(f"vocabulary has {twice[0]!r} twice or empty; give each token a name of its own.")


def _prompts(
    prompts: Sequence[Sequence[str | int]], answers: Sequence[str | int] | None, vocabulary: list[str], n_ctx: int
) -> list[Prompt]:
    prompts = listed(prompts, "prompts")
    if not prompts:
        raise ValueError("prompts is empty; give at least one prompt, a list of tokens.")
    answers = [None] * len(prompts) if answers is None else listed(answers, "answers")
    if len(answers) != len(prompts):
        raise ValueError(f"There are {len(answers)} answers for {len(prompts)} prompts; give one for each.")
    ids = {token: number for number, token in enumerate(vocabulary)}

    def read(token: str | int, where: str) -> int:
        if isinstance(token, int) and 0 <= token < len(vocabulary):
            return token
        if token not in ids:
            raise ValueError(f"{where} has the token {token!r}, which is not in the vocabulary {vocabulary}.")
        return ids[token]

    read_prompts = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        prompt = listed(prompt, f"prompts[{number}]")
        if not 1 <= len(prompt) <= n_ctx:
            raise ValueError(f"prompts[{number}] has {len(prompt)} tokens; the model reads 1 to {n_ctx}.")
        tokens = [read(token, f"prompts[{number}]") for token in prompt]
        read_prompts.append(Prompt(tokens, None if answer is None else read(answer, f"answers[{number}]")))
    return read_prompts


def _notes(notes: Mapping[str, str], graph: Graph) -> dict[str, str]:
    for name in notes:
        graph.find_edge(name)
    return dict(notes)
