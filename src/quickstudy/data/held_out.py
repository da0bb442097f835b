"""Which corrections are learned from, and which are held out to judge by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch

from quickstudy.data.source import DataError

FEWEST = 4
"""Tasks, classes of a task, or examples of a class, of which some are held out and the others still make tasks."""

HELD_OUT = 0.25
"""Share of them that is held out."""

HeldOut = Literal["classes", "tasks", "examples"]
Rows = Mapping[str, Mapping[str, list[int]]]
"""Of each task and class, the corrections."""
T = TypeVar("T")


class Division(NamedTuple):
    """Corrections by their places."""

    train: list[int]
    validation: list[int]
    held_out: HeldOut
    """What is new to who learned from the others."""


def divide(
    tasks: Sequence[str],
    labels: Sequence[str] | None,
    *,
    seed: int,
    inputs: Sequence[str] | None = None,
) -> Division:
    """Hold out a quarter of the tasks, so that who is judged by them meets new ones.

    With fewer than four tasks it is a quarter of the classes of each, and one that is held out is held out of every
    task. Where no task has four classes, one of two or three tasks is held out; of a single one, examples. An input
    that is held out is learned from in no task; if too little is left then, the next of these ways is taken.

    Args:
        tasks: of each correction.
        labels: of each correction; None where numbers are predicted.
        seed: decides which are held out.
        inputs: what tells the inputs apart; by default all are different.

    Raises:
        DataError: there are too few to hold any out.

    >>> divide(["t"] * 8, list("aabbccdd"), seed=0).held_out
    'classes'
    """
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, dict[str, list[int]]] = {}
    for row, task in enumerate(tasks):
        label = "" if labels is None else labels[row]
        rows.setdefault(task, {}).setdefault(label, []).append(row)
    ways: list[tuple[HeldOut, Callable[[Rows, torch.Generator, int], set[int]]]] = [
        ("tasks", partial(_tasks_out, fewest=FEWEST)),
        ("classes", _classes_out),
        ("tasks", partial(_tasks_out, fewest=2)),
        ("examples", _examples_out),
    ]
    way = 1 if labels is None else 2
    marks = [str(row) for row in range(len(tasks))] if inputs is None else inputs
    for held_out, choose in ways:
        out = choose(rows, generator, way)
        asked = {marks[row] for row in out}
        kept = {row for row, mark in enumerate(marks) if row not in out and mark not in asked}
        if out and _make_a_task(rows, kept, way):
            return Division(sorted(kept), sorted(out), held_out)
    few = (
        f"{len(tasks)} corrections of {len(rows)} tasks are too few to learn from some and to judge by others; "
        "expected "
    )
    if labels is None:
        few += f"two tasks with two corrections each, or one task with {FEWEST}"
    else:
        few += (
            f"a task with {FEWEST} classes that were corrected twice or more, two tasks with two such classes each, or "
            f"two classes of a task with {FEWEST} corrections each"
        )
    if len(set(marks)) < len(marks):
        few += ", and no input on both sides"
    raise DataError(few + ". Collect more.")


def _share(count: int, least: int) -> int:
    return max(least, round(HELD_OUT * count))


def _some(of: Sequence[T], count: int, generator: torch.Generator) -> list[T]:
    return [of[i] for i in torch.randperm(len(of), generator=generator)[:count].tolist()]


def _twice(classes: Mapping[str, list[int]]) -> list[str]:
    """Classes that can be asked about: one example to learn from, another to answer."""
    return sorted(name for name, members in classes.items() if len(members) >= 2)


def _make_a_task(rows: Rows, kept: set[int], way: int) -> bool:
    """Whether what is kept still makes a task."""
    left = (
        {name: [row for row in members if row in kept] for name, members in classes.items()}
        for classes in rows.values()
    )
    return any(len(_twice(classes)) >= way for classes in left)


def _classes_out(rows: Rows, generator: torch.Generator, way: int) -> set[int]:
    names: set[str] = set()
    for classes in rows.values():
        usable = _twice(classes)
        if way > 1 and len(usable) >= FEWEST:
            free = [name for name in usable if name not in names]
            wanted = _share(len(usable), 2) - (len(usable) - len(free))
            names |= set(_some(free, max(0, wanted), generator))
    return {
        row
        for classes in rows.values()
        for name, members in classes.items()
        if name in names
        for row in members
    }


def _tasks_out(rows: Rows, generator: torch.Generator, way: int, *, fewest: int) -> set[int]:
    usable = [task for task, classes in rows.items() if len(_twice(classes)) >= way]
    chosen = _some(usable, _share(len(usable), 1), generator) if len(usable) >= fewest else []
    return {row for task in chosen for members in rows[task].values() for row in members}


def _examples_out(rows: Rows, generator: torch.Generator, way: int) -> set[int]:
    out: set[int] = set()
    for classes in rows.values():
        rich = [members for members in classes.values() if len(members) >= FEWEST]
        if len(rich) >= way:
            for members in rich:
                out |= set(_some(members, _share(len(members), 2), generator))
    return out
