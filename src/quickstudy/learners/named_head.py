"""A head that names make: a row for every class that is called something, before and beside its examples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Examples
from quickstudy.learners.describing import Described
from quickstudy.learners.metric import directions
from quickstudy.nn.layers import Norm

NAME_TEMPERATURE = 10.0
"""What the cosine between example and name counts for before training, where the encoder reads both."""

TRUST = (1.0, 0.5, 0.25, 0.12, 0.06, 0.0)
"""Shares of what names say that are tried, when training is over, on classes that it has not seen."""

OFFSETS = tuple(range(9))
"""What is tried, then, as an advantage of classes without an example over those that have some."""

UNTIL_CHOSEN = (0.25, 0.0)
"""Shares with which weights are validated while training goes on; with all of what names say, those of the first steps
would be best, before any name is known by heart."""


class NamedHead(nn.Module):
    """Makes a row of a head for each class that has a name: ``W_c = t H(name_c, n_c, h)`` for n_c examples.

    H is a perceptron that begins at zero. Where the encoder reads names itself, a cosine is added that begins at
    something: ``τ v_c / (1 + s n_c)``, v_c the direction of what it makes of the name. t is 1 while training. For use,
    it is chosen where names are doubted, once for classes with examples and once for those without, where it is
    divided by 1 + J: the more classes J have a name and an example, the more their likeness says, and what is known by
    heart is of other classes. So is how far classes without an example are ahead of those that have some, whose
    examples are always near to something (calibrated stacking, Chao et al. 2016, An Empirical Study and Analysis of
    Generalized Zero-Shot Learning).

    Args:
        width: of what a name says, and of the memory.
        features: of an encoded example.
        spoken: the encoder reads names.
        doubted: names of training classes are known by heart, so what names say counts less until it is chosen.

    >>> head = NamedHead(4, 3, spoken=False, doubted=True)
    >>> sorted(name for name, _ in head.named_buffers())
    ['offset', 'trust']
    """

    def __init__(self, width: int, features: int, *, spoken: bool, doubted: bool) -> None:
        super().__init__()
        self.counted, self.remembered = nn.Linear(1, width), nn.Linear(width, width)
        self.head = nn.Sequential(
            Norm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, features)
        )
        for value in self.head[-1].parameters():
            nn.init.zeros_(value)
        self.unseen = nn.Parameter(torch.zeros(()))
        self.trust: Tensor
        self.register_buffer("trust", torch.tensor(UNTIL_CHOSEN if doubted else (1.0, 1.0)))
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(()))
        self.features, self.doubted = features, doubted
        if spoken:
            self.log_spoken = nn.Parameter(torch.tensor(math.log(NAME_TEMPERATURE)))
            self.fading = nn.Parameter(torch.zeros(()))

    def forward(
        self, described: Described, counts: Tensor, memory: Tensor, others: Tensor
    ) -> Tensor:
        """The rows (task, way, features), zero of classes without a name.

        Args:
            described: what tasks say of themselves.
            counts: examples of each class, (task, way).
            memory: (task, slot, width).
            others: how many classes have a name and an example, of the task and those before it, (task, 1).
        """
        known = described.names + self.remembered(memory.mean(1))[:, None]
        known = known + self.counted(torch.log1p(counts.to(known.dtype))[..., None])
        rows: Tensor = self.head(known)
        if described.spoken.shape[-1]:
            direction = directions(described.spoken)
            left = 1 + F.softplus(self.fading) * counts.to(direction.dtype)
            rows = rows + self.log_spoken.exp() * direction / left[..., None]
        if self.doubted and not self.training:
            share = self.trust[(counts > 0).long()] / (1 + others * (counts == 0))
            rows = rows * share[..., None]
        return rows * described.named[..., None] / self.features**0.5

    def outputs(self, outputs: Tensor, features: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Logits (task, query, way) of a learner of examples, and what names add to them.

        Args:
            outputs: logits; of a class without an example they say nothing and are replaced.
            features: of the queries, (task, query, features).
            state: ``head``, the rows; ``named``, bool (task, way); ``counts`` (task, way).
        """
        only_named = state["named"] & (state["counts"] == 0)
        unseen = (self.unseen + self.offset).to(outputs)
        outputs = torch.where(only_named[:, None], unseen, outputs)
        normed = F.layer_norm(features, features.shape[-1:])
        added: Tensor = outputs + normed @ state["head"].transpose(1, 2)
        return added


def counts_of(support: Examples, way: int) -> Tensor:
    """How many examples each class has, int64 (task, way)."""
    return (F.one_hot(support.y, way) * support.mask[..., None]).sum(1)
