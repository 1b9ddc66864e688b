"""Turn learned numbers into a circuit: bisect on how many nodes to keep, then take out what the task can spare.

First used in chapter 5. The bisection is that of arXiv 2511.13653 (appendix A.5). Taking out single nodes afterwards is
ours; the authors note that their pruning leaves nodes that can still go.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .ablation import ablated
from .ablation_values import AblationValues
from .calibration import UNCALIBRATED, fit, fitted_calibration
from .graph import Graph
from .mask_learning import by_location
from .model import Transformer
from .two_way import TwoWayPrompts


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
    calibrate : bool
        Whether it is allowed after scale and offset have been fitted to each candidate, on the selection prompts.
    """

    model: Transformer
    graph: Graph
    prompts: TwoWayPrompts
    values: AblationValues
    target: float
    calibrate: bool = False

    @torch.no_grad()
    def loss(self, kept: Bool[Tensor, " node"], limit: float = math.inf) -> float:
        """Return the task loss with every other node ablated, or a lower bound of it that is above `limit`.

        No prompt has a loss below 0. So a circuit that is far above the limit is known to be so after a few prompts,
        unless they are yet to be calibrated.
        """
        total = 0.0
        with ablated(self.model, by_location(~kept, self.graph), values=self.values):
            if self.calibrate:
                return fitted_calibration(self.model, self.prompts).loss_after
            for group in self._groups:
                total += group.losses(group.answer_logits(self.model)).double().sum().item()
                if total / len(self.prompts) > limit:
                    break
        return total / len(self.prompts)

    def meets_target(self, kept: Bool[Tensor, " node"]) -> bool:
        """Return whether the loss is at most the target."""
        return self.loss(kept, self.target) <= self.target

    @cached_property
    def _groups(self) -> list[TwoWayPrompts]:
        return [self.prompts[rows] for rows in self.prompts.by_length(self.model)]

    def bisected(self, tau: Float[Tensor, " node"]) -> Bool[Tensor, " node"]:
        """Keep the nodes of largest tau: as many as meet the target, where one node fewer does not.

        The loss does not fall steadily as nodes come back, so the search starts from the nodes that were learned and
        leaves them in growing strides; between the last two strides it bisects. Of nodes with equal tau, such as those
        at its bounds, the one comes first whose ablation is estimated to raise the loss most.
        """
        order = self._gain(tau > 0).argsort(descending=True, stable=True)
        order = order[tau[order].argsort(descending=True, stable=True)]
        enough, stride = int((tau > 0).sum()), 1
        while enough < len(order) and not self.meets_target(self._only(order[:enough])):
            enough, stride = min(len(order), enough + stride), 2 * stride
        too_few, stride = enough - 1, 1
        while too_few >= 0 and self.meets_target(self._only(order[:too_few])):
            enough, too_few, stride = too_few, max(-1, too_few - stride), 2 * stride
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if self.meets_target(self._only(order[:middle])):
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
            while n > 1 and not self.meets_target(kept & ~self._only(ranking[:n])):
                n //= 2
            if n <= 1:
                break
            kept &= ~self._only(ranking[:n])
        return self._thinned_one_by_one(kept)

    def _thinned_one_by_one(self, kept: Bool[Tensor, " node"]) -> Bool[Tensor, " node"]:
        """Take out nodes in the order of their ranking, twice as many at a time after each that could go."""
        waiting, needed, n = deque(self._ranking(kept).tolist()), [], 1
        while waiting:
            head = [waiting.popleft() for _ in range(min(n, len(waiting)))]
            fewer = kept & ~self._only(torch.tensor(head))
            if self.meets_target(fewer):
                kept, n = fewer, 2 * n
                # With others gone, a node that was needed may be spared.
                waiting.extend(needed)
                needed.clear()
            elif len(head) == 1:
                needed += head
            else:
                waiting.extendleft(reversed(head))
                n = len(head) // 2
        return kept

    def _ranking(self, kept: Bool[Tensor, " node"]) -> Int[Tensor, " n_kept"]:
        """Return the kept nodes, the one whose ablation is estimated to raise the loss least first."""
        nodes = kept.nonzero().flatten()
        return nodes[self._gain(kept)[nodes].argsort(stable=True)]

    def _gain(self, kept: Bool[Tensor, " node"]) -> Float[Tensor, " node"]:
        """Return the derivative of the loss by the ablation of each node, at the circuit of the kept ones."""
        ablation = (~kept).to(self.model.W_E).requires_grad_()
        with ablated(self.model, by_location(ablation, self.graph), values=self.values):
            margins = self.prompts.margins(self.prompts.answer_logits(self.model))
        # At the best scale and offset the loss does not depend on them, so they are constants of this derivative.
        calibration = fit(margins, self.prompts) if self.calibrate else UNCALIBRATED
        return torch.autograd.grad(calibration.losses(margins, self.prompts).mean(), ablation)[0]

    def _only(self, nodes: Int[Tensor, " n"]) -> Bool[Tensor, " node"]:
        return torch.zeros(self.graph.count_nodes(), dtype=torch.bool).index_fill(0, nodes, True)
