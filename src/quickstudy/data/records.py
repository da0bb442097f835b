"""Tables of text: CSV, TSV and JSON Lines, with the line that each record begins on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quickstudy.data.source import DataError

TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
"""Endings of the files that are read as tables."""

ZIPPED = ".gz"
"""May stand behind any of them."""


class Record(NamedTuple):
    """One row of a table."""

    line: int
    """Where it begins, counted from 1."""
    cells: Mapping[str, str]
    """Column to content."""


def read_text(path: str | Path) -> str:
    """The content of a UTF-8 file, with or without a byte-order mark; unpacked where its name ends in ``.gz``.

    Raises:
        DataError: the file is missing, damaged, empty or not UTF-8; says on which line.
    """
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
        if file.suffix.lower() == ZIPPED:
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"The file {file} is damaged ({error}); copy it again.") from error
    except OSError as error:
        raise DataError(f"The file {file} cannot be read: {error.strerror}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8."
        ) from error
    if not text.strip():
        raise DataError(
            f"The file {file} is empty; expected a header line and at least one record."
        )
    return text


def _csv_records(file: Path, text: str, delimiter: str) -> Iterator[Record]:
    """Rows below the header; a cell in quotes may hold commas, quotes (doubled) and line breaks."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins, header = 1, None
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{file}, line {begins}: {error}; put cells that hold commas, quotes or line breaks in double quotes."
            ) from error
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            repeated = [name for i, name in enumerate(header) if name in header[:i]]
            if repeated:
                raise DataError(
                    f"{file}, line {begins}: the column {repeated[0]!r} is there twice; rename one."
                )
        elif len(row) != len(header):
            raise DataError(
                f"{file}, line {begins}: found {len(row)} cells, but the header names {len(header)} columns; put "
                "cells that hold commas in double quotes."
            )
        else:
            yield Record(begins, dict(zip(header, row, strict=True)))


def as_cell(value: Any) -> str | None:
    """A JSON value as the content of a cell; ``None`` for lists and objects."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _json_records(file: Path, text: str, *, lists: bool) -> Iterator[Record]:
    """One JSON object a line; only ``\\n`` ends a line, for texts hold other line separators."""
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file}, line {line}: this is not JSON ({error}); expected one object a line."
            ) from error
        if not isinstance(found, dict):
            raise DataError(
                f"{file}, line {line}: found a JSON {type(found).__name__}, expected an object such as "
                '{"text": "…", "label": "…"}.'
            )
        cells = {
            name: json.dumps(value) if lists and isinstance(value, list) else as_cell(value)
            for name, value in found.items()
        }
        yield Record(line, {name: cell for name, cell in cells.items() if cell is not None})


def read_records(path: str | Path, *, lists: bool = False) -> list[Record]:
    """All records of a table, by the ending of its name: .csv, .tsv, .jsonl or .ndjson, perhaps with .gz behind.

    Args:
        path: the file.
        lists: a JSON list is a cell as well, as it is written in JSON; otherwise it is left out.

    Raises:
        DataError: the file is missing, empty, not UTF-8, of another kind, or malformed; says on which line.
    """
    file = Path(path).expanduser()
    suffix = Path(file.name.lower().removesuffix(ZIPPED)).suffix
    if suffix not in TABLES:
        raise DataError(
            f"{file} does not end in {', '.join(sorted(TABLES))}; save the table as one of these."
        )
    text = read_text(file)
    if suffix in (".csv", ".tsv"):
        records = list(_csv_records(file, text, "\t" if suffix == ".tsv" else ","))
    else:
        records = list(_json_records(file, text, lists=lists))
    if not records:
        raise DataError(f"The file {file} holds no record below its header; add some.")
    return records


def check_columns(path: str | Path, records: Iterable[Record], columns: Iterable[str]) -> None:
    """Check that every record has the columns.

    Raises:
        DataError: a column is missing; names those that there are.
    """
    needed = list(columns)
    for record in records:
        for column in needed:
            if column not in record.cells:
                raise DataError(
                    f"{path}, line {record.line}: there is no column {column!r}, only "
                    f"{', '.join(map(repr, record.cells))}; rename a column, or say which to use."
                )


def cell(path: str | Path, record: Record, column: str) -> str:
    """A cell without the blanks around it.

    Raises:
        DataError: nothing stands in it.
    """
    content = record.cells[column].strip()
    if not content:
        raise DataError(
            f"{path}, line {record.line}: the column {column!r} is empty; fill it or take the line away."
        )
    return content
