"""Turn learned numbers into a circuit: bisect on how many nodes to keep, then take out what the task can spare.

First used in chapter 5. The bisection is that of arXiv 2511.13653 (appendix A.5). Taking out single nodes afterwards is
ours; the authors note that their pruning leaves nodes that can still go.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .ablation import ablated
from .ablation_values import AblationValues
from .graph import Graph
from .mask_learning import by_location
from .model import Transformer
from .two_way import TwoWayPrompts, two_way_loss


@dataclass(frozen=True)
class MaskSearch:
    """Choose nodes by the task loss that they alone give on the selection prompts.

    Parameters
    ----------
    model : Transformer
        The model.
    graph : Graph
        Its weight graph.
    prompts : TwoWayPrompts
        The selection prompts.
    values : AblationValues
        What the nodes carry that are left out.
    target : float
        The task loss that is allowed, in nats per prompt.
    """

    model: Transformer
    graph: Graph
    prompts: TwoWayPrompts
    values: AblationValues
    target: float

    def loss(self, kept: Bool[Tensor, " node"]) -> float:
        """Return the task loss with every other node ablated."""
        with ablated(self.model, by_location(~kept, self.graph), values=self.values):
            return two_way_loss(self.model, self.prompts)

    def bisected(self, tau: Float[Tensor, " node"]) -> Bool[Tensor, " node"]:
        """Keep the nodes of largest tau: as many as meet the target, where one node fewer does not.

        Of nodes with equal tau, such as those at its bounds, the one comes first whose ablation is estimated to raise
        the loss most.
        """
        order = self._gain(tau > 0).argsort(descending=True, stable=True)
        order = order[tau[order].argsort(descending=True, stable=True)]
        too_few, enough = -1, len(order)
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if self.loss(self._only(order[:middle])) <= self.target:
                enough = middle
            else:
                too_few = middle
        return self._only(order[:enough])

    def thinned(self, kept: Bool[Tensor, " node"]) -> Bool[Tensor, " node"]:
        """Take out nodes, those of least effect first, until none can go alone without missing the target.

        While many can go, they go together: the nodes are ranked by the first-order estimate of what the loss gains
        without them, and the longest head of that ranking that the target allows is taken out, found by halving.
        """
        kept = kept.clone()
        while kept.any():
            ranking = self._ranking(kept)
            n = len(ranking) // 2
            while n > 1 and self.loss(kept & ~self._only(ranking[:n])) > self.target:
                n //= 2
            if n <= 1:
                break
            kept &= ~self._only(ranking[:n])
        removed = True
        while removed:
            removed = False
            for node in self._ranking(kept) if kept.any() else ():
                fewer = kept.clone()
                fewer[node] = False
                if self.loss(fewer) <= self.target:
                    kept, removed = fewer, True
        return kept

    def _ranking(self, kept: Bool[Tensor, " node"]) -> Int[Tensor, " n_kept"]:
        """Return the kept nodes, the one whose ablation is estimated to raise the loss least first."""
        nodes = kept.nonzero().flatten()
        return nodes[self._gain(kept)[nodes].argsort(stable=True)]

    def _gain(self, kept: Bool[Tensor, " node"]) -> Float[Tensor, " node"]:
        """Return the derivative of the loss by the ablation of each node, at the circuit of the kept ones."""
        ablation = (~kept).to(torch.get_default_dtype()).requires_grad_()
        with ablated(self.model, by_location(ablation, self.graph), values=self.values):
            loss = self.prompts.losses(self.prompts.answer_logits(self.model)).mean()
        return torch.autograd.grad(loss, ablation)[0]

    def _only(self, nodes: Int[Tensor, " n"]) -> Bool[Tensor, " node"]:
        return torch.zeros(self.graph.count_nodes(), dtype=torch.bool).index_fill(0, nodes, True)
