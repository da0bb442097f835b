"""Texts with labels from a table, or from rows in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from quickstudy.data.many_labels import divided_by_label, labelled_many
from quickstudy.data.records import Record, as_cell, cell, check_columns, read_records
from quickstudy.data.source import SPLITS, DataError
from quickstudy.data.splitting import SPLIT_NAMES, Conflicts
from quickstudy.data.text_tasks import Divided, LabelledText, Texts, divided
from quickstudy.likelihood import Labels


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
        conflicts: ``error``, or ``drop`` to leave out examples that are given to two classes.
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
        conflicts: Conflicts = "error",
        labels: Labels = "one",
    ) -> None:
        if not path:
            raise DataError(
                "Texts need a file: text:FILE.csv or text:FILE.jsonl, with columns text and label."
            )
        columns = Columns(text, label, group, split, description)
        shares = {"validation": validation, "test": test, "seed": seed, "conflicts": conflicts}
        records = read_records(path, lists=labels == "many")
        said: dict[str, str] = {}
        if labels == "many":
            texts, classes = _labels_of(path, records, columns=columns, shares=shares)
        else:
            texts, classes, said = _classes_of(path, records, columns=columns, shares=shares)
        super().__init__(path, texts, classes, facts={"name": "text", "path": path}, said=said)


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
    conflicts: Conflicts = "error",
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
        conflicts: ``error``, or ``drop`` to leave out examples that are given to two classes.

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
    where: str, records: Sequence[Record], *, columns: Columns, shares: Mapping[str, Any]
) -> tuple[list[str], Divided, dict[str, str]]:
    """Of the records of a table the texts, their classes, and what each group says of itself."""
    text, label, group, split, description = columns
    examples = labelled_texts(where, records, text=text, label=label, group=group, split=split)
    classes = divided(where, examples, **shares)
    said = group_descriptions(where, records, [each.group for each in examples], description)
    return [each.text for each in examples], classes, said


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


def labelled_texts(
    path: str,
    records: Sequence[Record],
    *,
    text: str = "text",
    label: str = "label",
    group: str = "group",
    split: str = "split",
) -> list[LabelledText]:
    """The records of a table as labelled texts; columns of groups and splits may be missing.

    Raises:
        DataError: another column is missing, a cell is empty, or a split is none.
    """
    has_group, has_split = (name in records[0].cells for name in (group, split))
    optional = [name for name, has in ((group, has_group), (split, has_split)) if has]
    check_columns(path, records, [text, label, *optional])
    return [
        LabelledText(
            cell(path, record, text),
            cell(path, record, label),
            f"{path}, line {record.line}",
            cell(path, record, group) if has_group else "",
            split_of(path, record, split) if has_split else "",
        )
        for record in records
    ]


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
        text = record.cells.get(column, "").strip()
        if text and found.setdefault(group, text) != text:
            raise DataError(
                f"{path}, line {record.line}: the group {group!r} is described as {text!r} and before as "
                f"{found[group]!r}; describe a group in one way."
            )
    return found
