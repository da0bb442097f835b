"""Tasks of classes, drawn from a pool with array operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.source import DataError, Pool
from quickstudy.episode import (
    NO_LABEL,
    Context,
    Episode,
    Examples,
    Inputs,
    concatenate,
    tree_map,
)

REACH = 1.5
"""Classes that are near one another are drawn from so many times the way."""

Augment = Callable[[Inputs, torch.Generator], Inputs]


def distinct_numbers(rows: int, count: int, below: int, generator: torch.Generator) -> Tensor:
    """Distinct numbers in random order, each row by itself, int64 (row, count), all ``< below``.

    Rows of independent numbers, drawn again while they hold a number twice, are evenly distributed over the rows
    without one; that costs far less than ordering ``below`` random keys when few numbers of many are wanted.

    >>> distinct_numbers(2, 3, 3, torch.Generator().manual_seed(0)).sort().values.tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    if count * count > below:
        keys = torch.rand(rows, below, generator=generator)
        return keys.topk(count, dim=1).indices
    drawn = torch.randint(below, (rows, count), generator=generator)
    while True:
        ordered = drawn.sort(dim=1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero().flatten()
        if not len(twice):
            return drawn
        drawn[twice] = torch.randint(below, (len(twice), count), generator=generator)


class Drawn(NamedTuple):
    """What a batch of tasks from a pool is made of."""

    classes: Tensor
    """int64 (task, way)"""
    support: Tensor
    """int64 (task, way, example), rows of the pool."""
    query: Tensor
    """int64 (task, way, example)"""
    ways: Tensor | None
    """int64 (task,), where ways are a range."""
    shots: Tensor | None
    """int64 (task, way), where shots are a range."""
    asked: Tensor | None = None
    """int64 (task, way), where classes have unlike numbers of queries."""
    unlabelled: Tensor | None = None
    """int64 (task, example), rows of the pool that are shown without a label, -1 for padding; None for none."""

    def rows(self) -> Tensor:
        """Every row of the pool that is read, (row,)."""
        read = [self.support.flatten(), self.query.flatten()]
        if self.unlabelled is not None:
            read.append(self.unlabelled[self.unlabelled >= 0])
        return torch.cat(read)


def existing(classes: Tensor, ways: Tensor | None) -> Tensor:
    """Which of the classes (task, way) that were drawn a task has, bool (task, way)."""
    if ways is None:
        return torch.ones_like(classes, dtype=torch.bool)
    return torch.arange(classes.shape[1]) < ways[:, None]


class ClassDraw:
    """Draws tasks from a pool of classes, a whole batch with array operations.

    Classes without replacement, examples without replacement, one gather. Classes are numbered in the random order in
    which they were drawn, so a label says nothing of its class.

    Args:
        pool: what to draw from; it can fill the design.
        design: the shape of the tasks.
        tasks: tasks in a batch.
    """

    def __init__(self, pool: Pool, design: EpisodeDesign, *, tasks: int) -> None:
        self.pool, self.design, self.tasks = pool, design, tasks
        usable = pool.enough(span(design.shot)[1], design.queries)
        self._largest = int(pool.counts[usable].max())
        self._equal = bool((pool.counts[usable] == self._largest).all())
        self._usable = usable.nonzero().flatten()
        groups = [
            ((pool.groups == group) & usable).nonzero().flatten()
            for group in range(len(pool.group_names))
        ]
        if design.neighbours:
            if not len(pool.vectors):
                raise DataError(
                    f"Found neighbours={design.neighbours}, but nobody has said which classes of this data are near "
                    "one another; leave neighbours out, or train with an encoder of these examples."
                )
            self._directions = F.normalize(pool.vectors[self._usable], dim=1)
        self.groups = [members for members in groups if len(members) >= span(design.way)[1]]

    def draw_classes(self, way: int, generator: torch.Generator) -> Tensor:
        """Distinct classes in random order, (task, way)."""
        if self.design.within_group:
            chosen = torch.randint(len(self.groups), (self.tasks,), generator=generator)
            rows = []
            for group in chosen.tolist():
                members = self.groups[group]
                rows.append(members[torch.randperm(len(members), generator=generator)[:way]])
            return torch.stack(rows)
        drawn = distinct_numbers(self.tasks, way, len(self._usable), generator)
        if self.design.neighbours:
            near = torch.rand(self.tasks, 1, generator=generator) < self.design.neighbours
            drawn = torch.where(near, self._near_one_another(way, generator), drawn)
        return self._usable[drawn]

    def _near_one_another(self, way: int, generator: torch.Generator) -> Tensor:
        """Places of usable classes (task, way), some of those that are nearest to one drawn at random."""
        vectors = self._directions
        first = torch.randint(len(vectors), (self.tasks,), generator=generator)
        reach = min(len(vectors), round(REACH * way))
        nearest = (vectors[first] @ vectors.T).topk(reach, dim=1).indices
        order = torch.rand(self.tasks, reach, generator=generator).argsort(1)[:, :way]
        return nearest.gather(1, order)

    def draw_rows(self, classes: Tensor, shot: int, generator: torch.Generator) -> Tensor:
        """Distinct examples of each class, support and then queries, as rows of the pool (task, way, example)."""
        queries = self.design.queries
        if not self.pool.apart:
            return self._among(classes, self.pool.counts[classes], shot + queries, generator)
        asked = self.pool.asked[classes]
        shown = self.pool.counts[classes] - asked
        support = self._among(classes, shown, shot, generator)
        query = shown[..., None] + self._among(classes, asked, queries, generator)
        return torch.cat([support, query], dim=2)

    def _among(
        self, classes: Tensor, counts: Tensor, each: int, generator: torch.Generator
    ) -> Tensor:
        """Rows of the pool (task, way, each), distinct ones of the first so many examples of each class."""
        keys = torch.rand(*classes.shape, self._largest, generator=generator)
        if not self._equal or self.pool.apart:
            missing = torch.arange(self._largest) >= counts[..., None]
            keys = keys.masked_fill_(missing, -1.0)
        return self.pool.starts[classes][..., None] + keys.topk(each, dim=2).indices

    def draw_sizes(self, generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """The ``ways`` and ``shots`` of :class:`Drawn`."""
        (way_low, way), (shot_low, shot) = span(self.design.way), span(self.design.shot)
        ways = shots = None
        if way_low < way:
            ways = torch.randint(way_low, way + 1, (self.tasks,), generator=generator)
        if shot_low < shot:
            shots = torch.randint(shot_low, shot + 1, (self.tasks, way), generator=generator)
            if not shot_low:
                # Else hardly a task of several classes would be without any example at all.
                bare = torch.randint(shot + 1, (self.tasks, 1), generator=generator) == 0
                shots = shots.masked_fill(bare, 0)
        return ways, shots

    def drawn(self, generator: torch.Generator, classes: Tensor | None = None) -> Drawn:
        """What a batch of tasks is made of: of these classes (task, way), where they are given."""
        way, shot = span(self.design.way)[1], span(self.design.shot)[1]
        ways, shots = self.draw_sizes(generator)
        if classes is None:
            classes = self.draw_classes(way + self.design.distractors, generator)
        classes, beside = classes[:, :way], classes[:, way:]
        rows = self.draw_rows(classes, shot, generator)
        bare = None
        if self.design.unlabelled:
            exists = F.pad(existing(classes, ways), (0, beside.shape[1]), value=True)
            bare = self._others(torch.cat([classes, beside], 1), exists, rows, generator)
        return Drawn(classes, rows[..., :shot], rows[..., shot:], ways, shots, unlabelled=bare)

    def _others(
        self, classes: Tensor, exists: Tensor, rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Rows of the pool (task, example) of classes (task, class) that exist, as many of each as chance has it.

        None of those ``rows`` (task, way, example) that the first classes have given already.
        """
        counts, starts = self.pool.counts[classes], self.pool.starts[classes]
        shown = counts - self.pool.asked[classes] if self.pool.apart else counts
        keys = torch.rand(*classes.shape, self._largest, generator=generator)
        way = rows.shape[1]
        keys[:, :way].scatter_(2, rows - starts[:, :way, None], -1.0)
        there = exists[..., None] & (torch.arange(self._largest) < shown[..., None])
        keys = keys.masked_fill_(~there, -1.0).flatten(1)
        key, place = keys.topk(min(self.design.unlabelled, keys.shape[1]), dim=1)
        found = starts.gather(1, place // self._largest) + place % self._largest
        return found.masked_fill(key < 0, -1)

    def sampled(self, first: int, generator: torch.Generator) -> Drawn:
        """Tasks of the pool's fixed support sets, from number ``first`` on: only the order of the classes is random.

        All queries are asked, or as many of each class as the design has, which are drawn.
        """
        shot = span(self.design.shot)[1]
        chosen = self.pool.samples[shot][first : first + self.tasks]
        tasks, way = chosen.shape[:2]
        classes = torch.rand(tasks, way, generator=generator).argsort(1)
        support = chosen.gather(1, classes[..., None].expand(-1, -1, shot))
        available = self.pool.asked[classes]
        asked = available.clamp(max=self.design.queries)
        query = self._among(classes, available, int(asked.max()), generator)
        query += (self.pool.counts[classes] - available)[..., None]
        # Where a class has fewer, what is beyond is masked.
        query = query.clamp(max=int(self.pool.counts.sum()) - 1)
        return Drawn(classes, support, query, None, None, asked)

    def episode(self, generator: torch.Generator, augment: Augment | None = None) -> Episode:
        """A batch of tasks, its examples varied by ``augment``."""
        return self.made_of(self.drawn(generator), generator, augment)

    def made_of(
        self, drawn: Drawn, generator: torch.Generator, augment: Augment | None = None
    ) -> Episode:
        """The tasks that were drawn, their examples varied by ``augment``."""
        classes, support, query, ways, shots, asked, unlabelled = drawn
        tasks, way = classes.shape
        exists = existing(classes, ways)

        def inputs(rows: Tensor) -> Inputs:
            flat = rows.reshape(-1)
            x = tree_map(lambda tensor: tensor.index_select(0, flat), self.pool.x)
            if augment is not None:
                x = augment(x, generator)
            return tree_map(lambda tensor: tensor.view(tasks, -1, *tensor.shape[1:]), x)

        def examples(rows: Tensor, kept: Tensor | None) -> Examples:
            each = rows.shape[2]
            mask = exists[..., None].expand(tasks, way, each)
            if kept is not None:
                mask = mask & (torch.arange(each) < kept[..., None])
            return Examples(
                x=inputs(rows),
                y=torch.arange(way).repeat_interleave(each).expand(tasks, -1).contiguous(),
                mask=mask.reshape(tasks, -1),
            )

        shown = examples(support, shots)
        if unlabelled is not None:
            none = torch.full_like(unlabelled, NO_LABEL)
            bare = Examples(inputs(unlabelled.clamp(min=0)), none, unlabelled >= 0)
            shown = concatenate(shown, bare)
        return Episode(
            support=shown,
            query=examples(query, asked),
            context=self.context(classes, exists),
        )

    def context(self, classes: Tensor, exists: Tensor) -> Context:
        """What tasks of these classes (task, way) say of themselves."""
        names = self.pool.names.index_select(0, classes.flatten()).unflatten(0, classes.shape)
        return Context(exists, self._description(classes), names)

    def _description(self, classes: Tensor) -> Tensor:
        """What tasks say of themselves, (task, word): of a group where all classes are of one, otherwise nothing."""
        said = self.pool.descriptions
        if not self.design.within_group or not said.shape[1]:
            return torch.zeros(len(classes), 0)
        return said[self.pool.groups[classes[:, 0]]]
