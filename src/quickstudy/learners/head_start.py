"""Where the head of a task begins: at nothing, or at what the examples of each class say of it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from quickstudy.episode import Examples
from quickstudy.learners.metric import UNSEEN, PrototypeState, class_sums
from quickstudy.nn.layers import Norm

Start = Literal["zero", "prototypes", "generated"]
"""How the head of classes begins."""


class HeadOfExamples(nn.Module):
    """The head of classes, made of their examples: ``W_c = (2 p_c + g_c) / d``, ``b_c = -‖p_c‖² / d + h_c``.

    p_c is the mean of the d features of the examples of a class, so that ``W_c f + b_c`` is the squared distance to it
    but for what all classes share. ``[g_c, h_c] = mean over c of V tanh(U Norm(f(x_i)) + u)`` is what a trained
    generator adds; V begins at zero, so training begins at the prototypes.

    Args:
        width: features of an example.
        generated: whether there is a generator.

    >>> import torch
    >>> support = Examples((), torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    >>> head = HeadOfExamples(2, generated=False)
    >>> weights, bias = head(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), support, 2)
    >>> weights.tolist(), bias.tolist()
    ([[[1.0, 0.0], [0.0, 2.0]]], [[-0.5, -2.0]])
    """

    def __init__(self, width: int, *, generated: bool) -> None:
        super().__init__()
        self.generate: nn.Sequential | None = None
        if generated:
            # A bias would be the same for every class, which a softmax does not see.
            last = nn.Linear(width, width + 1, bias=False)
            nn.init.zeros_(last.weight)
            self.generate = nn.Sequential(Norm(width), nn.Linear(width, width), nn.Tanh(), last)

    def forward(self, features: Tensor, support: Examples, way: int) -> tuple[Tensor, Tensor]:
        """Weights (task, way, width) and bias (task, way).

        Args:
            features: of the support, (task, example, width).
            support: its labels and mask.
            way: number of classes.
        """
        known = PrototypeState(*class_sums(features, support, way))
        prototypes = known.means
        weights = 2 * prototypes
        bias = -prototypes.square().sum(-1) / features.shape[-1]
        if self.generate is not None:
            found = PrototypeState(*class_sums(self.generate(features), support, way)).means
            weights, bias = weights + found[..., :-1], bias + found[..., -1]
        return weights / features.shape[-1], bias.masked_fill(known.counts == 0, UNSEEN)
