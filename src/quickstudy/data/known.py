"""Worlds that know more of their tasks than the distribution of each value by itself."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from quickstudy.data.source import Prior, World
from quickstudy.episode import Episode


class DensityWorld(World):
    """A world that also knows how the values of several queries vary together, and in which interval each lies."""

    @abstractmethod
    def exact_joint(self, episode: Episode) -> Tensor:
        """``log p(y_1 … y_q | support) / q`` of all queries of a task together, (task,), in nats.

        No learner's mean exceeds it, nor does that of the queries one by one.
        """

    @abstractmethod
    def exact_interval(self, episode: Episode, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Where a share ``level`` of the values of each query lie, as many below as above, each (task, query, 1)."""


class ClassWorld(Prior):
    """A source whose tasks tell classes apart, and that knows how likely each class is."""

    values = 0
    way: int
    """Classes of its tasks."""
    fewest_shot: int = 1
    """Support examples that a task has at least."""

    @abstractmethod
    def exact(self, episode: Episode) -> Tensor:
        """``log p(class | support)`` of each query by itself, (task, query, way).

        As outputs of :class:`quickstudy.likelihood.Categorical` they are what no learner can beat in log-likelihood;
        nor, if the likeliest class is answered, in accuracy.
        """
