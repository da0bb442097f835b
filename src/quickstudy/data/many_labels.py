"""Texts with any number of labels: as they are written, and which split each is in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from quickstudy.data.records import Record, cell, check_columns
from quickstudy.data.source import SPLITS, DataError, Split
from quickstudy.data.splitting import (
    LEAST,
    SPLIT_NAMES,
    Conflicts,
    LabelledClass,
    assign,
    check_fractions,
    distinct,
)
from quickstudy.data.text_tasks import Divided


class ManyLabelled(NamedTuple):
    """A text, its labels, and where it was found."""

    text: str
    labels: tuple[str, ...]
    """Perhaps none."""
    place: str
    """For messages: a file and a line."""
    split: str = ""
    """Of the text, where somebody said it; empty otherwise."""


def labels_in(content: str, place: str = "") -> tuple[str, ...]:
    """The labels in a cell, each once: with semicolons between, or a JSON list.

    Args:
        content: of the cell; empty for no label.
        place: of the cell, for messages.

    Raises:
        DataError: it begins like a list and is none of texts.

    >>> labels_in("pay; card"), labels_in('["a;b", "c"]'), labels_in("")
    (('pay', 'card'), ('a;b', 'c'), ())
    """
    parts: object = content.split(";")
    if content.strip().startswith("["):
        try:
            parts = json.loads(content)
        except (ValueError, RecursionError):
            parts = None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise DataError(
            f"{place}: found the labels {content!r}; write them with semicolons between, or as a JSON list of texts."
        )
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def labelled_many(
    path: str, records: Sequence[Record], *, text: str = "text", label: str = "label"
) -> list[ManyLabelled]:
    """The records of a table as texts with labels; a record without the column of the labels has none.

    Raises:
        DataError: there is no such column, or none of the texts, a text is empty, or labels cannot be read.
    """
    check_columns(path, records, [text])
    if not any(label in record.cells for record in records):
        check_columns(path, records[:1], [label])
    found = []
    for record in records:
        place = f"{path}, line {record.line}"
        labels = labels_in(record.cells.get(label, ""), place)
        found.append(ManyLabelled(cell(path, record, text), labels, place))
    return found


def divided_by_label(
    where: str,
    examples: Sequence[ManyLabelled],
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    conflicts: Conflicts = "error",
    as_given: bool = False,
) -> Divided:
    """Texts with any number of labels as splits; a text given twice is left out with a note.

    Where the examples say in which split each is, the labels of a split are those of its texts. Otherwise it is the
    labels that are shared out, and no text is in two splits: one that has a label of the test is for the test, any
    other that has one of the validation is for validation, and a text has those of its labels that its split has. Texts
    without any label are left out then, for nobody can tell where they belong.

    Args:
        where: what they were read from, for messages.
        examples: the texts.
        validation: share of the labels held out for validation, where the examples do not say.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.
        conflicts: ``error``, or ``drop`` to leave out texts that are given with other labels once more.
        as_given: leave out none at all.

    Raises:
        DataError: they make no task; says what to do, and where.
    """
    names = sorted({label for each in examples for label in each.labels})
    if len(names) < LEAST:
        found = f"one label, {names[0]!r}" if names else "no label"
        raise DataError(
            f"{where} holds {found}; a task needs at least 2. Add examples of another label."
        )
    keep = list(range(len(examples)))
    if not as_given:
        keep = distinct(
            [each.text for each in examples],
            ["; ".join(sorted(each.labels)) for each in examples],
            [each.place for each in examples],
            what="text",
            conflicts=conflicts,
        )
    said = any(examples[row].split for row in keep)
    home: dict[str, Split] = {}
    if not said:
        check_fractions(validation, test)
        shares = assign(names, validation=validation, test=test, seed=seed, least=LEAST)
        home = dict(zip(names, shares, strict=True))
    rows: dict[str, dict[Split, list[int]]] = {name: defaultdict(list) for name in names}
    bare: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for row in keep:
        labels = examples[row].labels
        if not said and not labels:
            continue
        if said:
            split = SPLIT_NAMES[examples[row].split]
        else:
            # SPLITS stand in the order in which they are kept from one another.
            split = max((home[label] for label in labels), key=SPLITS.index)
        for label in labels:
            if home.get(label, split) == split:
                rows[label][split].append(row)
        if not labels:
            bare[split].append(row)
    parts = {
        split: [LabelledClass(name, "", rows[name][split]) for name in names if rows[name][split]]
        for split in SPLITS
    }
    return Divided(parts, {name: name for name in names}, unlabelled=bare)
