"""Tables as people have them, numbers beside categories and gaps, as columns of numbers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from quickstudy.estimator.inputs import Array

MOST_CATEGORIES = 8
"""Categories of a column that get a column of their own, the most frequent ones."""


@dataclass(frozen=True)
class Coding:
    """What each column of a table is: numbers, or the categories that were known when the task began.

    Args:
        categories: of each column its most frequent ones; ``None`` for a column of numbers.
    """

    categories: tuple[tuple[str, ...] | None, ...]

    def __call__(self, table: Array) -> Array:
        """Columns of numbers, float64 (example, column), NaN where an entry is missing.

        A category is a column of 0 and 1, of two categories one column for both. A category that was not known is a
        missing entry.

        Raises:
            ValueError: text in a column of numbers, or an infinite number.
        """
        parts = [
            _numbers(entries, place)[:, None] if known is None else _indicators(entries, known)
            for place, (entries, known) in enumerate(zip(table.T, self.categories, strict=True))
        ]
        return np.concatenate(parts, axis=1)


def coding_of(table: Array) -> Coding:
    """The coding of the columns of a table: what cannot be read as numbers are categories.

    >>> coding_of(np.array([[1, "red"], [2, "blue"], [None, "red"]], dtype=object))
    Coding(categories=(None, ('red', 'blue')))
    """
    if table.dtype.kind != "O":
        return Coding((None,) * table.shape[1])
    found: list[tuple[str, ...] | None] = []
    for entries in table.T:
        known = [each for each in entries if not _is_missing(each)]
        if all(_number(each) is not None for each in known):
            found.append(None)
            continue
        counts = Counter(str(each) for each in known)
        # Equally frequent ones by name, so that the order of the examples means nothing.
        names = sorted(counts, key=lambda name: (-counts[name], name))
        found.append(tuple(names[:MOST_CATEGORIES]))
    return Coding(tuple(found))


def entries_of(estimator: BaseEstimator, X: Any, *, begin: bool) -> Array:
    """The entries of a table, (example, column): numbers, or objects where there is anything else.

    Args:
        estimator: that is given them.
        X: an array, a list of rows, or a data frame.
        begin: whether these examples say how many columns there are from now on.

    Raises:
        ValueError: it is no table, or has another number of columns.
    """
    table = validate_data(estimator, X, reset=begin, dtype=None, ensure_all_finite=False)
    return table.astype(object) if table.dtype.kind in "USTMm" else table


def _is_missing(entry: Any) -> bool:
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(entry, float | np.floating) and math.isnan(entry)


def _number(entry: Any) -> float | None:
    """An entry as a number, infinite where it is larger than any; ``None`` where it is none."""
    try:
        return float(entry)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _numbers(entries: Array, place: int) -> Array:
    if entries.dtype.kind == "O":
        found = [math.nan if _is_missing(each) else _number(each) for each in entries]
        if None in found:
            raise ValueError(
                f"Column {place} holds numbers since the task began, and now {entries[found.index(None)]!r}; give "
                "numbers, or fit anew."
            )
        entries = np.array(found)
    numbers = entries.astype(np.float64)
    if np.isinf(numbers).any():
        raise ValueError(
            f"Column {place} holds infinity; give finite numbers, and NaN where an entry is missing."
        )
    return numbers


def _indicators(entries: Array, known: tuple[str, ...]) -> Array:
    names = [None if _is_missing(each) else str(each) for each in entries]
    rare = len(known) == MOST_CATEGORIES
    asked = known[:1] if len(known) == 2 else known
    columns = np.array([[float(name == each) for each in asked] for name in names])
    unknown = [name is None or (name not in known and not rare) for name in names]
    columns[np.array(unknown)] = math.nan
    return columns
