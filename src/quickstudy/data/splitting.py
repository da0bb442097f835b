"""Classes into splits, and the examples of a split into a pool."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from quickstudy.cache import digest
from quickstudy.data.source import SPLITS, DataError, DataNote, Pool, Split
from quickstudy.episode import Inputs, tree_map

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
"""What people call the splits."""

Conflicts = Literal["error", "drop"]

SHOWN = 40
"""Letters of a text that a message shows."""

LEAST = 2
"""Fewest classes that a split gets: a task needs two."""


@dataclass(frozen=True)
class LabelledClass:
    """One class of a data set.

    Args:
        name: its name, unlike every other's.
        group: its alphabet, domain or script; empty when there are no groups.
        rows: its examples.
        asked: how many of the last ones are for queries only, the others being for support only; ``None`` where any
            may be either.
    """

    name: str
    group: str
    rows: Sequence[int]
    asked: int | None = None


def check_fractions(validation: float, test: float) -> None:
    """Check the shares of the classes that are held out.

    Raises:
        DataError: a share is below 0 or above 1.
    """
    for name, value in (("validation", validation), ("test", test)):
        if not 0 <= value <= 1:
            raise DataError(f"{name} is a share of the classes, from 0 to 1; found {value}.")


def _held_out(count: int, share: float, least: int) -> int:
    """How many of ``count`` to hold out: the share, rounded, but at least ``least`` unless the share is zero."""
    return min(count, max(least, round(count * share))) if share else 0


def assign(
    names: Sequence[str], *, validation: float, test: float, seed: int, least: int
) -> list[Split]:
    """A split for each name, the same whenever the names and the seed are the same.

    Names are ordered by a hash, so that a new name moves few of the others.

    Args:
        names: of the classes or groups.
        validation: share for validation; of what the test split leaves at most.
        test: share for testing.
        seed: another seed, another assignment.
        least: fewest names in a split whose share is not zero, where there are enough.

    >>> assign(["a", "b", "c", "d"], validation=0.25, test=0.5, seed=0, least=1)
    ['test', 'train', 'validation', 'test']
    """
    order = sorted(range(len(names)), key=lambda i: digest([seed, names[i]]))
    for_test = _held_out(len(names), test, least)
    for_validation = min(_held_out(len(names), validation, least), len(names) - for_test)
    splits: list[Split] = ["train"] * len(names)
    for place, i in enumerate(order[: for_test + for_validation]):
        splits[i] = "test" if place < for_test else "validation"
    return splits


def shared_out(
    parts: Mapping[str, list[LabelledClass]], *, validation: float, test: float, seed: int
) -> dict[Split, list[LabelledClass]]:
    """The classes of each split, as they say themselves, or shared out where they say none (``""``)."""
    if "" in parts:
        return split_classes(parts[""], validation=validation, test=test, seed=seed)
    return {split: parts.get(split, []) for split in SPLITS}


def split_classes(
    classes: Sequence[LabelledClass], *, validation: float, test: float, seed: int
) -> dict[Split, list[LabelledClass]]:
    """Whole groups into splits where there are at least three groups, otherwise whole classes."""
    check_fractions(validation, test)
    groups = sorted({one.group for one in classes})
    by_group = len(groups) >= len(SPLITS)
    keys = groups if by_group else sorted(one.name for one in classes)
    chosen = assign(
        keys, validation=validation, test=test, seed=seed, least=1 if by_group else LEAST
    )
    split_of = dict(zip(keys, chosen, strict=True))
    parts: dict[Split, list[LabelledClass]] = {split: [] for split in SPLITS}
    for one in classes:
        parts[split_of[one.group if by_group else one.name]].append(one)
    return parts


def check_split(split: str) -> Split:
    """The split of that name.

    Raises:
        DataError: there is none.
    """
    if split not in get_args(Split):
        raise DataError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    return SPLIT_NAMES[split]


def pool_of(
    x: Inputs,
    classes: Sequence[LabelledClass],
    *,
    split: Split,
    where: str,
    names: Tensor | None = None,
) -> Pool:
    """The examples of some classes in contiguous memory, class by class.

    Args:
        x: tree of tensors (example, …), all examples of the source.
        classes: those of the split.
        split: for the message.
        where: the file or folder, for the message.
        names: int64 (class, word), tokens of the names.

    Raises:
        DataError: the split has no classes.
    """
    _check_any(classes, split=split, where=where)
    groups = sorted({one.group for one in classes})
    number = {group: i for i, group in enumerate(groups)}
    rows = torch.tensor([row for one in classes for row in one.rows])
    asked = [one.asked for one in classes if one.asked is not None]
    return Pool(
        x=tree_map(lambda tensor: tensor[rows], x),
        counts=torch.tensor([len(one.rows) for one in classes]),
        class_names=[one.name for one in classes],
        groups=torch.tensor([number[one.group] for one in classes]),
        group_names=groups,
        names=torch.zeros(len(classes), 0, dtype=torch.int64) if names is None else names,
        asked=torch.tensor(asked, dtype=torch.int64),
    )


def pool_of_labels(
    x: Inputs,
    labels: Sequence[LabelledClass],
    *,
    rows: Sequence[int],
    split: Split,
    where: str,
    names: Tensor,
) -> Pool:
    """The examples of a split, each of which may have any number of the labels; arguments as those of :func:`pool_of`.

    Args:
        rows: the examples, those without a label included.

    Raises:
        DataError: the split has no labels.
    """
    _check_any(labels, split=split, where=where)
    place = {row: i for i, row in enumerate(rows)}
    marks = torch.zeros(len(rows), len(labels), dtype=torch.bool)
    for number, one in enumerate(labels):
        marks[[place[row] for row in one.rows], number] = True
    chosen = torch.tensor(rows)
    return Pool(
        x=tree_map(lambda tensor: tensor[chosen], x),
        counts=marks.sum(0),
        class_names=[one.name for one in labels],
        groups=torch.zeros(len(labels), dtype=torch.int64),
        group_names=[""],
        names=names,
        marks=marks,
    )


def _check_any(classes: Sequence[LabelledClass], *, split: Split, where: str) -> None:
    if not classes:
        raise DataError(
            f"The {split} split of {where} is empty; give it a share of the classes (validation=0.2,test=0.2), "
            "add classes, or name another split."
        )


def _repeats(
    marks: Sequence[bytes | str], owners: Sequence[str]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs (first, later) of equal examples: of one class, and of two."""
    first: dict[bytes | str, int] = {}
    repeated: list[tuple[int, int]] = []
    clashes: list[tuple[int, int]] = []
    for i, mark in enumerate(marks):
        earlier = first.setdefault(mark, i)
        if earlier != i:
            (repeated if owners[earlier] == owners[i] else clashes).append((earlier, i))
    return repeated, clashes


