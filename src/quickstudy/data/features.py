"""A task source whose examples are the features of a frozen encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from quickstudy.data.mixture import Mixture
from quickstudy.data.source import DataError, Pool, PoolSource, Split, TaskSource
from quickstudy.episode import WORD_PADDING
from quickstudy.nn.features import cached_features, has_frozen_features
from quickstudy.nn.words import present


class FeatureSource(PoolSource):
    """The same tasks as another source's, with each example encoded once: training on features runs at full speed.

    Args:
        source: where the tasks come from, prepared for the encoder.
        encoder: a frozen encoder.
    """

    kind = "vector"

    def __init__(self, source: PoolSource, encoder: Any) -> None:
        self.source, self.encoder, self.labels = source, encoder, source.labels
        self._pools: dict[Split, Pool] = {}

    def pool(self, split: Split) -> Pool:
        if split not in self._pools:
            pool = self.source.pool(split)
            names = pool.names
            if names.shape[1]:
                told = cached_features(self.encoder, names)
                names = told.masked_fill(~present(names)[:, None], WORD_PADDING)
            x = cached_features(self.encoder, pool.x)
            self._pools[split] = dataclasses.replace(pool, x=x, names=names)
        return self._pools[split]

    def strangers(self, split: Split) -> Tensor | None:
        found = self.source.strangers(split)
        return None if found is None else cached_features(self.encoder, found)

    def prepare(self, encoder: Any) -> None:
        if encoder is not self.encoder:
            raise DataError(
                "These examples were encoded by another encoder; start from their source."
            )

    def describe(self) -> dict[str, Any]:
        return self.source.describe()


def with_features(source: TaskSource, encoder: Any) -> TaskSource:
    """``source`` itself, or, where the encoder is frozen, its tasks with each example encoded once and kept on disk.

    Either way the source is prepared for the encoder. Encoded examples are not varied any more.
    """
    if isinstance(source, Mixture):
        return source.of(lambda part: with_features(part, encoder))
    source.prepare(encoder)
    if isinstance(source, PoolSource) and has_frozen_features(encoder):
        return FeatureSource(source, encoder)
    return source
