"""A person's own tables for models of numbers: columns of numbers, or also of categories and gaps."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from quickstudy.data.coding import Coding, coding_of
from quickstudy.data.records import TABLES, Record, check_columns, is_table, read_records
from quickstudy.data.source import DataError

LABEL = "label"
"""The column of the labels."""

VALUE = "value"
"""The column of the numbers that are to be predicted."""

NOT_INPUTS = frozenset({LABEL, "group", "split"})
"""Columns of a table of numbers that are no numbers."""

RENAME = "rename a column"
"""What to do where one is missing."""

Categories = Sequence[Sequence[str] | None]
"""Of each column its categories, or None where it holds numbers."""


class Rows(NamedTuple):
    """Some columns of a table as numbers."""

    x: torch.Tensor
    """float32 (record, column), a category as the columns that :class:`quickstudy.data.coding.Coding` makes of it, NaN
    where an entry is missing"""
    columns: Sequence[str]
    """What they are called, in their order."""
    categories: Categories | None
    """None where all must be numbers."""


def rows_of(
    path: str,
    records: Sequence[Record],
    columns: Sequence[str] = (),
    *,
    coded: bool = False,
    categories: Categories | None = None,
) -> Rows:
    """Columns of a table, in the order in which they are asked for.

    Args:
        path: where the records stand, for messages.
        records: of the table.
        columns: what they are called; by default all that the first record has, but label, group and split.
        coded: there may be categories and gaps.
        categories: those that a task knows since it began; by default those that there are.

    Raises:
        DataError: a column is missing, or holds something else.
    """
    columns = columns or [name for name in records[0].cells if name not in NOT_INPUTS]
    if not columns:
        raise DataError(
            f"{path} has no column of numbers beside {', '.join(map(repr, records[0].cells))}; add some."
        )
    if not coded:
        return Rows(_numbers_in(path, records, columns), columns, None)
    absent = [name for name in columns if not any(name in each.cells for each in records)]
    check_columns(path, records[:1], absent, remedy=RENAME)
    entries = np.empty((len(records), len(columns)), dtype=object)
    entries[:] = [[record.cells.get(name) for name in columns] for record in records]
    coding = coding_of(entries, columns) if categories is None else known_coding(categories)
    try:
        found = torch.from_numpy(coding(entries, columns)).float()
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    if found.isinf().any():
        raise DataError(f"{path} holds a number beyond {_most():.2g}; choose another unit.")
    return Rows(found, columns, coding.categories)


def known_coding(categories: Categories) -> Coding:
    """The coding of a task that knows these categories."""
    return Coding(tuple(None if each is None else tuple(each) for each in categories))


class Valued(NamedTuple):
    """Examples and the number that each is to predict."""

    rows: Rows
    """The inputs."""
    y: torch.Tensor
    """float (example, 1)"""
    target: str
    """What the number is called."""


def read_valued(path: str, *, target: str | None = None, coded: bool = False) -> Valued:
    """Examples with a number to predict, from a table.

    Args:
        path: the table (.csv, .tsv or .jsonl).
        target: the column of the number; by default ``value``, or else the last column.
        coded: there may be categories and gaps among the inputs.

    Raises:
        DataError: what was found cannot be used; says where and what to do.
    """
    check_table(path, "of numbers, and label")
    records = read_records(path)
    names = list(records[0].cells)
    chosen = target or (VALUE if VALUE in names else names[-1])
    columns = [name for name in names if name != chosen]
    if not columns:
        raise DataError(
            f"{path} has one column only, {chosen!r}; expected columns of inputs, and the number to predict in the "
            f"column {VALUE!r} or the last one."
        )
    y = _numbers_in(path, records, [chosen])
    return Valued(rows_of(path, records, columns, coded=coded), y, chosen)


def read_rows(
    path: str,
    columns: Sequence[str],
    *,
    target: str = "",
    categories: Categories | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None, list[str]]:
    """Some columns of a table, the number that they go with, float (example, 1), and where each row came from.

    Args:
        path: the table.
        columns: of the inputs.
        target: the column of the number; without, there is none.
        categories: as in :func:`rows_of`; None where all must be numbers.

    Raises:
        DataError: a column is missing, or holds something else.
    """
    check_table(path, "of numbers, and label")
    records = read_records(path)
    coded = categories is not None
    x = rows_of(path, records, columns, coded=coded, categories=categories).x
    y = _numbers_in(path, records, [target]) if target else None
    return x, y, [f"{path}:{record.line}" for record in records]


def row_of(text: str, columns: Sequence[str], categories: Categories | None = None) -> torch.Tensor:
    """A row that was typed with commas between, float32 (1, column).

    Args:
        text: as a line of a CSV file.
        columns: what they are called.
        categories: of each column; nothing between two commas then is a gap. None where all must be numbers.

    Raises:
        DataError: there are more or fewer entries than columns, or text in a column of numbers.

    >>> row_of("1.5,red", ["size", "colour"], [None, ("red", "blue")]).tolist()
    [[1.5, 1.0]]
    """
    try:
        (found,) = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        raise DataError(
            f"Found {text!r}; expected the entries of one row with commas between, and around an entry that has a "
            "comma itself a quotation mark on both sides."
        ) from None
    cells = [cell.strip() for cell in found]
    tables, names = ", ".join(sorted(TABLES)), ", ".join(columns)
    if categories is None and (len(cells) != len(columns) or not all(map(_is_finite, cells))):
        wanted = "a number" if len(columns) == 1 else f"{len(columns)} numbers with commas between"
        raise DataError(
            f"Found the input {text!r}; expected a table ({tables}), or {wanted} ({names}); negative ones go behind "
            "«--»."
        )
    if len(cells) != len(columns):
        raise DataError(
            f"Found {len(cells)} entries in {text!r}; expected a table ({tables}), or the {len(columns)} entries of a "
            f"row with commas between ({names}); one that is not known is left empty."
        )
    record = Record(1, dict(zip(columns, cells, strict=True)))
    coded = categories is not None
    return rows_of(repr(text), [record], columns, coded=coded, categories=categories).x


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def check_table(path: str, columns: str) -> None:
    """Check that a path is a table.

    Raises:
        DataError: it does not end as one.
    """
    if not is_table(path):
        raise DataError(
            f"Found {path}; expected a table ({', '.join(sorted(TABLES))}) with the columns {columns}."
        )


def _most() -> float:
    return torch.finfo(torch.float32).max


def _numbers_in(path: str, records: Sequence[Record], columns: Sequence[str]) -> torch.Tensor:
    """Columns as float32 (record, column)."""
    check_columns(path, records, columns, remedy=RENAME)
    rows = []
    for record in records:
        row = []
        for column in columns:
            try:
                value = float(record.cells[column])
            except ValueError:
                value = math.nan
            if not abs(value) <= _most():
                raise DataError(
                    f"{path}, line {record.line}: found {record.cells[column]!r} in the column {column!r}, expected a "
                    f"number of at most {_most():.2g}; correct it, or take the column away."
                )
            row.append(value)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float32)
