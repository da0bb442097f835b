"""Which training classes are near one another, as an encoder sees them before it is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.mixture import Mixture
from quickstudy.data.source import DataError, Pool, PoolSource, Split, TaskSource
from quickstudy.episode import Inputs, take_tasks
from quickstudy.evaluation.contest import vectors_of
from quickstudy.nn.encoders import Encoder

EXAMPLES = 4
"""Of a class, from which it is known where it lies."""


class NeighbourSource(PoolSource):
    """The same tasks as another source's, whose training classes have vectors, ``v_c = mean_i encoder(x_ci)``.

    Args:
        source: where the tasks come from, prepared for the encoder.
        encoder: as it is before training; what it makes of classes is kept.
    """

    def __init__(self, source: PoolSource, encoder: Encoder) -> None:
        self.source, self.encoder = source, encoder
        self.kind, self.labels = source.kind, source.labels  # type: ignore[misc]
        self._pool = source.pool("train")
        if self._pool.many or self._pool.samples:
            raise DataError(
                "Found neighbours above 0, but tasks of near classes can only be drawn where each example is of one "
                "class and support sets are drawn; leave neighbours out."
            )
        self._pool = replace(self._pool, vectors=class_vectors(self._pool, encoder))

    def pool(self, split: Split) -> Pool:
        return self._pool if split == "train" else self.source.pool(split)

    def strangers(self, split: Split) -> Inputs | None:
        return self.source.strangers(split)

    def prepare(self, encoder: Any) -> None:
        if encoder is not self.encoder:
            raise DataError(
                "What is near was seen by another encoder; start from the source of these tasks."
            )

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        return self.source.augment(x, generator)

    def describe(self) -> dict[str, Any]:
        return self.source.describe()


def with_neighbours(source: TaskSource, encoder: Encoder) -> TaskSource:
    """``source`` with vectors of its training classes.

    Raises:
        DataError: it is a world, whose tasks have no classes that come again.
    """
    if isinstance(source, Mixture):
        return source.of(lambda part: with_neighbours(part, encoder))
    if not isinstance(source, PoolSource):
        raise DataError(
            "Found neighbours above 0, but this source invents its tasks, so that no class comes again; leave "
            "neighbours out."
        )
    return NeighbourSource(source, encoder)


def class_vectors(pool: Pool, encoder: Encoder) -> Tensor:
    """The mean of what an encoder makes of the first :data:`EXAMPLES` examples of each class, (class, width)."""
    counts = pool.counts.clamp(max=EXAMPLES)
    which = torch.repeat_interleave(torch.arange(pool.classes), counts)
    place = torch.arange(len(which)) - (counts.cumsum(0) - counts)[which]
    rows = pool.starts[which] + place
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    vectors = vectors_of(take_tasks(pool.x, rows), encoder, device)
    sums = vectors.new_zeros(pool.classes, vectors.shape[1]).index_add_(0, which, vectors)
    return sums / counts[:, None].clamp(min=1)
