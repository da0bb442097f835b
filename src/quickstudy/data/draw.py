"""Episodes: a map from an index to a batch of tasks, drawn from a pool or by a world.

``Episodes[i]`` is a pure function of (seed, split, i): a run resumes at step n, each rank takes every W-th index, two
learners meet the same tasks, and one integer brings a bad episode back.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from quickstudy.data.augment import project_tasks
from quickstudy.data.class_draw import Augment, ClassDraw, Drawn, distinct_numbers
from quickstudy.data.design import EpisodeDesign, check_design, fixed_tasks, span
from quickstudy.data.label_draw import LabelDraw
from quickstudy.data.source import DataError, Pool, PoolSource, Prior, Split, TaskSource
from quickstudy.episode import NO_LABEL, Episode, without_support

__all__ = [
    "Augment", "ClassDraw", "Drawn", "EpisodeDesign", "Episodes", "distinct_numbers", "draw_from", "index_generator",
]  # fmt: skip


def index_generator(seed: int, split: str, index: int) -> torch.Generator:
    """The random generator of one index of one split: the same in every process and on every run."""
    key = hashlib.blake2b(f"{seed} {split} {index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))


def draw_from(pool: Pool, design: EpisodeDesign, *, tasks: int) -> ClassDraw | LabelDraw:
    """What draws such tasks from a pool."""
    return (LabelDraw if pool.many else ClassDraw)(pool, design, tasks=tasks)


class Episodes(torch.utils.data.Dataset[Episode]):
    """A map from an index to a batch of tasks.

    Args:
        source: what to draw from.
        split: ``train``, ``validation`` or ``test``.
        design: the shape of the tasks. Those of shot 0 are those of shot 1 with the support hidden; of a range from 0
            to n, one task in n + 1 has no support at all.
        tasks: tasks in a batch.
        length: number of batches.
        seed: with split and index, decides everything.
        augment: vary the examples of a pool (training only).
        same_shot: the tasks of a batch that a world draws share one shot of the design's range, so nothing is padded.
        projected: chance of a task to be sent through a random linear map of its own.

    Raises:
        DataError: the source cannot fill the design, has fewer fixed tasks, or is no world and its tasks are to share a
            shot.
    """

    def __init__(
        self,
        source: TaskSource,
        split: Split,
        design: EpisodeDesign,
        *,
        tasks: int = 1,
        length: int = 1,
        seed: int = 0,
        augment: bool = False,
        same_shot: bool = False,
        projected: float = 0.0,
    ) -> None:
        self.projected = projected
        self.source, self.split, self.design, self.same_shot = source, split, design, same_shot
        self.tasks, self.length, self.seed = tasks, length, seed
        check_design(source, split, design)
        self._bare = span(design.shot)[1] == 0
        self._drawn = replace(design, shot=1) if self._bare else design
        if not isinstance(source, Prior):
            assert isinstance(source, PoolSource)
            if same_shot:
                raise DataError(
                    "Tasks share a shot only where a world invents them; found a source of classes. Give one shot "
                    "rather than a range."
                )
            pool = source.pool(split)
            self._classes = draw_from(pool, self._drawn, tasks=tasks)
            most = fixed_tasks(source, split, design)
            self._sampled = most is not None
            if most is not None and tasks * length > most:
                raise DataError(
                    f"There are {most} fixed tasks of shot {span(design.shot)[1]}; found {tasks * length} to be drawn."
                )
            self._varied = source.augment if augment else None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Episode:
        generator = self._generator(index)
        if isinstance(self.source, Prior):
            episode = self._invented(self.source, generator)
        else:
            drawn = self._tasks(index, generator)
            episode = self._classes.made_of(drawn, generator, self._varied)
        if self._bare:
            support = without_support(episode.support)
            if self.design.unlabelled:
                support = support._replace(mask=episode.support.mask & (support.y == NO_LABEL))
            episode = episode._replace(support=support)
        return project_tasks(episode, self.projected, generator) if self.projected else episode

    def drawn(self, index: int) -> Drawn:
        """What batch ``index`` is made of, where tasks are drawn from a pool."""
        return self._tasks(index, self._generator(index))

    def _tasks(self, index: int, generator: torch.Generator) -> Drawn:
        """What batch ``index`` of a pool is made of."""
        if self._sampled:
            return self._classes.sampled(index * self.tasks, generator)
        return self._classes.drawn(generator)

    def _invented(self, world: Prior, generator: torch.Generator) -> Episode:
        design, shot = self._drawn, 1
        if self.same_shot:
            low, high = span(design.shot)
            shot = int(torch.randint(low, high + 1, (1,), generator=generator))
            design = replace(design, shot=max(1, shot))
        episode = world.draw(self.split, design, tasks=self.tasks, generator=generator)
        return episode if shot else episode._replace(support=without_support(episode.support))

    def _generator(self, index: int) -> torch.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"Batch {index} of {self.length}.")
        return index_generator(self.seed, self.split, index)
