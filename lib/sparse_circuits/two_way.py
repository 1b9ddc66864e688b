"""Questions with two candidate answers, and what a model or a circuit loses on them.

First used in chapter 5. The task loss is the one of arXiv 2511.13653 (section 2): cross-entropy over the two candidates
alone, at the answer position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from .ablation import hooks_are_alike_everywhere
from .model import Transformer
from .planted.base import Prompt
from .tasks.contrast import ContrastBatch, contrast_pairs

# A run has at least 16 prompts, and as many as make prompts times weights 32 million.
GROUP, WORK_OF_A_RUN = 16, 2**25


@dataclass(frozen=True, eq=False)
class TwoWayPrompts:
    """Prompts with a right and a wrong answer.

    Parameters
    ----------
    tokens : int tensor, shape (n, pos)
        Prompts, padded on the right.
    position : int tensor, shape (n,)
        Where the answer is read.
    right, wrong : int tensor, shape (n,)
        Token ids of the two candidates.

    Raises
    ------
    ValueError
        If there is no prompt, the shapes disagree, or a position is outside its prompt.

    Examples
    --------
    >>> prompts = TwoWayPrompts.of(planted.sample(8, seed=0))
    >>> prompts.losses(torch.zeros(8, 10)).mean()    # ln 2, chance
    tensor(0.6931)
    """

    tokens: Int[Tensor, "n pos"]
    position: Int[Tensor, " n"]
    right: Int[Tensor, " n"]
    wrong: Int[Tensor, " n"]

    def __post_init__(self) -> None:
        n = len(self.tokens)
        if self.tokens.ndim != 2 or not n:
            raise ValueError(f"tokens have shape {tuple(self.tokens.shape)}; give at least one prompt, shape (n, pos).")
        for name in ("position", "right", "wrong"):
            if getattr(self, name).shape != (n,):
                raise ValueError(
                    f"{name} has shape {tuple(getattr(self, name).shape)}, there are {n} prompts; give one per prompt."
                )
        if not ((self.position >= 0) & (self.position < self.tokens.shape[1])).all():
            raise ValueError(
                f"position goes from {self.position.min()} to {self.position.max()}, the prompts have "
                f"{self.tokens.shape[1]} tokens; count positions from 0."
            )

    @classmethod
    def of(cls, prompts: Sequence[Prompt] | ContrastBatch) -> TwoWayPrompts:
        """Return the prompts of a planted circuit's sample, or both halves of contrast pairs.

        Prompt 2i of a `ContrastBatch` is the positive half of pair i, prompt 2i + 1 the negative half.
        """
        if isinstance(prompts, ContrastBatch):
            right = torch.stack([prompts.answer_positive, prompts.answer_negative], dim=1)
            return cls(
                torch.stack([prompts.positive, prompts.negative], dim=1).flatten(0, 1),
                prompts.position.repeat_interleave(2),
                right.flatten(),
                right.flip(1).flatten(),
            )
        rows = [torch.tensor(prompt.tokens) for prompt in prompts]
        return cls(
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            torch.tensor([len(row) - 1 for row in rows]),
            torch.tensor([prompt.right for prompt in prompts]),
            torch.tensor([prompt.wrong for prompt in prompts]),
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Int[Tensor, " m"] | slice) -> TwoWayPrompts:
        """Return some of the prompts."""
        return TwoWayPrompts(self.tokens[rows], self.position[rows], self.right[rows], self.wrong[rows])

    def by_length(self, model: HookedRootModule) -> list[Int[Tensor, " m"]]:
        """Return the numbers of the prompts in groups of similar length, so that little padding is computed.

        A run of a small model costs its fixed few milliseconds however short it is, so its groups are larger.
        """
        size = sum(weight.numel() for weight in model.parameters())
        return list(self.position.argsort(stable=True).split(max(GROUP, WORK_OF_A_RUN // size)))

    def answer_logits(self, model: HookedRootModule) -> Float[Tensor, "n d_vocab"]:
        """Return the model's logits at the answer positions, with the hooks that it carries.

        What no answer depends on is not computed: padding, and the last layer at positions other than the answer's. A
        hook that is not known to treat all positions of all prompts alike gets the whole prompts in one run.
        """
        if not (isinstance(model, Transformer) and hooks_are_alike_everywhere(model)):
            return self._answers_of(model, {"ln_final.hook_normalized": self.answer_rows})
        groups = self.by_length(model)
        logits = torch.cat([self[rows]._shortened()._answers_of_last_layer(model) for rows in groups])
        return logits[torch.cat(groups).argsort()]

    def _shortened(self) -> TwoWayPrompts:
        """Return the prompts without the tokens that come after all answer positions."""
        return replace(self, tokens=self.tokens[:, : int(self.position.max()) + 1])

    def _answers_of_last_layer(self, model: Transformer) -> Float[Tensor, "n d_vocab"]:
        """Run the last layer at the answer positions alone, from where keys and values have been read."""
        last = f"blocks.{model.cfg.n_layers - 1}."
        cuts = {
            f"{last}attn.hook_attn_scores": lambda scores: self.answer_rows(scores.transpose(1, 2)).transpose(1, 2),
            # What attention writes for one position was added at every position.
            f"{last}hook_resid_mid": self.answer_rows,
        }
        return self._answers_of(model, cuts)

    def _answers_of(
        self, model: HookedRootModule, cuts: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, "n d_vocab"]:
        hooks = [(place, lambda activation, hook, cut=cut: cut(activation)) for place, cut in cuts.items()]
        with model.hooks(fwd_hooks=hooks):
            logits = model(self.tokens)
        # A bigram table adds its rows for all positions.
        return logits[:, 0] if logits.shape[1] == 1 else self.answer_rows(logits)[:, 0]

    def answer_rows(self, activation: Float[Tensor, "n pos ..."]) -> Float[Tensor, "n one ..."]:
        """Return what an activation has at the answer position of each prompt."""
        return activation[torch.arange(len(self)), self.position][:, None]

    def margins(self, logits: Float[Tensor, "n d_vocab"]) -> Float[Tensor, " n"]:
        """Return logit of the right answer minus logit of the wrong one."""
        rows = torch.arange(len(self))
        return logits[rows, self.right] - logits[rows, self.wrong]

    @property
    def sides(self) -> Float[Tensor, " n"]:
        """1 for each prompt whose right answer is the candidate with the larger token id, -1 for the others."""
        return torch.where(self.right > self.wrong, 1.0, -1.0)

    def losses(self, logits: Float[Tensor, "n d_vocab"]) -> Float[Tensor, " n"]:
        """Return the cross-entropy over the two candidates for each prompt, in nats; chance is ln 2."""
        return F.softplus(-self.margins(logits))


def task_prompts(name: str, n: int, seed: int, split: str = "train") -> TwoWayPrompts:
    """Return both halves of `n` contrast pairs of a task: 2n prompts, halves of a pair side by side.

    Parameters and errors as in `contrast_pairs`.
    """
    return TwoWayPrompts.of(contrast_pairs(name, n, seed, split=split))


@torch.no_grad()
def two_way_loss(model: HookedRootModule, prompts: TwoWayPrompts) -> float:
    """Return the task loss of the model as it is, with the hooks that it carries, in nats per prompt."""
    return float(prompts.losses(prompts.answer_logits(model)).mean())
