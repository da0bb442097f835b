"""The tasks that a training sees, each with an index of its own."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from quickstudy.build import build_design
from quickstudy.config import RunConfig
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Split, TaskSource
from quickstudy.data.streams import Streams
from quickstudy.episode import Episode, Stream, take_tasks, tree_map

VALIDATION_SEED = 0
"""The same for every run, so that runs with different seeds are validated on the same tasks."""


Drawn = tuple[Tensor, Episode | Stream]
"""The numbers of some tasks or streams, and these."""


class Batches(Dataset[Drawn]):
    """Batch b of tasks ``b · size … (b + 1) · size - 1``, of which each process takes an equal share.

    Args:
        tasks: or streams, one to an index, or, where the tasks of a batch share their shot, a batch to an index.
        size: of a batch.
        rank: of this process.
        world: how many processes there are.
    """

    def __init__(
        self, tasks: Episodes | Streams, *, size: int, rank: int = 0, world: int = 1
    ) -> None:
        self.tasks, self.size, self.rank, self.world = tasks, size, rank, world

    def __len__(self) -> int:
        return len(self.tasks) if self.tasks.same_shot else -(-len(self.tasks) // self.size)

    def __getitem__(self, index: int) -> Drawn:
        if self.tasks.same_shot:
            share = torch.arange(self.size)[self.rank :: self.world]
            return share + index * self.size, take_tasks(self.tasks[index], share)
        first, last = index * self.size, min((index + 1) * self.size, len(self.tasks))
        which = list(range(first, last))[self.rank :: self.world]
        # A process without a share of the last batch runs along, since the others wait for it; nothing counts.
        drawn = [self.tasks[each] for each in which or [first]]
        return torch.tensor(which, dtype=torch.int64), tree_map(
            lambda *parts: torch.cat(parts), *drawn
        )


class TaskData(pl.LightningDataModule):  # type: ignore[misc]
    """Training and validation tasks of a source.

    Every task has an index of its own: step n trains on tasks ``n · tasks … (n + 1) · tasks - 1``, whoever draws them.
    Where tasks come in streams, the same holds of these.

    Raises:
        DataError: a split cannot fill its design.
    """

    def __init__(self, source: TaskSource, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        training, validation = config.training, config.validation
        together = config.episode.same_shot
        self.training: Episodes | Streams
        self.validation: Episodes | Streams
        if config.episode.stream > 1:
            self.training = self._streams(
                source,
                "train",
                positions=config.episode.stream,
                length=training.steps * training.accumulate * config.episode.tasks,
                seed=training.seed,
                augment=True,
            )
        else:
            self.training = Episodes(
                source,
                "train",
                build_design(config.episode, source, "train"),
                tasks=config.episode.tasks if together else 1,
                length=training.steps
                * training.accumulate
                * (1 if together else config.episode.tasks),
                seed=training.seed,
                augment=True,
                projected=config.episode.projected,
                same_shot=together,
            )
        if config.validation_stream > 1:
            self.validation = self._streams(
                source,
                "validation",
                positions=config.validation_stream,
                length=validation.episodes,
                seed=VALIDATION_SEED,
            )
        else:
            self.validation = Episodes(
                source,
                "validation",
                build_design(validation, source, "validation"),
                length=validation.episodes,
                seed=VALIDATION_SEED,
            )

    def _streams(self, source: TaskSource, split: Split, **shape: Any) -> Streams:
        part = self.config.episode if split == "train" else self.config.validation
        design = build_design(part, source, split)
        return Streams(source, split, design, habit=self.config.episode.habit, **shape)

    def _batches(self, tasks: Episodes | Streams) -> Batches:
        trainer = self.trainer
        size = self.config.episode.tasks
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return Batches(tasks, size=size, rank=rank, world=world)

    def first_batch(self) -> Episode | Stream:
        """The tasks of the first step."""
        return Batches(self.training, size=self.config.episode.tasks)[0][1]

    def train_dataloader(self) -> DataLoader[Drawn]:
        """The batches from the present step to the next validation: an epoch, as Lightning counts."""
        every, steps = self.config.validation.every, self.config.training.steps
        accumulate, workers = self.config.training.accumulate, self.config.training.workers
        first = self.trainer.lightning_module.step
        last = min((first // every + 1) * every, steps)
        return DataLoader(
            self._batches(self.training),
            batch_size=None,
            sampler=range(first * accumulate, last * accumulate),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )

    def val_dataloader(self) -> DataLoader[Drawn]:
        """The fixed validation tasks."""
        return DataLoader(self._batches(self.validation), batch_size=None)
