"""Tables as people have them, numbers beside categories and gaps, as columns of numbers."""

from __future__ import annotations

import datetime
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.data.source import DataNote

Array = npt.NDArray[Any]

MOST_CATEGORIES = 8
"""Categories of a column that get a column of their own, the most frequent ones."""

GAPS = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""What people write for a missing entry, in whatever case and between whatever blanks."""

GAPS_AMONG_NUMBERS = GAPS | {"none", "-"}
"""Likewise where the other entries are numbers; among categories, these two may be one that means something."""

MOSTLY, FEWEST = 0.75, 4
"""Share of a column's known entries, and how many of them, that must be numbers for other text to be a surprise."""

RARE = "…"
"""What a category is called that is none of the most frequent ones."""

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Coding:
    """What each column of a table is: numbers, or the categories that were known when the task began.

    Args:
        categories: of each column its most frequent ones; ``None`` for a column of numbers.
    """

    categories: tuple[tuple[str, ...] | None, ...]

    def __call__(self, table: Array, names: Sequence[str] = ()) -> Array:
        """Columns of numbers, float64 (example, column), NaN where an entry is missing.

        A category is a column of 0 and 1, of two categories one column for both. A category that was not known is a
        missing entry.

        Args:
            table: the entries, (example, column).
            names: of the columns, for messages; else their places.

        Raises:
            ValueError: text in a column of numbers, or an infinite number.
        """
        parts = [
            _numbers(entries, called(place, names))[:, None]
            if known is None
            else _indicators(entries, known)
            for place, (entries, known) in enumerate(zip(table.T, self.categories, strict=True))
        ]
        return np.concatenate(parts, axis=1)

    def entries(self, row: Sequence[float]) -> list[float | str]:
        """What stood in the columns that became these numbers: empty where an entry is missing, or was not known.

        >>> Coding((None, ("red", "blue"))).entries([1.5, 0.0])
        [1.5, 'blue']
        """
        found: list[float | str] = []
        left = iter(row)
        for known in self.categories:
            if known is None:
                number = next(left)
                found.append("" if math.isnan(number) else number)
                continue
            asked = 1 if len(known) == 2 else len(known)
            shares = list(islice(left, asked))
            if math.isnan(shares[0]):
                found.append("")
            elif 1.0 in shares:
                found.append(known[shares.index(1.0)])
            else:
                found.append(known[1] if asked == 1 else RARE)
        return found


def called(place: int, names: Sequence[str]) -> str:
    """A column as a message calls it."""
    return repr(names[place]) if names else str(place)


def coding_of(table: Array, names: Sequence[str] = ()) -> Coding:
    """The coding of the columns of a table: what cannot be read as numbers are categories.

    Args:
        table: the entries, (example, column).
        names: of the columns, for messages; else their places.

    >>> coding_of(np.array([[1, "red"], [2, "blue"], [None, "red"]], dtype=object))
    Coding(categories=(None, ('red', 'blue')))
    """
    if table.dtype.kind != "O":
        return Coding((None,) * table.shape[1])
    return Coding(
        tuple(_categories(entries, called(place, names)) for place, entries in enumerate(table.T))
    )


def _categories(entries: Array, name: str) -> tuple[str, ...] | None:
    """The most frequent categories of a column; ``None`` where it holds numbers, or nothing."""
    known = [(row, each) for row, each in enumerate(entries, 1) if not _is_missing(each)]
    said = [(row, each) for row, each in known if not _is_missing(each, GAPS_AMONG_NUMBERS)]
    other = [(row, each) for row, each in said if _number(each) is None]
    numbers = len(said) - len(other)
    if not other and (numbers or not known):
        return None
    if other and numbers >= max(FEWEST, MOSTLY * len(said)):
        row, entry = other[0]
        warnings.warn(
            f"Column {name} holds {numbers} numbers and {len(other)} other entries, the first of them {entry!r} in "
            f"row {row}, so all of its entries are taken as categories; correct these, or leave them empty where the "
            "number is not known.",
            DataNote,
            stacklevel=4,
        )
    counts = Counter(str(each) for _, each in known)
    # Equally frequent ones by name, so that the order of the examples means nothing.
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(names[:MOST_CATEGORIES])


def _is_missing(entry: Any, words: frozenset[str] = GAPS) -> bool:
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(entry, str):
        return entry.strip().casefold() in words
    if isinstance(entry, np.datetime64 | np.timedelta64):
        return bool(np.isnat(entry))
    return isinstance(entry, float | np.floating) and math.isnan(entry)


def days_of(moments: Any) -> Any:
    """Moments of numpy's, or lengths of time, in days as floats: since 1970, or in all; NaN where there is none."""
    if moments.dtype.kind == "M":
        return (moments - np.datetime64(0, "s")) / DAY
    return moments / DAY


def _number(entry: Any) -> float | None:
    """An entry as a number, infinite where it is larger than any; ``None`` where it is none.

    A moment is a number of days, so that columns of dates mean the same whatever wrote them.
    """
    try:
        if isinstance(entry, datetime.timedelta):
            return entry / datetime.timedelta(days=1)
        if isinstance(entry, datetime.date):
            return _days_since_1970(entry)
        if isinstance(entry, np.datetime64 | np.timedelta64):
            return float(days_of(entry))
        return float(entry)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _days_since_1970(moment: datetime.date) -> float:
    if not isinstance(moment, datetime.datetime):
        return float(moment.toordinal() - datetime.date(1970, 1, 1).toordinal())
    # What says no time zone is taken for UTC, as numpy takes it.
    known = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return known.timestamp() / datetime.timedelta(days=1).total_seconds()


def _numbers(entries: Array, name: str) -> Array:
    if entries.dtype.kind == "O":
        found = [
            math.nan if _is_missing(each, GAPS_AMONG_NUMBERS) else _number(each) for each in entries
        ]
        if None in found:
            raise ValueError(
                f"Column {name} holds numbers since the task began, and now {entries[found.index(None)]!r}; give "
                "numbers, or learn the task anew."
            )
        entries = np.array(found)
    numbers = entries.astype(np.float64)
    if np.isinf(numbers).any():
        raise ValueError(
            f"Column {name} holds infinity; give finite numbers, and NaN where an entry is missing."
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
