"""Texts with labels from a table."""

from __future__ import annotations

from collections.abc import Sequence

from quickstudy.data.records import Record, cell, check_columns, read_records
from quickstudy.data.source import SPLITS, DataError
from quickstudy.data.splitting import SPLIT_NAMES, Conflicts
from quickstudy.data.text_tasks import LabelledText, Texts, divided


class TextSource(Texts):
    """Texts with labels from a CSV, TSV or JSON Lines file with columns text, label and perhaps group and split.

    Where a column ``split`` says train, validation or test, it decides. Otherwise whole groups are held out, or
    whole labels where there are fewer than three groups. A label in two groups is two classes.

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
    ) -> None:
        if not path:
            raise DataError(
                "Texts need a file: text:FILE.csv or text:FILE.jsonl, with columns text and label."
            )
        records = read_records(path)
        examples = labelled_texts(path, records, text=text, label=label, group=group, split=split)
        classes = divided(
            path, examples, validation=validation, test=test, seed=seed, conflicts=conflicts
        )
        said = group_descriptions(path, records, [each.group for each in examples], description)
        texts = [each.text for each in examples]
        super().__init__(path, texts, classes, facts={"name": "text", "path": path}, said=said)


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
