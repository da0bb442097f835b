"""Texts with labels from a table, or from rows in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from quickstudy.data.calling import note_alike, note_trimmed
from quickstudy.data.many_labels import divided_by_label, labelled_many
from quickstudy.data.records import (
    Record,
    as_cell,
    cell,
    check_columns,
    read_records,
    records_of,
)
from quickstudy.data.sampling import at_most
from quickstudy.data.source import SPLITS, DataError, DataNote
from quickstudy.data.splitting import SPLIT_NAMES, Conflicts
from quickstudy.data.text_tasks import Divided, LabelledText, Texts, divided
from quickstudy.likelihood import Labels

LONG = 1_000_000
"""Rows that are kept whole; of longer files some of each class are kept, so that memory is bounded."""
MOST_OF_LONG = 10_000
"""Examples of a class that are kept of a longer file, unless it is said how many."""


class TextSource(Texts):
    """Texts with labels from a CSV, TSV or JSON Lines file with columns text, label and perhaps group and split.

    Where a column ``split`` says train, validation or test, it decides. Otherwise whole groups are held out, or
    whole labels where there are fewer than three groups. A label in two groups is two classes.

    With ``labels=many`` a text may have any number of labels, with semicolons between, or as a JSON list, or none
    (:func:`quickstudy.data.many_labels.divided_by_label`); there are no groups then.

    Args:
        path: the file.
        text: the column of the texts.
        label: the column of the labels.
        group: the column of the groups (domains), if there is one.
        split: the column of the splits, if there is one.
        description: the column of what a group's tasks say of themselves, if there is one, or else the group's name.
        validation: share of groups or labels held out for validation.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.
        conflicts: ``drop`` to leave out texts that are given to two classes, with a note, or ``error``.
        most: examples of a class that are kept, drawn by ``seed``, so that memory does not grow with the file; 0 keeps
            all, or of a file of more than a million rows 10,000, with a note.
        labels: ``one`` for each text, or ``many``, any number of them.

    Raises:
        DataError: the file cannot be used; says what to do, and on which line.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        text: str = "text",
        label: str = "label",
        group: str = "group",
        split: str = "split",
        description: str = "description",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
        conflicts: Conflicts = "drop",
        most: int = 0,
        labels: Labels = "one",
    ) -> None:
        if not path:
            raise DataError(
                "Texts need a file: text:FILE.csv or text:FILE.jsonl, with columns text and label."
            )
        columns = Columns(text, label, group, split, description)
        shares = {"validation": validation, "test": test, "seed": seed, "conflicts": conflicts}
        said: dict[str, str] = {}
        if labels == "many":
            if most:
                raise DataError(
                    "The option most keeps so many texts of each class, and goes with labels=one; leave it out."
                )
            records = read_records(path, lists=True)
            texts, classes = _labels_of(path, records, columns=columns, shares=shares)
        else:
            texts, classes, said = _classes_of(
                path, records_of(path), columns=columns, most=most, shares=shares
            )
        facts = {"name": "text", "path": path} | ({"most_of_a_class": most} if most else {})
        super().__init__(path, texts, classes, facts=facts, said=said)


class Columns(NamedTuple):
    """What the columns of a table of texts are called; the last three may be missing."""

    text: str = "text"
    label: str = "label"
    group: str = "group"
    split: str = "split"
    description: str = "description"


DEFAULT = Columns()


def texts_of_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    name: str = "rows",
    columns: Columns = DEFAULT,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    conflicts: Conflicts = "drop",
) -> Texts:
    """Texts with labels from a data set of Hugging Face, or any other rows, as a source of tasks.

    Numbers of labels become names where the rows have ``features[label].names``, as a ``datasets.Dataset`` with a
    ``ClassLabel`` has.

    Args:
        rows: each a mapping of columns to values.
        name: what to call them, in messages and on the model card.
        columns: what the columns are called.
        validation: share of groups or labels held out for validation, unless a column says it.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.
        conflicts: ``drop`` to leave out texts that are given to two classes, with a note, or ``error``.

    Raises:
        DataError: the rows cannot be used; says what to do, and in which row, counted from 1.

    >>> rows = [{"text": f"{word} {i}", "label": word} for word in ("yes", "no") for i in range(3)]
    >>> texts_of_rows(rows, test=1).describe()["splits"]["test"]
    {'classes': 2, 'examples': 6}
    """
    features = getattr(rows, "features", None) or {}
    names = getattr(features.get(columns.label), "names", None)
    records = []
    for number, row in enumerate(rows, start=1):
        found = dict(row)
        if names is not None:
            found[columns.label] = _named(name, number, found.get(columns.label), names)
        cells = {column: as_cell(value) for column, value in found.items()}
        records.append(Record(number, {column: v for column, v in cells.items() if v is not None}))
    if not records:
        raise DataError(f"There are no {name}; expected at least two labels with a text each.")
    texts, classes, said = _classes_of(
        name,
        records,
        columns=columns,
        shares={"validation": validation, "test": test, "seed": seed, "conflicts": conflicts},
    )
    return Texts(name, texts, classes, facts={"name": name}, said=said)


