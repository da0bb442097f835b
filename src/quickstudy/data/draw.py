"""Episodes drawn from a pool: the shape of the tasks, and a map from an index to a batch of them.

``Episodes[i]`` is a pure function of (seed, split, i): a run resumes at step n, each rank takes every W-th index, two
learners meet the same tasks, and one integer brings a bad episode back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.data.source import DataError, Pool, Split, TaskSource
from quickstudy.episode import Context, Episode, Examples, tree_map


@dataclass(frozen=True)
class EpisodeDesign:
    """The shape of the episodes: so many classes, so many support and query examples of each.

    Args:
        way: classes of a task, or (fewest, most).
        shot: support examples of a class, or (fewest, most).
        queries: query examples of a class.
        within_group: all classes of a task come from one group (one alphabet, one domain).
    """

    way: int | tuple[int, int] = 5
    shot: int | tuple[int, int] = 1
    queries: int = 15
    within_group: bool = False

    def __post_init__(self) -> None:
        for name, least in (("way", 2), ("shot", 1), ("queries", 1)):
            low, high = span(getattr(self, name))
            if not least <= low <= high:
                raise DataError(
                    f"{name} must be at least {least} (and a range must ascend); found {getattr(self, name)}."
                )


def span(value: int | tuple[int, int] | Sequence[int]) -> tuple[int, int]:
    """(fewest, most) of a number or a range.

    >>> span(5), span((2, 4))
    ((5, 5), (2, 4))
    """
    if isinstance(value, int):
        return value, value
    low, high = value
    return int(low), int(high)


def check_design(pool: Pool, design: EpisodeDesign) -> None:
    """Check that a pool can fill the design.

    Raises:
        DataError: too few classes, or a class with too few examples; says which, how many, and the
            largest way and shot that are possible.
    """
    way, shot = span(design.way)[1], span(design.shot)[1]
    need = shot + design.queries
    enough = pool.counts >= need
    largest_shot = int(pool.counts.min()) - design.queries if pool.classes else 0
    sizes = [int((pool.groups[enough] == g).sum()) for g in range(len(pool.group_names))]
    available = max(sizes, default=0) if design.within_group else int(enough.sum())
    if available >= way:
        return
    if pool.classes < 2:
        raise DataError(
            f"Found {pool.classes} class; a task needs at least 2. Add examples of another class."
        )
    where = "in its largest group " if design.within_group else ""
    poor = (~enough).nonzero().flatten()
    detail = ""
    if len(poor):
        worst = int(pool.counts.argmin())
        detail = (
            f" {len(poor)} of {pool.classes} classes have fewer than {need} examples; the smallest is "
            f"{pool.class_names[worst]!r} with {int(pool.counts[worst])}."
        )
    most = max((int((pool.groups == g).sum()) for g in range(len(pool.group_names))), default=0)
    largest_way = most if design.within_group else pool.classes
    shots = (
        f"the largest shot {largest_shot} with {design.queries} queries a class"
        if largest_shot > 0
        else (f"no shot is possible with {design.queries} queries a class")
    )
    raise DataError(
        f"Episodes of {way} classes with {shot} support and {design.queries} query examples each need {way} classes of "
        f"at least {need} examples; found {available} {where}.".replace(" .", ".")
        + detail
        + f" Over all classes, the largest way is {largest_way} and {shots}."
    )


def fit_design(
    pool: Pool,
    *,
    way: int | tuple[int, int] | None,
    shot: int | tuple[int, int],
    queries: int | None,
    within_group: bool,
    most_way: int,
    examples: int,
    most_queries: int | None = None,
) -> EpisodeDesign:
    """A design that a pool can fill, where way or queries are left open.

    An open way is all classes with enough examples, of the largest group if tasks stay within one, at most
    ``most_way``. Open queries are ``most_queries``, or what brings a task to about ``examples`` examples, as far as the
    smallest class allows.

    >>> pool = Pool(torch.zeros(7, 2), torch.tensor([3, 4]), ["a", "b"], torch.zeros(2).long(), ["all"])
    >>> fit_design(pool, way=None, shot=1, queries=None, within_group=False, most_way=9, examples=99)
    EpisodeDesign(way=2, shot=1, queries=2, within_group=False)
    """
    largest = span(shot)[1]
    enough = pool.counts >= largest + (queries or 1)
    if way is None:
        available = int(enough.sum())
        if within_group and available:
            available = int(pool.groups[enough].bincount().max())
        way = min(most_way, max(2, available))
    if queries is None:
        left = int(pool.counts[enough].min()) - largest if bool(enough.any()) else 1
        wanted = examples // span(way)[1] - largest if most_queries is None else most_queries
        queries = max(1, min(left, wanted))
    return EpisodeDesign(way, shot, queries, within_group)


def index_generator(seed: int, split: str, index: int) -> torch.Generator:
    """The random generator of one index of one split: the same in every process and on every run."""
    key = hashlib.blake2b(f"{seed} {split} {index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))


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


class Episodes(torch.utils.data.Dataset[Episode]):
    """A map from an index to a batch of tasks.

    A whole batch is drawn with array operations: classes without replacement, examples without
    replacement, one gather. Classes are numbered in the random order in which they were drawn, so a
    label says nothing of its class.

    Args:
        source: what to draw from.
        split: ``train``, ``validation`` or ``test``.
        design: the shape of the tasks.
        tasks: tasks in a batch.
        length: number of batches.
        seed: with split and index, decides everything.
        augment: vary the examples (training only).

    Raises:
        DataError: the pool cannot fill the design.
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
    ) -> None:
        self.source, self.split, self.design = source, split, design
        self.tasks, self.length, self.seed, self.augmented = tasks, length, seed, augment
        self.pool = source.pool(split)
        check_design(self.pool, design)
        need = span(design.shot)[1] + design.queries
        usable = self.pool.counts >= need
        self._usable = usable.nonzero().flatten()
        self._largest = int(self.pool.counts[usable].max())
        self._equal = bool((self.pool.counts[usable] == self._largest).all())
        groups = [
            ((self.pool.groups == group) & usable).nonzero().flatten()
            for group in range(len(self.pool.group_names))
        ]
        self._groups = [members for members in groups if len(members) >= span(design.way)[1]]

    def __len__(self) -> int:
        return self.length

    def _draw_classes(self, way: int, generator: torch.Generator) -> Tensor:
        """Distinct classes in random order, (task, way)."""
        if self.design.within_group:
            chosen = torch.randint(len(self._groups), (self.tasks,), generator=generator)
            rows = []
            for group in chosen.tolist():
                members = self._groups[group]
                rows.append(members[torch.randperm(len(members), generator=generator)[:way]])
            return torch.stack(rows)
        return self._usable[distinct_numbers(self.tasks, way, len(self._usable), generator)]

    def _draw_rows(self, classes: Tensor, each: int, generator: torch.Generator) -> Tensor:
        """Distinct examples of each class, as rows of the pool, (task, way, each)."""
        keys = torch.rand(*classes.shape, self._largest, generator=generator)
        if not self._equal:
            missing = torch.arange(self._largest) >= self.pool.counts[classes][..., None]
            keys = keys.masked_fill_(missing, -1.0)
        return self.pool.starts[classes][..., None] + keys.topk(each, dim=2).indices

    def rows(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Which classes (task, way) and which rows of the pool (task, way, example) batch ``index`` is made of.

        Returns:
            Classes, support rows and query rows.
        """
        _, classes, rows, _, _, shot = self._draw(index)
        return classes, rows[..., :shot], rows[..., shot:]

    def _draw(
        self, index: int
    ) -> tuple[torch.Generator, Tensor, Tensor, Tensor | None, Tensor | None, int]:
        if not 0 <= index < self.length:
            raise IndexError(f"Batch {index} of {self.length}.")
        generator = index_generator(self.seed, self.split, index)
        (way_low, way), (shot_low, shot) = span(self.design.way), span(self.design.shot)
        ways = shots = None
        if way_low < way:
            ways = torch.randint(way_low, way + 1, (self.tasks,), generator=generator)
        if shot_low < shot:
            shots = torch.randint(shot_low, shot + 1, (self.tasks, way), generator=generator)
        classes = self._draw_classes(way, generator)
        rows = self._draw_rows(classes, shot + self.design.queries, generator)
        return generator, classes, rows, ways, shots, shot

    def __getitem__(self, index: int) -> Episode:
        generator, classes, rows, ways, shots, shot = self._draw(index)
        tasks, way = classes.shape
        exists = torch.ones(tasks, way, dtype=torch.bool)
        if ways is not None:
            exists = torch.arange(way) < ways[:, None]

        def examples(rows: Tensor, kept: Tensor | None) -> Examples:
            each = rows.shape[2]
            flat = rows.reshape(-1)
            x = tree_map(lambda tensor: tensor.index_select(0, flat), self.pool.x)
            if self.augmented:
                x = self.source.augment(x, generator)
            mask = exists[..., None].expand(tasks, way, each)
            if kept is not None:
                mask = mask & (torch.arange(each) < kept[..., None])
            return Examples(
                x=tree_map(lambda tensor: tensor.view(tasks, way * each, *tensor.shape[1:]), x),
                y=torch.arange(way).repeat_interleave(each).expand(tasks, -1).contiguous(),
                mask=mask.reshape(tasks, -1),
            )

        return Episode(
            support=examples(rows[..., :shot], shots),
            query=examples(rows[..., shot:], None),
            context=Context(
                classes=exists, description=torch.zeros(tasks, 0), names=self.pool.names[classes]
            ),
        )
