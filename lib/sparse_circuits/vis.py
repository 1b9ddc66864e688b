"""CircuitsVis figures that are small and the same in every run, need no network, and are live in book and notebook.

CircuitsVis on its own stores 1.3 MB of JavaScript in the notebook for each figure, under a random id, after asking a
foreign host whether there is a network. Here a stored output holds the rounded data and an id made from them. Where
the script comes from depends on where the figure is seen:

* **In the book**, a page that holds an element with the attribute `data-circuitsvis` loads the script once, from the
  book's own site, sets `window.CircuitsVis` and sends the event `circuitsvis-ready` to `document`. The book copies the
  script from the installed package when it is built.
* **In a live notebook** (JupyterLab, Jupyter Notebook, Colab, VS Code) each output holds the script, taken from the
  installed package, because Colab gives each output a page of its own. A notebook saved from there is as large as with
  CircuitsVis itself.
* **Executed while nobody watches** (`make chapters`, nbval), the output holds no script; this is what the book stores.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

DECIMALS = 3
BUNDLE = "dist/cdn/iife.js"
UNSEEN = "This figure is drawn by a script: run the cell, or open the page of the book."


@dataclass(frozen=True)
class CircuitsVisFigure:
    """One CircuitsVis component with its data; a notebook shows it as the result of a cell.

    Parameters
    ----------
    component : str
        Name of the component, such as `AttentionHeads`.
    properties : str
        Its properties as JSON.
    alt : str
        What the figure shows, in words.
    """

    component: str
    properties: str
    alt: str

    @property
    def identifier(self) -> str:
        """Id of the figure, a hash of its content."""
        return hashlib.sha256(f"{self.component}{self.properties}".encode()).hexdigest()[:12]

    def html(self, with_script: bool) -> str:
        """Return the figure as a fragment of HTML.

        Parameters
        ----------
        with_script : bool
            Put CircuitsVis itself into the fragment, 1.3 MB; else the page has to bring it.
        """
        name = self.identifier
        bundle = f"window.CircuitsVis ??= (() => {{\n{_bundle()}\nreturn CircuitsVis;\n}})();\n" if with_script else ""
        # The same figure may stand twice on a page, and CircuitsVis finds its place by id alone.
        return f"""<div data-circuitsvis="{name}" role="figure" aria-label="{escape(self.alt)}">{UNSEEN}</div>
<script>
{bundle}(() => {{
  const properties = {self.properties};
  const draw = () => document.querySelectorAll('[data-circuitsvis="{name}"]:not([id])').forEach((place) => {{
    place.id = `circuitsvis-{name}-${{document.querySelectorAll('[data-circuitsvis="{name}"][id]').length}}`;
    place.textContent = "";
    CircuitsVis.render(place.id, CircuitsVis.{self.component}, properties);
  }});
  if (window.CircuitsVis) draw();
  else document.addEventListener("circuitsvis-ready", draw, {{ once: true }});
}})();
</script>"""

    def _repr_html_(self) -> str:
        return self.html(with_script=watched())

    def __repr__(self) -> str:
        return f"CircuitsVis {self.component}: {self.alt}"


def attention_heads(attention: Float[Tensor, "head query key"], tokens: Sequence[str]) -> CircuitsVisFigure:
    """Show the attention patterns of some heads; a click on a head enlarges it.

    Parameters
    ----------
    attention : tensor, shape (head, query, key)
        Shares of attention between 0 and 1, such as `cache["blocks.0.attn.hook_pattern"][0]`. Rounded to 3 decimals.
    tokens : list of str
        The token at each position.

    Returns
    -------
    CircuitsVisFigure
        Shown by a notebook as the result of a cell.

    Raises
    ------
    ValueError
        If the shapes of `attention` and `tokens` do not fit, or a value is not finite.
    """
    tokens = list(tokens)
    values = _values(attention, "attention")
    if values.ndim != 3 or values.shape[1:] != (len(tokens), len(tokens)):
        raise ValueError(
            f"attention has shape {values.shape} for {len(tokens)} tokens; give (head, query, key) of one prompt."
        )
    alt = f"attention patterns of {len(values)} heads over {len(tokens)} tokens"
    return _figure("AttentionHeads", alt, attention=_listed(values), tokens=tokens)


def colored_tokens(tokens: Sequence[str], values: Float[Tensor, " token"]) -> CircuitsVisFigure:
    """Show tokens on a ground coloured by one value each, such as the loss or an activation.

    Parameters
    ----------
    tokens : list of str
        The tokens.
    values : tensor, shape (token,)
        One value per token, rounded to 3 decimals; negative and positive values get two colours.

    Returns
    -------
    CircuitsVisFigure
        Shown by a notebook as the result of a cell.

    Raises
    ------
    ValueError
        If there is not one finite value per token.
    """
    tokens = list(tokens)
    numbers = _values(values, "values")
    if numbers.shape != (len(tokens),):
        raise ValueError(f"values has shape {numbers.shape} for {len(tokens)} tokens; give one value per token.")
    # This component reads tokens as HTML and would drop what looks like a tag.
    shown = [escape(token, quote=False) for token in tokens]
    return _figure("ColoredTokens", f"{len(tokens)} tokens coloured by value", tokens=shown, values=_listed(numbers))


def watched() -> bool:
    """Tell whether a live front end shows the outputs of this kernel.

    Jupyter servers name the notebook in the environment of the kernels they start, VS Code names it in the kernel;
    programs that execute notebooks by themselves, such as nbclient and nbval, do neither.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    in_vs_code = shell is not None and "__vsc_ipynb_file__" in shell.user_ns
    return "google.colab" in sys.modules or "JPY_SESSION_NAME" in os.environ or in_vs_code


def _figure(component: str, alt: str, **properties: object) -> CircuitsVisFigure:
    # "<" is escaped so that no token can end the script element.
    text = json.dumps(properties, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return CircuitsVisFigure(component, text, alt)


def _listed(values: np.ndarray) -> list:
    """Return nested lists in which whole numbers are integers: in JSON `0` is as good as `0.0`, and half as long."""
    if values.ndim:
        return [_listed(part) for part in values]
    return int(values) if values == int(values) else float(values)


def _values(values: object, what: str) -> np.ndarray:
    numbers = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=float)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what} has values that are not finite; mask or drop them first.")
    # Adding zero turns -0.0 into 0.0, so that a rounding error's sign does not change the text.
    return numbers.round(DECIMALS) + 0.0


@cache
def _bundle() -> str:
    """Read CircuitsVis from the installed package without importing it, safe to stand inside a script element."""
    spec = find_spec("circuitsvis")
    file = Path(spec.submodule_search_locations[0]) / BUNDLE if spec and spec.submodule_search_locations else None
    if file is None or not file.is_file():
        raise FileNotFoundError(f"The package circuitsvis with its file {BUNDLE} is missing; install circuitsvis 1.43.")
    return file.read_text(encoding="utf-8").replace("</script", "<\\/script")
