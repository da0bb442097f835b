"""Tasks from few examples and unequal numbers of them, as corrections leave them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.draw import Augment
from quickstudy.data.source import DataError, Pool, Prior, Split
from quickstudy.episode import Context, Episode, Examples, Inputs, leaves, tree_map


class CorrectedTasks(Prior):
    """Tasks whose classes come from one group of a small pool, however few examples each has.

    Where :class:`quickstudy.data.draw.ClassDraw` leaves out a class or a group that cannot fill the design, these tasks
    are as large as the group allows: of a class with n examples, at most the shot and at most n - 1 are support, and of
    the others at most ``design.queries`` are queries. A group is drawn as often as it has classes.

    Args:
        pools: of each split; the groups are tasks, within which classes are told apart. Where numbers are predicted,
            each class is a task.
        kind: of the examples.
        augment: varies training examples; a class with one example is then support and query in two variations.
        targets: of each split, the numbers to predict, float (example, values), in the order of the pool.

    Raises:
        DataError: a split holds no task.
    """

    grouped = True

    def __init__(
        self,
        pools: Mapping[Split, Pool],
        *,
        kind: Literal["image", "text", "vector", "several"],
        augment: Augment | None = None,
        targets: Mapping[Split, Tensor] | None = None,
    ) -> None:
        self.kind, self.augment = kind, augment  # type: ignore[misc]
        self.values = 0 if targets is None else next(iter(targets.values())).shape[1]
        example = leaves(next(iter(pools.values())).x)[0][0]
        self.inputs = 0 if kind == "text" else example.numel()
        self.drawn: dict[Split, _Part] = {}
        for split, pool in pools.items():
            varied = split == "train" and augment is not None and targets is None
            goals = None if targets is None else targets[split]
            self.drawn[split] = _Part.of(pool, goals, least=1 if varied else 2)

    def within(self, split: Split, design: EpisodeDesign) -> EpisodeDesign:
        """The design without what no task of a split can fill, so that nothing more is padded than must be."""
        part = self.drawn[split]
        most, (low, high) = int(part.pool.counts.max()), span(design.way)
        if not self.values:
            largest = min(high, int(part.members.sum(1).max()))
            low, high = min(low, largest), largest
        fewest, shot = span(design.shot)
        shot = min(shot, max(1, most - 1))
        queries = min(design.queries, max(1, most - 1))
        return EpisodeDesign((low, high), (min(fewest, shot), shot), queries)

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        """A batch of tasks, padded to the design: x (task, example, …), y (task, example[, values])."""
        return self.asked(split, design, tasks=tasks, generator=generator)[0]

    def asked(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> tuple[Episode, Tensor]:
        """What :meth:`draw` gives, and which rows of the pool its queries are, int64 (task, query)."""
        part = self.drawn[split]
        (fewest_ways, way), (fewest_shots, shot) = span(design.way), span(design.shot)
        if self.values:
            fewest_ways = way = 1
        ways = torch.randint(fewest_ways, way + 1, (tasks, 1), generator=generator)
        shots = torch.randint(fewest_shots, shot + 1, (tasks, way), generator=generator)
        classes, exists = part.draw_classes(tasks, way, generator)
        exists = exists & (torch.arange(way) < ways)
        counts = part.pool.counts[classes]
        order = part.draw_order(counts, generator)
        supports = torch.minimum(shots, (counts - 1).clamp(min=1))

        def examples(first: Tensor, most: int, kept: Tensor) -> tuple[Examples, Tensor]:
            place = first[..., None] + torch.arange(most)
            place = torch.minimum(place, (counts - 1)[..., None])  # what is beyond is masked
            rows = (part.pool.starts[classes][..., None] + order.gather(2, place)).flatten()
            x: Inputs = tree_map(lambda leaf: leaf[rows], part.pool.x)
            if self.augment is not None and split == "train":
                x = self.augment(x, generator)
            y = torch.arange(way).repeat_interleave(most).expand(tasks, -1).contiguous()
            if part.targets is not None:
                y = part.targets[rows].unflatten(0, (tasks, most))
            mask = exists[..., None] & (torch.arange(most) < kept[..., None])
            x = tree_map(lambda leaf: leaf.unflatten(0, (tasks, way * most)), x)
            return Examples(x, y, mask.flatten(1)), rows.unflatten(0, (tasks, way * most))

        if self.values:
            known = torch.ones(tasks, self.values, dtype=torch.bool)
            names = torch.zeros(tasks, self.values, 0, dtype=torch.int64)
        else:
            known, names = exists, part.pool.names[classes]
        support, _ = examples(torch.zeros_like(supports), shot, supports)
        query, rows = examples(supports, design.queries, (counts - supports).clamp(min=1))
        return Episode(support, query, Context(known, torch.zeros(tasks, 0), names)), rows


class _Part(NamedTuple):
    """A pool and what of it can be drawn."""

    pool: Pool
    targets: Tensor | None
    members: Tensor
    """bool (group, class), of groups with a task."""

    @classmethod
    def of(cls, pool: Pool, targets: Tensor | None, *, least: int) -> _Part:
        usable = pool.counts >= least
        if targets is None:
            members = (pool.groups == torch.arange(len(pool.group_names))[:, None]) & usable
            members = members[members.sum(1) >= 2]
        else:
            members = torch.eye(pool.classes, dtype=torch.bool)[usable]
        if not len(members):
            raise DataError(
                f"{len(leaves(pool.x)[0])} corrected examples of {pool.classes} classes hold no task: expected two "
                f"classes of one task with at least {least} examples each. Collect more."
            )
        return cls(pool, targets, members)

    def draw_classes(
        self, tasks: int, way: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Distinct classes of one group in random order, (task, way), and which of them exist."""
        sizes = self.members.sum(1)
        group = torch.multinomial(sizes.float(), tasks, replacement=True, generator=generator)
        keys = torch.rand(tasks, self.members.shape[1], generator=generator)
        best = keys.masked_fill_(~self.members[group], -1.0).topk(min(way, keys.shape[1]), dim=1)
        room = (0, way - best.indices.shape[1])
        return F.pad(best.indices, room), F.pad(best.values, room, value=-1.0) >= 0

    def draw_order(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """The examples of each class in random order, (task, way, largest); those that exist come first."""
        largest = int(self.pool.counts.max())
        keys = torch.rand(*counts.shape, largest, generator=generator)
        missing = torch.arange(largest) >= counts[..., None]
        return keys.masked_fill_(missing, -1.0).argsort(2, descending=True)
