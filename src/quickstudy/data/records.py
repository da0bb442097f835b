"""Tables of text: CSV, TSV and JSON Lines, with the line that each record begins on."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from quickstudy.data.source import DataError

TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
"""Endings of the files that are read as tables."""

ZIPPED = ".gz"
"""May stand behind any of them."""


DELIMITERS = (",", ";", "\t", "|")
"""What may stand between the cells of a CSV, of which its header says which: spreadsheets of some countries write
semicolons."""

LONGEST_CELL = 2**24
"""Characters. A quote that is never closed would otherwise take all of a file of any length for one cell."""


class Record(NamedTuple):
    """One row of a table."""

    line: int
    """Where it begins, counted from 1."""
    cells: Mapping[str, str]
    """Column to content."""


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A file as bytes, unpacked where its name ends in ``.gz``.

    Raises:
        DataError: it is missing or damaged, or a line that was read from it is not UTF-8; says which.
    """
    try:
        packed = file.suffix.lower() == ZIPPED
        with cast(BinaryIO, gzip.open(file)) if packed else file.open("rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"The file {file} is damaged ({error}); copy it again.") from error
    except OSError as error:
        raise DataError(f"The file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(file) from error


def _not_utf8(file: Path) -> DataError:
    """Where the first byte stands that is not UTF-8."""
    with _opened(file) as stream:
        for line, content in enumerate(stream, start=1):
            try:
                content.decode()
            except UnicodeDecodeError as error:
                return DataError(
                    f"{file}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8."
                )
    return DataError(f"{file} is not UTF-8; save the file as UTF-8.")


def _lines(file: Path, newline: str) -> Iterator[str]:
    """The lines of a UTF-8 file one by one, with what ends them, without a byte-order mark."""
    with (
        _opened(file) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline) as lines,
    ):
        yield from lines


def read_text(path: str | Path) -> str:
    """The content of a UTF-8 file, with or without a byte-order mark; unpacked where its name ends in ``.gz``.

    Raises:
        DataError: the file is missing, damaged, empty or not UTF-8; says on which line.
    """
    file = Path(path).expanduser()
    text = "".join(_lines(file, ""))
    if not text.strip():
        raise _empty(file)
    return text


def _empty(file: Path) -> DataError:
    return DataError(f"The file {file} is empty; expected a header line and at least one record.")


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, each with its number from 1, without the blanks around it.

    They are read one by one, so a file of any length takes no memory. Only ``\\n`` ends a line.

    Raises:
        DataError: the file is missing, damaged, empty or not UTF-8; says on which line.
    """
    file, found = Path(path).expanduser(), False
    for number, line in enumerate(_lines(file, "\n"), start=1):
        content = line.strip()
        if content:
            found = True
            yield number, content
    if not found:
        raise DataError(f"The file {file} is empty; expected a text on each line.")


def _delimiter(header: str, delimiters: Sequence[str]) -> str:
    """What stands between the cells of a header, the first by which it has more than one."""
    for delimiter in delimiters:
        with suppress(csv.Error, StopIteration):
            if len(next(csv.reader([header], delimiter=delimiter, strict=True))) > 1:
                return delimiter
    return delimiters[0]


def _csv_records(file: Path, delimiters: Sequence[str]) -> Iterator[Record]:
    """Rows below the header; a cell in quotes may hold delimiters, quotes (doubled) and line breaks."""
    lines = _lines(file, "")
    above = list(_up_to_the_header(lines))
    delimiter = _delimiter(above[-1] if above else "", delimiters)
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(itertools.chain(above, lines), delimiter=delimiter, strict=True)
    begins, header = 1, None
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "field limit" in str(error):
                raise DataError(
                    f"{file}, line {begins}: a cell has more than {LONGEST_CELL} characters; shorten it, or close the "
                    "quote that it begins with."
                ) from error
            raise DataError(
                f"{file}, line {begins}: {error}; between cells stands {delimiter!r}, and cells that hold one, quotes "
                "or line breaks go in double quotes, in which a quote is doubled."
            ) from error
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            if not any(header):
                header = None
                continue
            repeated = [name for i, name in enumerate(header) if name in header[:i]]
            if repeated:
                raise DataError(
                    f"{file}, line {begins}: the column {repeated[0]!r} is there twice; rename one."
                )
        elif len(row) != len(header):
            remedy = (
                f"put cells that hold {delimiter!r} in double quotes"
                if len(row) > len(header)
                else "add those that are missing, empty ones too"
            )
            raise DataError(
                f"{file}, line {begins}: found {len(row)} cells, but the header names {len(header)} columns; {remedy}."
            )
        else:
            yield Record(begins, dict(zip(header, row, strict=True)))
    if header is None:
        raise _empty(file)


def _up_to_the_header(lines: Iterator[str]) -> Iterator[str]:
    """Blank lines, and the first that is not."""
    for line in lines:
        yield line
        if line.strip():
            return


def as_cell(value: Any) -> str | None:
    """A JSON value as the content of a cell; ``None`` for lists and objects."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _json_records(file: Path, *, lists: bool) -> Iterator[Record]:
    """One JSON object a line; only ``\\n`` ends a line, for texts hold other line separators."""
    found_one = False
    for line, content in enumerate(_lines(file, "\n"), start=1):
        if not content.strip():
            continue
        found_one = True
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
    if not found_one:
        raise _empty(file)


def is_table(path: str | Path) -> bool:
    """Whether the name of a file ends as that of a table.

    >>> is_table("a.csv.gz"), is_table("a.txt")
    (True, False)
    """
    return _ending(Path(path)) in TABLES


def _ending(file: Path) -> str:
    return Path(file.name.lower().removesuffix(ZIPPED)).suffix


def records_of(path: str | Path, *, lists: bool = False) -> Iterator[Record]:
    """The records of a table one by one, so that a file of any length takes no memory.

    What a table is, its name says: .csv, .tsv, .jsonl or .ndjson, perhaps with .gz behind.

    Args:
        path: the file.
        lists: a JSON list is a cell as well, as it is written in JSON; otherwise it is left out.

    Raises:
        DataError: the file is missing, empty, not UTF-8, of another kind, or malformed; says on which line.
    """
    file = Path(path).expanduser()
    ending, found = _ending(file), False
    if ending not in TABLES:
        raise DataError(
            f"{file} does not end in {', '.join(sorted(TABLES))}; save the table as one of these."
        )
    if ending in (".csv", ".tsv"):
        records = _csv_records(file, ("\t",) if ending == ".tsv" else DELIMITERS)
    else:
        records = _json_records(file, lists=lists)
    for record in records:
        found = True
        yield record
    if not found:
        raise DataError(f"The file {file} holds no record below its header; add some.")


def read_records(path: str | Path, *, lists: bool = False) -> list[Record]:
    """All records of a table, as :func:`records_of` reads them."""
    return list(records_of(path, lists=lists))


def check_columns(
    path: str | Path,
    records: Iterable[Record],
    columns: Iterable[str],
    *,
    remedy: str = "rename a column, or say which to use",
) -> None:
    """Check that every record has the columns.

    Args:
        path: where they stand.
        records: what was read.
        columns: what is needed.
        remedy: what to do, for the message.

    Raises:
        DataError: a column is missing; names those that there are.
    """
    needed = list(columns)
    for record in records:
        for column in needed:
            if column not in record.cells:
                raise DataError(
                    f"{path}, line {record.line}: there is no column {column!r}, only "
                    f"{', '.join(map(repr, record.cells))}; {remedy}."
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
