"""Streams: a map from an index to tasks that follow one another and share something hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, check_design, span
from quickstudy.data.draw import Augment, ClassDraw, Drawn, index_generator
from quickstudy.data.source import DataError, Pool, PoolSource, Prior, Split, TaskSource
from quickstudy.episode import Episode, Stream


class GroupStreams:
    """Streams of tasks whose classes are all of one group: one script, one domain, one user, one day.

    The group is drawn once for a stream. No class comes twice before all tasks that the group can fill have been;
    then its classes are dealt anew.

    Args:
        pool: what to draw from; a group of it can fill the design.
        design: the shape of the tasks.
        tasks: streams in a batch.
        positions: tasks in a stream.

    Raises:
        DataError: no group can fill a task, or examples may have several labels.
    """

    def __init__(self, pool: Pool, design: EpisodeDesign, *, tasks: int, positions: int) -> None:
        if pool.many:
            raise DataError(
                "Tasks of a stream have a class for each example, but here an example may have many labels; leave "
                "episode.stream out."
            )
        self._draw = ClassDraw(pool, replace(design, within_group=True), tasks=tasks)
        self.tasks, self.positions, self.way = tasks, positions, span(design.way)[1]
        if not self._draw.groups:
            raise DataError(
                f"A stream has classes of one group, and no group has the {self.way} of a task with enough examples; "
                "set a smaller way, or fewer queries."
            )

    def stream(self, generator: torch.Generator, augment: Augment | None = None) -> Stream:
        """A batch of streams, their examples varied by ``augment``."""
        groups = self._draw.groups
        chosen = torch.randint(len(groups), (self.tasks,), generator=generator)
        classes = torch.stack([self._dealt(groups[group], generator) for group in chosen.tolist()])

        def episode(position: int) -> Episode:
            drawn = self._draw.drawn(generator, classes[:, position])
            return self._draw.made_of(drawn, generator, augment)

        return Stream(tuple(map(episode, range(self.positions))))

    def _dealt(self, members: Tensor, generator: torch.Generator) -> Tensor:
        """The classes of each task of a stream, (position, way)."""
        each = len(members) // self.way
        rounds = [
            members[torch.randperm(len(members), generator=generator)[: each * self.way]]
            for _ in range(-(-self.positions // each))
        ]
        return torch.cat(rounds)[: self.positions * self.way].view(self.positions, self.way)


class HabitStreams:
    """Streams of tasks that are labelled by one user, whose hidden habit is to call several known classes the same.

    For a stream, ``way · habit`` classes are dealt into ``way`` labels. In each of its tasks, the support of a label is
    of one of the label's classes, and a query of any of them: who remembers what the label meant before knows more of
    it than the support says. With a habit of 1 it is the labels' order that stays.

    Args:
        pool: what to draw from; it has enough classes.
        design: the shape of the tasks.
        tasks: streams in a batch.
        positions: tasks in a stream.
        habit: classes of a label.
    """

    def __init__(
        self, pool: Pool, design: EpisodeDesign, *, tasks: int, positions: int, habit: int
    ) -> None:
        self._draw = ClassDraw(pool, with_habit(design, habit), tasks=tasks)
        self.design, self.tasks, self.positions, self.habit = design, tasks, positions, habit

    def stream(self, generator: torch.Generator, augment: Augment | None = None) -> Stream:
        """A batch of streams, their examples varied by ``augment``."""
        fewest, way = span(self.design.way)
        classes = self._draw.draw_classes(way * self.habit, generator)
        ways = None
        if fewest < way:
            ways = torch.randint(fewest, way + 1, (self.tasks,), generator=generator)

        def episode(position: int) -> Episode:
            made = self._draw.made_of(self._drawn(classes, ways, generator), generator, augment)
            # A label has no name: what it means is the user's own.
            nameless = made.context.names[..., :0]
            return made._replace(context=made.context._replace(names=nameless))

        return Stream(tuple(map(episode, range(self.positions))))

    def _drawn(self, classes: Tensor, ways: Tensor | None, generator: torch.Generator) -> Drawn:
        """One task of each stream."""
        (fewest, shot), queries = span(self.design.shot), self.design.queries
        way, shots = span(self.design.way)[1], None
        if fewest < shot:
            shots = torch.randint(fewest, shot + 1, (self.tasks, way), generator=generator)
        rows = self._draw.draw_rows(classes, shot, generator)
        rows = rows.view(self.tasks, way, self.habit, shot + queries)
        shown = torch.randint(self.habit, (self.tasks, way, 1), generator=generator)
        asked = torch.randint(self.habit, (self.tasks, way, queries), generator=generator)
        which = torch.cat([shown.expand(-1, -1, shot), asked], dim=2)
        kept = rows.gather(2, which[:, :, None])[:, :, 0]
        named = classes.view(self.tasks, way, self.habit)[..., 0]
        return Drawn(named, kept[..., :shot], kept[..., shot:], ways, shots)


def with_habit(design: EpisodeDesign, habit: int) -> EpisodeDesign:
    """The design of tasks with as many classes as a user's habit deals into labels."""
    return replace(design, way=span(design.way)[1] * habit)


