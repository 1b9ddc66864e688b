"""The texts of a new chapter: every part that a chapter has, in order, with something in it that already runs.

What stands between ‹ and › is to be replaced; a linter finds what is left of it. The code measures a planted circuit,
so that the skeleton can be executed, graded and tested before a word of the chapter is written.
"""

from __future__ import annotations

import nbformat

OPEN, CLOSE = "‹", "›"

HOOK = """## ‹One concrete object›

‹A prompt, a wrong token or one edge, in at most 120 words. The reader should want to know what happens next.›"""

OBJECTIVES = """## By the end you can

- ‹do something that exercise 1 checks› (Exercise {number}.1)
- ‹find the mistakes in something given› (Exercise {number}.2)
- ‹break something, because you know how it works› (Exercise {number}.3)"""

BUILD = """## Build it

‹Idea, picture, equation, shapes; then about 20 lines of code at a time.›"""

BUILD_CODE = """import matplotlib.pyplot as plt
import pandas as pd

quotes = sc.planted_quote_circuit()
print(quotes.circuit)"""

PREDICT = """## Predict

‹Ask for a guess before the result shows the answer.› How many edges does the circuit have?"""

PREDICT_CODE = 'sc.predict("{number}.a", ...)'

RESULT = """## The result

‹One figure and one table, each with its control, and a claim for every number that the text uses.›"""

RESULT_CODE = """edges = sc.claim(
    "chapter{number}.edges", quotes.circuit.count_edges(), how="edges in the circuit"
)
possible = sc.claim(
    "chapter{number}.possible",
    quotes.graph.count_edges(),
    how="edges in the graph of the model",
)
counts = pd.DataFrame(
    {{"edges of": ["circuit", "whole model (control)"], "number": [edges, possible]}}
)
sc.plots.table(counts, "‹What the table counts, and the control›")"""

FIGURE_CODE = """fig, ax = plt.subplots(figsize=(4, 3))
ax.bar(counts["edges of"], counts["number"], color=sc.plots.PALETTE["blue"])
ax.set_ylabel("edges")
sc.plots.show(
    fig,
    alt="‹What the figure shows, in a sentence›: the circuit has fewer edges than the whole model.",
    data=counts,
)"""

REVEAL_CODE = 'sc.reveal("{number}.a", edges)'

LIES = """## Where this lies to you

‹A counter-example that can be run: a case in which the method of this chapter gives a wrong answer.›"""

LIES_CODE = "print(quotes.graph)"

EXERCISES = """## Check yourself

‹Four to six exercises. A grader runs the answer and says what to look at.›"""

CARD = """### Exercise {exercise} · {title}

Difficulty ●●○○○ · Importance ●●●○○ · 10 minutes

‹What to do, and what to hand in.› {task}"""

HINTS = """<details><summary>Hint 1</summary>

‹A nudge: where to look.›

</details>
<details><summary>Hint 2</summary>

‹The idea.›

</details>
<details><summary>Hint 3</summary>

‹Nearly the answer, but no line of the solution.›

</details>"""

# (title, task, code of the stub before the grade, code of the solution, the answer's expression in the solution)
EXERCISE_TEXTS = (
    (
        "‹A thing to do›",
        "How many nodes has the quote circuit?",
        "answer = ...",
        "nodes_of_quotes = quotes.circuit.count_nodes()",
        "nodes_of_quotes",
    ),
    (
        "Debug: ‹wrong code›",
        "Debug the function: it shall count the edges of a planted circuit.",
        "def edges_of(planted):\n    return planted.graph.count_edges()\n\n",
        "def edges_of_circuit(planted):\n    return planted.circuit.count_edges()\n\n",
        "edges_of_circuit",
    ),
    (
        "Break it: ‹a thing to break›",
        "Name one edge without which the quote circuit is wrong on some prompt.",
        "edge = ...",
        "vital_edge = quotes.circuit.edges()[0]",
        "vital_edge",
    ),
    (
        "‹A thing to carry over›",
        "How many edges has the planted bracket circuit?",
        "count = ...",
        "brackets = sc.planted_bracket_circuit()\nedges_of_brackets = brackets.circuit.count_edges()",
        "edges_of_brackets",
    ),
)

COMPARE = """## Try your own

‹Let the reader put a model of their own into the table and the figure of this chapter.›"""

RECAP = """## Recap

‹First sentence of five›. ‹Second›. ‹Third›. ‹Fourth›. ‹Fifth›."""

QUESTION = """### Question {place}

‹A question that the text answers.›

<details><summary>‹A wrong choice›</summary>

No. ‹Why it is tempting, and why it is wrong.›

</details>
<details><summary>‹The right choice›</summary>

Right. ‹Why it is right.›

</details>"""

READING = """## Further reading

- ‹Author, title, year. What a reader finds there, and which part to read first.›
- ‹Author, title, year. What a reader finds there, and which part to read first.›
- ‹Author, title, year. What a reader finds there, and which part to read first.›"""


def cells_of(number: str) -> list[nbformat.NotebookNode]:
    """Return the cells of a new chapter, in the order of its parts."""
    return [
        _text(HOOK, "hook"),
        _text(OBJECTIVES.format(number=number), "objectives"),
        _code("", "setup"),
        _text(BUILD, "build"),
        _code(BUILD_CODE),
        _text(PREDICT, "predict"),
        _code(PREDICT_CODE.format(number=number)),
        _text(RESULT, "result"),
        _code(RESULT_CODE.format(number=number)),
        _code(FIGURE_CODE),
        _code(REVEAL_CODE.format(number=number)),
        _text(LIES, "lies"),
        _code(LIES_CODE),
        _text(EXERCISES, "exercises"),
        *(cell for place in range(1, len(EXERCISE_TEXTS) + 1) for cell in _exercise(number, place)),
        _text(COMPARE, "compare"),
        _text(RECAP, "recap"),
        _text(f"## Quiz\n\n{QUESTION.format(place=1)}", "quiz"),
        *(_text(QUESTION.format(place=place)) for place in range(2, 6)),
        _text(READING, "reading"),
    ]


def _exercise(number: str, place: int) -> list[nbformat.NotebookNode]:
    exercise = f"{number}.{place}"
    title, task, stub, solution, answer = EXERCISE_TEXTS[place - 1]
    handed_in = stub.removeprefix("def ").split("(")[0] if stub.startswith("def ") else stub.split(" = ")[0]
    return [
        _text(CARD.format(exercise=exercise, title=title, task=task), "exercise-card"),
        _code(f'{stub}\nsc.grade("{exercise}", {handed_in})', "exercise"),
        _text(HINTS, "hints"),
        _code(f'# @title Solution {exercise}\n{solution}\nsc.grade("{exercise}", {answer})', "solution"),
    ]


def _text(source: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


def _code(source: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})