def check_conflicts(
    marks: Sequence[bytes | str],
    owners: Sequence[str],
    places: Sequence[str],
    *,
    what: str,
    remedy: str = "keep the right one",
) -> None:
    """Check that no example is given to two classes.

    Args:
        marks: equal for equal examples.
        owners: the class of each example.
        places: where each stands, for the message.
        what: one example, for the message.
        remedy: what to do, for the message.

    Raises:
        DataError: an example is given to two classes; says where.
    """
    _, clashes = _repeats(marks, owners)
    if clashes:
        raise DataError(f"The same {_clash(clashes, marks, owners, places, what)}; {remedy}.")


def note_conflicts(
    marks: Sequence[bytes | str], owners: Sequence[str], places: Sequence[str], *, what: str
) -> None:
    """Say which examples are given to two classes, and that they stay.

    The arguments are those of :func:`check_conflicts`.
    """
    _, clashes = _repeats(marks, owners)
    if clashes:
        warnings.warn(
            f"The same {_clash(clashes, marks, owners, places, what)}. Both are kept; correct one where that is not "
            "meant.",
            DataNote,
            stacklevel=3,
        )


def without_copies(
    marks: Sequence[bytes | str], owners: Sequence[str], places: Sequence[str], *, what: str
) -> list[int]:
    """The examples to keep: of those that are given more than once in a class the first, with a note.

    The arguments are those of :func:`check_conflicts`.
    """
    twice = _repeats(marks, owners)[0]
    if twice:
        a, b = twice[0]
        more = f" ({len(twice) - 1} more such)" if len(twice) > 1 else ""
        warnings.warn(
            f"The {what} at {places[b]} is the same as that at {places[a]}{more}, and counts once.",
            DataNote,
            stacklevel=4,
        )
    later = {b for _, b in twice}
    return [i for i in range(len(marks)) if i not in later]


