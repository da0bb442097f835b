"""Labels as people give them to a classifier, checked, and as the names of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from quickstudy.data.coding import Array
from quickstudy.rejection import SHARE_KEPT


def classes_among(labels: Any) -> Array:
    """The different ones of some labels, sorted.

    Raises:
        ValueError: a label is None, or two of different types have the same name.

    >>> classes_among(["b", "a", "b"]).tolist()
    ['a', 'b']
    """
    check_names(labels)
    return np.unique(column_or_1d(labels, warn=True))


def check_names(labels: Any) -> None:
    """Refuse labels that are none, or that an array would take for one another.

    Raises:
        ValueError: a label is None, or two of different types have the same name.
    """
    kind = getattr(getattr(labels, "dtype", None), "kind", "")
    if not isinstance(labels, list | tuple) and kind != "O":
        return
    first: dict[str, Any] = {}
    for place, label in enumerate(labels, start=1):
        if label is None:
            raise ValueError(
                f"The label number {place} is None; name the class, or give examples whose class nobody has said as "
                "unlabelled."
            )
        other = first.setdefault(str(label), label)
        if type(other) is not type(label) and other != label:
            raise ValueError(
                f"The labels {other!r} and {label!r} are of two types ({type(other).__name__} and "
                f"{type(label).__name__}) but mean the same name; write all labels as text, or all as numbers."
            )


def names_of(classes: Array) -> list[str]:
    """What a task calls its classes."""
    return [str(each) for each in classes.tolist()]


def named(y: Any, classes: Array, examples: int) -> list[str]:
    """The name of each label.

    Args:
        y: (example,), the labels.
        classes: of the task, sorted.
        examples: how many there are.

    Raises:
        ValueError: more or fewer labels than examples, or one that is not among the classes.

    >>> named([2, 1], np.array([1, 2]), 2)
    ['2', '1']
    """
    check_names(y)
    y = column_or_1d(y, warn=True)
    if len(y) != examples:
        raise ValueError(
            f"Found {examples} examples and {len(y)} labels; give one label to each example."
        )
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"The label {unknown.tolist()[0]!r} is not among the classes {classes.tolist()}; name all "
            "classes at the first partial_fit, or fit anew."
        )
    names = names_of(classes)
    return [names[i] for i in np.searchsorted(classes, y).tolist()]


def share_kept(unknown: Any) -> float | None:
    """Of the examples of a class, the share that is to be answered; ``None`` where nothing is to be refused.

    Raises:
        ValueError: it is neither true nor false nor a share.

    >>> share_kept(False), share_kept(True), share_kept(0.9)
    (None, 0.95, 0.9)
    """
    if unknown is None or isinstance(unknown, bool | np.bool_):
        return SHARE_KEPT if unknown else None
    if not isinstance(unknown, float | int | np.floating) or not 0 < unknown < 1:
        raise ValueError(
            "unknown is True, False, or the share of the examples of a class that are to be answered, between 0 and 1; "
            f"found {unknown!r}."
        )
    return float(unknown)
