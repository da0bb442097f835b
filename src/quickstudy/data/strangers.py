"""Tasks that are also asked about examples of no class, which their data set brings along."""

from __future__ import annotations

from typing import Any

from quickstudy.data.source import DataError, Pool, PoolSource, Split


class WithStrangers(PoolSource):
    """The tasks of a source with examples of no class as one class more, the last of each task.

    Who asks takes the support of that class away.

    Args:
        source: that brings such examples.
    """

    def __init__(self, source: PoolSource) -> None:
        self.source, self.kind = source, source.kind  # type: ignore[misc]

    def prepare(self, encoder: Any) -> None:
        self.source.prepare(encoder)

    def pool(self, split: Split) -> Pool:
        pool = self.source.with_strangers(split)
        if pool is None:
            raise DataError(f"The {split} split brings no examples of no class.")
        return pool