def _named(where: str, number: int, label: Any, names: Sequence[str]) -> str:
    """The name of a numbered label."""
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise DataError(
            f"{where}, line {number}: found the label {label!r}, expected a number from 0 to {len(names) - 1}; rows "
            "without a label are to be left out."
        )
    return names[label]


def _classes_of(
    where: str,
    records: Iterable[Record],
    *,
    columns: Columns,
    shares: Mapping[str, Any],
    most: int = 0,
) -> tuple[list[str], Divided, dict[str, str]]:
    """Of the records of a table the texts, their classes, and what each group says of itself."""
    labels: dict[str, None] = {}
    said: dict[str, str] = {}
    stream = _labelled(where, records, columns, labels, said)
    kept = [] if most else list(islice(stream, LONG + 1))
    if len(kept) > LONG:
        most = MOST_OF_LONG
        warnings.warn(
            f"{where} has more than {LONG:,} rows, so at most {most:,} different texts of each class are kept; the "
            "option most of the source text says how many, such as most=200.",
            DataNote,
            stacklevel=4,
        )
        stream = chain(kept, stream)
    if most:
        kept = at_most(
            stream,
            most,
            of=lambda each: "\0".join((each.split, each.group, each.label)),
            mark=lambda each: each.text,
            seed=shares["seed"],
        )
    note_trimmed(labels)
    note_alike(map(str.strip, labels))
    return [each.text for each in kept], divided(where, kept, **shares), said


def _labels_of(
    where: str, records: Sequence[Record], *, columns: Columns, shares: Mapping[str, Any]
) -> tuple[list[str], Divided]:
    """Of the records of a table the texts, and their labels, of which each may have any number."""
    text, label, group, split, _ = columns
    if group in records[0].cells:
        raise DataError(
            f"{where} has a column {group!r}, but labels are not held out by groups where a text may have many; take "
            "the column away, or name another one that is not there: group=none."
        )
    examples = labelled_many(where, records, text=text, label=label)
    if split in records[0].cells:
        check_columns(where, records, [split])
        examples = [
            each._replace(split=split_of(where, record, split))
            for each, record in zip(examples, records, strict=True)
        ]
    return [each.text for each in examples], divided_by_label(where, examples, **shares)


def _labelled(
    path: str,
    records: Iterable[Record],
    columns: Columns,
    labels: dict[str, None],
    said: dict[str, str],
) -> Iterator[LabelledText]:
    """The records of a table as labelled texts, one by one; columns of groups and splits may be missing.

    Args:
        path: for messages.
        records: of the table.
        columns: what they are called.
        labels: is filled with the labels as they were written.
        said: is filled with what each group says of itself.

    Raises:
        DataError: another column is missing, a cell is empty, a split is none, or a group says two things.
    """
    text, label, group, split, description = columns
    needed: list[str] = []
    names: dict[str, str] = {}
    for record in records:
        if not needed:
            needed = [text, label, *(name for name in (group, split) if name in record.cells)]
        check_columns(path, [record], needed)
        labels.setdefault(record.cells[label])
        called = cell(path, record, group) if group in needed else ""
        describe_group(said, path, record, called, description)
        name = cell(path, record, label)
        yield LabelledText(
            cell(path, record, text),
            # One string for all that are equal: a file repeats few labels many times.
            names.setdefault(name, name),
            f"{path}, line {record.line}",
            names.setdefault(called, called),
            split_of(path, record, split) if split in needed else "",
        )


def split_of(path: str, record: Record, column: str) -> str:
    """The split that a record belongs to."""
    name = cell(path, record, column)
    if name.lower() not in SPLIT_NAMES:
        raise DataError(
            f"{path}, line {record.line}: the split {name!r} is none of {', '.join(SPLITS)}; correct it."
        )
    return SPLIT_NAMES[name.lower()]


def group_descriptions(
    path: str, records: Sequence[Record], groups: Sequence[str], column: str
) -> dict[str, str]:
    """What each group says of itself; nothing where no such column is, or its cells are empty.

    Raises:
        DataError: a group says two things.
    """
    found: dict[str, str] = {}
    for record, group in zip(records, groups, strict=True):
        describe_group(found, path, record, group, column)
    return found


def describe_group(
    found: dict[str, str], path: str, record: Record, group: str, column: str
) -> None:
    """Add to ``found`` what a record says of its group.

    Raises:
        DataError: the group has said something else before.
    """
    text = record.cells.get(column, "").strip()
    if text and found.setdefault(group, text) != text:
        raise DataError(
            f"{path}, line {record.line}: the group {group!r} is described as {text!r} and before as "
            f"{found[group]!r}; describe a group in one way."
        )
