"""Tasks whose examples may have any number of labels, drawn from a pool with array operations."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.data.class_draw import Augment, ClassDraw, Drawn, existing
from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.source import Pool
from quickstudy.episode import Episode, Examples, tree_map


def enough_of_each(has: Tensor, wanted: Tensor) -> Tensor:
    """The examples of a support set in which each label is there so many times, chosen greedily, bool (task, example).

    Label after label, the rarest first, the first examples that have it are added until it is there often enough. So an
    example is taken only if one of its labels was still missing; labels that go with others may be there more often.

    Args:
        has: which examples have which label, in the order in which they may be taken, bool (task, example, label).
        wanted: how many of each label, (task, label).

    >>> has = torch.tensor([[[1, 0], [1, 1], [1, 0], [0, 1]]]).bool()
    >>> enough_of_each(has, torch.tensor([[2, 1]])).tolist()
    [[True, True, False, False]]
    """
    taken = torch.zeros(has.shape[:2], dtype=torch.bool)
    rarest = has.sum(1).argsort(dim=1, stable=True)
    for label in rarest.unbind(1):
        own = has.gather(2, label[:, None, None].expand(-1, has.shape[1], 1))[..., 0]
        missing = wanted.gather(1, label[:, None]) - (own & taken).sum(1, keepdim=True)
        new = own & ~taken
        taken |= new & (new.cumsum(1) <= missing)
    return taken


class LabelDraw:
    """Draws tasks from a pool of examples with any number of labels.

    A task has some labels, and the examples that have one of them at least: of each label as many as the shot says are
    in the support, or more where labels go together (:func:`enough_of_each`), and of all others as many are asked about
    as the design has for the labels of a task together, or as there are. Where the pool has folds, a task has all
    labels, learns from as many whole folds as the shot says, and is asked about all others.

    Hou et al. 2021, Few-shot Learning for Multi-label Intent Detection, sample support sets so. Differs from the paper:
    rare labels come first, and no example is taken out again; labels are numbered in random order.

    Args:
        pool: what to draw from; it can fill the design.
        design: the shape of the tasks.
        tasks: tasks in a batch.
    """

    def __init__(self, pool: Pool, design: EpisodeDesign, *, tasks: int) -> None:
        self.pool, self.design, self.tasks = pool, design, tasks
        self._labels = ClassDraw(pool, design, tasks=tasks)

    def drawn(self, generator: torch.Generator) -> Drawn:
        """What a batch of tasks is made of; support and query have one axis of classes, of length 1."""
        way, shot = span(self.design.way)[1], span(self.design.shot)[1]
        ways, shots = self._labels.draw_sizes(generator)
        labels = self._labels.draw_classes(way, generator)
        exists = existing(labels, ways)
        order = self._order(self.tasks, generator)
        has = self._marks(order, labels) & exists[:, None]
        wanted = torch.full_like(labels, shot) if shots is None else shots
        taken = enough_of_each(has, wanted * exists)
        support, shown = _first(order, taken, way * shot)
        others = has.any(2) & ~taken
        query, asked = _first(order, others, way * self.design.queries)
        return Drawn(labels, support, query, ways, shown, asked)

    def sampled(self, first: int, generator: torch.Generator) -> Drawn:
        """Tasks of the pool's folds, from number ``first`` on: only the order of examples and labels is random."""
        shot, tasks = span(self.design.shot)[1], self.tasks
        labels = torch.rand(tasks, self.pool.classes, generator=generator).argsort(1)
        order = self._order(tasks, generator)
        learned_from = self.pool.folds // shot
        own = learned_from[order] == torch.arange(first, first + tasks)[:, None]
        # All tasks have one shape, whichever are drawn together.
        support, shown = _first(order, own, int(learned_from.bincount().max()))
        query, asked = _first(order, ~own, self.pool.classes * self.design.queries)
        return Drawn(labels, support, query, None, shown, asked)

    def episode(self, generator: torch.Generator, augment: Augment | None = None) -> Episode:
        """A batch of tasks, its examples varied by ``augment``."""
        return self.made_of(self.drawn(generator), generator, augment)

    def made_of(
        self, drawn: Drawn, generator: torch.Generator, augment: Augment | None = None
    ) -> Episode:
        """The tasks that were drawn, their examples varied by ``augment``."""
        exists = existing(drawn.classes, drawn.ways)

        def examples(rows: Tensor, kept: Tensor | None) -> Examples:
            assert kept is not None
            rows = rows[:, 0]
            x = tree_map(lambda tensor: tensor.index_select(0, rows.flatten()), self.pool.x)
            if augment is not None:
                x = augment(x, generator)
            y = self._marks(rows, drawn.classes) & exists[:, None]
            return Examples(
                x=tree_map(lambda tensor: tensor.unflatten(0, rows.shape), x),
                y=y.to(torch.get_default_dtype()),
                mask=torch.arange(rows.shape[1]) < kept,
            )

        return Episode(
            support=examples(drawn.support, drawn.shots),
            query=examples(drawn.query, drawn.asked),
            context=self._labels.context(drawn.classes, exists),
        )

    def _order(self, tasks: int, generator: torch.Generator) -> Tensor:
        """All examples in random order, int64 (task, example)."""
        return torch.rand(tasks, self.pool.examples, generator=generator).argsort(1)

    def _marks(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Which examples (task, example) have which labels (task, label), bool (task, example, label)."""
        which = labels[:, None].expand(-1, rows.shape[1], -1)
        return self.pool.marks[rows].gather(2, which)


def _first(order: Tensor, chosen: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first chosen examples of an order (task, example), (task, 1, example), and how many they are, (task, 1)."""
    place = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    count = chosen.sum(1, keepdim=True).clamp(max=most)
    return order.gather(1, place)[:, None], count