def _clash(
    clashes: Sequence[tuple[int, int]],
    marks: Sequence[bytes | str],
    owners: Sequence[str],
    places: Sequence[str],
    what: str,
) -> str:
    """The first example of two classes, and how many more there are."""
    a, b = clashes[0]
    mark = marks[a]
    shown = f" {shortened(mark)!r}" if isinstance(mark, str) else ""
    more = f" ({len(clashes) - 1} more such)" if len(clashes) > 1 else ""
    return (
        f"{what}{shown} has two classes: {owners[a]!r} at {places[a]} and {owners[b]!r} at "
        f"{places[b]}{more}"
    )


def shortened(text: str) -> str:
    """How a text begins, for a message.

    >>> shortened("a" * 50)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…'
    """
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def distinct(
    marks: Sequence[bytes | str],
    owners: Sequence[str],
    places: Sequence[str],
    *,
    what: str,
    conflicts: Conflicts,
) -> list[int]:
    """The examples to keep: the first of each that is given more than once in its class, with a note.

    An example given twice could be drawn into the support and the query of one task, which would be asking for
    what has just been told. The arguments are those of :func:`check_conflicts`.

    Args:
        conflicts: what becomes of an example that is given to two classes: an error, or left out of both.

    Raises:
        DataError: an example is given to two classes.
    """
    repeated, clashes = _repeats(marks, owners)
    if conflicts == "error":
        remedy = "keep the right one, or leave all such examples out with conflicts=drop"
        check_conflicts(marks, owners, places, what=what, remedy=remedy)
    unclear = {marks[later] for _, later in clashes}
    twice = {later for _, later in repeated if marks[later] not in unclear}
    if clashes:
        out = sum(mark in unclear for mark in marks)
        warnings.warn(
            f"Left out {out} of {len(marks)} examples, for no {what} can be told to be of two classes. The same "
            f"{_clash(clashes, marks, owners, places, what)}.",
            DataNote,
            stacklevel=3,
        )
    if twice:
        a, b = next(pair for pair in repeated if pair[1] in twice)
        warnings.warn(
            f"Left out {len(twice)} of {len(marks)} examples, which are given more than once and could put one {what} "
            f"into both support and query; the first is {places[b]}, equal to {places[a]}.",
            DataNote,
            stacklevel=3,
        )
    return [i for i, mark in enumerate(marks) if i not in twice and mark not in unclear]


def parts_of(
    keep: Iterable[int], keys: Sequence[tuple[str, str, str]]
) -> dict[str, list[LabelledClass]]:
    """Classes by split.

    Args:
        keep: the rows to use.
        keys: split (empty when not given), group and class of each row.

    Raises:
        DataError: a class is in two splits.
    """
    rows: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in keep:
        rows[keys[row]].append(row)
    parts: dict[str, list[LabelledClass]] = defaultdict(list)
    split_of: dict[str, str] = {}
    for (split, group, name), members in rows.items():
        if split_of.setdefault(name, split) != split:
            raise DataError(
                f"The class {name!r} is in the {split_of[name]} and in the {split} split; a learner is tested on "
                "classes that it never trained on, so give each class to one split."
            )
        parts[split].append(LabelledClass(name, group, members))
    return dict(parts)


def count_splits(parts: Mapping[Split, Sequence[LabelledClass]]) -> dict[str, dict[str, int]]:
    """Classes and examples of each split, for the model card."""
    return {
        split: {"classes": len(part), "examples": sum(len(one.rows) for one in part)}
        for split, part in parts.items()
    }
