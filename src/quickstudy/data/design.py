"""The shape of tasks: said by a person, checked against a source, or fitted to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.data.known import ClassWorld
from quickstudy.data.source import DataError, Pool, PoolSource, Prior, Split, TaskSource

INVENTED_WAY = 10
"""Most classes of an invented task where the way is left open."""


@dataclass(frozen=True)
class EpisodeDesign:
    """The shape of the episodes: so many classes, so many support and query examples of each.

    Args:
        way: classes of a task, or (fewest, most); of a world, the numbers that a task predicts.
        shot: support examples of a class, or (fewest, most); of a world, of the task. 0 for learners that are told what
            a task is about, such as the names of its classes. Of data in folds, folds.
        queries: query examples of a class; of a world, of the task. Where examples may have several labels, so many for
            each label are asked about together.
        within_group: all classes of a task come from one group (one alphabet, one domain).
        unlabelled: examples of the task's classes without a label that are in its support as well, drawn from those
            that are left, all classes together; fewer where not so many are left.
        distractors: classes that the task does not have, whose examples are among those without a label.
        neighbours: chance of a task to be of classes that are near one another, where the pool has vectors of its
            classes.
    """

    way: int | tuple[int, int] = 5
    shot: int | tuple[int, int] = 1
    queries: int = 15
    within_group: bool = False
    unlabelled: int = 0
    distractors: int = 0
    neighbours: float = 0.0

    def __post_init__(self) -> None:
        least_of = {"way": 1, "shot": 0, "queries": 1, "unlabelled": 0, "distractors": 0}
        for name, least in least_of.items():
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


def sized(value: int | Sequence[int], noun: str) -> str:
    """A number or a range of a design, as it is said of tasks.

    >>> sized(5, "way"), sized((2, 4), "way"), sized([3, 3], "shot")
    ('5-way', '2- to 4-way', '3-shot')
    """
    low, high = span(value)
    return f"{low}-{noun}" if low == high else f"{low}- to {high}-{noun}"


def check_design(source: TaskSource, split: Split, design: EpisodeDesign) -> None:
    """Check that a source can fill the design.

    Raises:
        DataError: too few classes, or a class with too few examples; says which, how many, and the largest way and shot
            that are possible. Or a world whose tasks predict another number of values.
    """
    for part in source.sources.values():
        check_design(part, split, design)
    if source.sources:
        return
    pool = source.pool(split) if isinstance(source, PoolSource) else None
    if design.unlabelled and (pool is None or pool.many or pool.samples):
        raise DataError(
            f"Found {design.unlabelled} examples without a label, but these can only be drawn where each example of "
            "the data is of one class, and support sets are drawn too; leave unlabelled out."
        )
    if isinstance(source, PoolSource):
        _check_pool(source.pool(split), design)
        return
    assert isinstance(source, Prior)
    if isinstance(source, ClassWorld):
        _check_known(source, design)
        return
    if not source.values:
        if span(design.way)[0] < 2 or (design.within_group and not source.grouped):
            found = "tasks within a group" if design.within_group else f"a way of {design.way}"
            raise DataError(
                f"Found {found}, but tasks of this source have at least 2 classes and no groups; set way to 2 or more."
            )
        return
    if span(design.way) != (source.values, source.values) or design.within_group:
        found = "tasks within a group" if design.within_group else f"a way of {design.way}"
        raise DataError(
            f"Found {found}, but the way of this source is the number of values that a task predicts, {source.values}, "
            "and it has no groups; leave both out."
        )


def _check_known(world: ClassWorld, design: EpisodeDesign) -> None:
    found = (span(design.way), span(design.shot)[0])
    if found[0] != (world.way, world.way) or found[1] < world.fewest_shot or design.within_group:
        inside = " within a group" if design.within_group else ""
        raise DataError(
            f"Found {sized(design.way, 'way')} {sized(design.shot, 'shot')} tasks{inside}, but tasks of this source "
            f"have {world.way} classes, at least {world.fewest_shot} support examples, and no groups; leave way out "
            f"and set shot to {world.fewest_shot} or more."
        )


def fixed_tasks(source: TaskSource, split: Split, design: EpisodeDesign) -> int | None:
    """How many tasks there are of a data set that comes with its support sets; ``None`` where they are drawn."""
    if not isinstance(source, PoolSource):
        return None
    pool, shot = source.pool(split), span(design.shot)[1]
    if len(pool.folds):
        return folds_in(pool) // shot
    return len(pool.samples[shot]) if pool.samples else None


def folds_in(pool: Pool) -> int:
    """The number of folds, 0 where there are none."""
    return int(pool.folds.max()) + 1 if len(pool.folds) else 0


def _check_folds(pool: Pool, design: EpisodeDesign) -> None:
    (low, shot), folds = span(design.shot), folds_in(pool)
    right = low == shot and shot and shot < folds and folds % shot == 0
    if not right or span(design.way) != (pool.classes,) * 2:
        shots = ", ".join(str(n) for n in range(1, folds) if folds % n == 0)
        raise DataError(
            f"Found {sized(design.way, 'way')} {sized(design.shot, 'shot')} tasks, but tasks of folds learn all "
            f"{pool.classes} labels from some of {folds} folds; leave way out, and set shot to how many: {shots}."
        )


def _check_samples(pool: Pool, design: EpisodeDesign) -> None:
    low, shot = span(design.shot)
    if low != shot or shot not in pool.samples or span(design.way) != (pool.classes,) * 2:
        shots = ", ".join(map(str, sorted(pool.samples)))
        raise DataError(
            f"Found {sized(design.way, 'way')} {sized(design.shot, 'shot')} tasks, but this data set comes with its "
            f"support sets: {pool.classes} classes with {shots} examples each; leave way out and choose one of these "
            "shots."
        )


def _check_pool(pool: Pool, design: EpisodeDesign) -> None:
    if len(pool.folds):
        _check_folds(pool, design)
        return
    if pool.samples:
        _check_samples(pool, design)
        return
    if span(design.way)[0] < 2:
        raise DataError(f"A task needs at least 2 classes; found a way of {design.way}.")
    way, shot = span(design.way)[1] + design.distractors, span(design.shot)[1]
    need = max(1, shot) + design.queries
    enough = pool.enough(max(1, shot), design.queries)
    largest_shot = int(pool.most_shot(design.queries).min()) if pool.classes else 0
    groups = pool.groups[enough]
    sizes = [int((groups == g).sum()) for g in range(len(pool.group_names))]
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
    source: TaskSource,
    split: Split,
    *,
    way: int | tuple[int, int] | None,
    shot: int | tuple[int, int],
    queries: int | None,
    within_group: bool,
    most_way: int,
    examples: int,
    most_queries: int | None = None,
    unlabelled: int = 0,
    distractors: int = 0,
) -> EpisodeDesign:
    """A design that a source can fill, where way or queries are left open.

    The way of a world is how many values its tasks predict. An open way of a pool is all classes with enough examples,
    of the largest group if tasks stay within one, at most ``most_way``. Open queries are ``most_queries``, or what
    brings a task to about ``examples`` examples, as far as the smallest class allows. Where support and queries lie
    apart, an open way is all classes; where support sets are fixed, or whole folds, open queries are all of them too. A
    mixture has what all of its sources can fill.

    >>> from quickstudy.data.synthetic import Sinusoid
    >>> openly = {"way": None, "queries": None, "within_group": False, "most_way": 20}
    >>> fit_design(Sinusoid(), "train", shot=5, examples=99, **openly)
    EpisodeDesign(way=1, shot=5, queries=94, within_group=False, unlabelled=0, distractors=0, neighbours=0.0)
    """

    def shaped(own_way: int | tuple[int, int], asked: int) -> EpisodeDesign:
        return EpisodeDesign(own_way, shot, asked, within_group, unlabelled, distractors)

    if source.sources:
        designs = [
            fit_design(
                part,
                split,
                way=way,
                shot=shot,
                queries=queries,
                within_group=within_group,
                most_way=most_way,
                examples=examples,
                most_queries=most_queries,
                unlabelled=unlabelled,
                distractors=distractors,
            )
            for part in source.sources.values()
        ]
        fewest = min(designs, key=lambda design: span(design.way)[1]).way
        least = min(design.queries for design in designs)
        return shaped(fewest, least)
    largest = max(1, span(shot)[1])
    if isinstance(source, Prior):
        wanted = examples - largest if most_queries is None else most_queries
        known = source.way if isinstance(source, ClassWorld) else source.values
        own = way or known or (2, min(most_way, INVENTED_WAY))
        return shaped(own, queries or max(1, wanted))
    assert isinstance(source, PoolSource)
    pool = source.pool(split)
    if pool.samples:
        most = int(pool.asked.max())
        return shaped(way or pool.classes, queries or most)
    if len(pool.folds):
        most = math.ceil(pool.examples / pool.classes)
        return shaped(way or pool.classes, queries or most)
    enough = pool.enough(largest, queries or 1)
    if way is None:
        available = int(enough.sum())
        if within_group and available:
            available = int(pool.groups[enough].bincount().max())
        available -= distractors
        # Where queries lie apart, a task has all classes; or else it would not be comparable with what is published.
        way = max(2, available) if pool.apart else min(most_way, max(2, available))
    if queries is None:
        left = int(pool.most_queries(largest)[enough].min()) if bool(enough.any()) else 1
        wanted = examples // span(way)[1] - largest if most_queries is None else most_queries
        queries = max(1, min(left, wanted))
    return shaped(way, queries)