class Streams(torch.utils.data.Dataset[Stream]):
    """A map from an index to a batch of streams.

    ``Streams[i]`` is a pure function of (seed, split, i), as ``Episodes[i]`` is. Worlds draw streams as they say
    themselves (:meth:`quickstudy.data.source.Prior.draw_stream`); pools draw those of :class:`GroupStreams`, or with a
    habit those of :class:`HabitStreams`. Where there is one group only, or none, the streams of a pool share nothing
    but that no class comes twice.

    Args:
        source: what to draw from.
        split: ``train``, ``validation`` or ``test``.
        design: the shape of the tasks.
        positions: tasks in a stream.
        habit: classes that a stream's user calls by one label; 0 for streams of one group.
        tasks: streams in a batch.
        length: number of batches.
        seed: with split and index, decides everything.
        augment: vary the examples of a pool (training only).

    Raises:
        DataError: the source cannot fill the design, or is a world and has no labels for a habit.
    """

    same_shot = False

    def __init__(
        self,
        source: TaskSource,
        split: Split,
        design: EpisodeDesign,
        *,
        positions: int,
        habit: int = 0,
        tasks: int = 1,
        length: int = 1,
        seed: int = 0,
        augment: bool = False,
    ) -> None:
        if positions < 1 or habit < 0:
            raise DataError(
                f"A stream has at least 1 task and a habit of 0 or more classes; found {positions} and {habit}."
            )
        if not span(design.shot)[1]:
            raise DataError(
                "Tasks of a stream tell the next ones of themselves by their support; found a shot of 0, so set 1 or "
                "more. A training can mix in tasks without, by a range: episode.shot=[0,2]."
            )
        self.split, self.length, self.seed = split, length, seed
        self._stream: Callable[[torch.Generator], Stream]
        if isinstance(source, Prior):
            if habit:
                raise DataError(
                    "A habit is how a user labels known classes, and this source invents its tasks; set habit to 0."
                )
            check_design(source, split, design)
            self._stream = partial(self._invented, source, design, tasks, positions)
            return
        assert isinstance(source, PoolSource)
        shape = with_habit(design, habit) if habit else replace(design, within_group=True)
        check_design(source, split, shape)
        pool, varied = source.pool(split), source.augment if augment else None
        draw: GroupStreams | HabitStreams
        if habit:
            draw = HabitStreams(pool, design, tasks=tasks, positions=positions, habit=habit)
        else:
            draw = GroupStreams(pool, design, tasks=tasks, positions=positions)
        self._stream = partial(draw.stream, augment=varied)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Stream:
        if not 0 <= index < self.length:
            raise IndexError(f"Batch {index} of {self.length}.")
        return self._stream(index_generator(self.seed, f"{self.split} streams", index))

    def _invented(
        self,
        world: Prior,
        design: EpisodeDesign,
        tasks: int,
        positions: int,
        generator: torch.Generator,
    ) -> Stream:
        return world.draw_stream(
            self.split, design, tasks=tasks, positions=positions, generator=generator
        )
