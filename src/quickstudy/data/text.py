"""Texts with labels from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from quickstudy.data.records import Record, cell, check_columns, read_records
from quickstudy.data.source import SPLITS, DataError, Pool, PoolSource, Split
from quickstudy.data.splitting import (
    SPLIT_NAMES,
    Conflicts,
    check_split,
    count_splits,
    distinct,
    parts_of,
    pool_of,
    shared_out,
)
from quickstudy.nn.words import bytes_of


@runtime_checkable
class Tokenizes(Protocol):
    """An encoder of texts."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts as int64 (example, word), -1 for padding."""


def readable(name: str) -> str:
    """A class name as one would say it.

    >>> readable("card_arrival")
    'card arrival'
    """
    return " ".join(name.replace("_", " ").split())


def words_of(names: Sequence[str], encoder: Any = None) -> Tensor:
    """Names as learners read them, int64 (name, word), -1 for padding: tokens of an encoder of texts, or else bytes.

    >>> words_of(["b_c", "d/e"]).tolist()
    [[98, 32, 99], [100, 32, 101]]
    """
    if isinstance(encoder, Tokenizes):
        return encoder.tokenize([readable(name) for name in names])
    # A class below a group is called group/class.
    return bytes_of([readable(name.replace("/", " ")) for name in names])


def described(pool: Pool, encoder: Any = None, said: Mapping[str, str] | None = None) -> Pool:
    """The same pool, in which a task within a group says of itself what its group says, or else is called.

    Args:
        pool: what tasks are drawn from.
        encoder: that reads its examples.
        said: of each group.
    """
    words = [(said or {}).get(name) or name for name in pool.group_names]
    return replace(pool, descriptions=words_of(words, encoder)) if any(words) else pool


class TextSource(PoolSource):
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

    kind = "text"

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
        self.path = path
        records = read_records(path)
        has_group, has_split = (name in records[0].cells for name in (group, split))
        optional = [name for name, has in ((group, has_group), (split, has_split)) if has]
        check_columns(path, records, [text, label, *optional])
        self.texts = [cell(path, record, text) for record in records]
        labels = [cell(path, record, label) for record in records]
        groups = [cell(path, record, group) if has_group else "" for record in records]
        splits = [split_of(path, record, split) if has_split else "" for record in records]
        if len(set(labels)) < 2:
            raise DataError(
                f"{path} holds one label, {labels[0]!r}; a task needs at least 2. Add examples of another label."
            )
        owners = _class_names(labels, groups)
        self._labels = dict(zip(owners, labels, strict=True))
        places = [f"{path}, line {record.line}" for record in records]
        keep = distinct(self.texts, owners, places, what="text", conflicts=conflicts)
        parts = parts_of(keep, list(zip(splits, groups, owners, strict=True)))
        self.parts = shared_out(parts, validation=validation, test=test, seed=seed)
        self._said = group_descriptions(path, records, groups, description)
        self._encoder: Tokenizes | None = None
        self._tokens = torch.zeros(0, 0, dtype=torch.int64)

    def prepare(self, encoder: Any) -> None:
        """Turn the texts into the tokens of ``encoder``, once.

        Raises:
            DataError: the encoder takes other things than texts.
        """
        if not isinstance(encoder, Tokenizes):
            raise DataError(
                f"{self.path} holds texts, but {type(encoder).__name__} does not take texts; choose the encoder 'text'."
            )
        if encoder is not self._encoder:
            self._encoder, self._tokens = encoder, encoder.tokenize(self.texts)

    def pool(self, split: Split) -> Pool:
        classes = self.parts[check_split(split)]
        if self._encoder is None:
            raise DataError("Texts become tokens first: call prepare(encoder) before pool(split).")
        names = words_of([self._labels[one.name] for one in classes], self._encoder)
        pool = pool_of(self._tokens, classes, split=split, where=self.path, names=names)
        return described(pool, self._encoder, self._said)

    def pool_texts(self, split: Split) -> list[str]:
        """The texts of a split, in the order of the pool."""
        return [self.texts[row] for one in self.parts[check_split(split)] for row in one.rows]

    def describe(self) -> dict[str, Any]:
        return {"name": "text", "path": self.path, "splits": count_splits(self.parts)}


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


def _class_names(labels: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The class of each record: its label, with its group where a label is in two groups.

    >>> _class_names(["yes", "no", "yes"], ["a", "a", "b"])
    ['a/yes', 'no', 'b/yes']
    """
    homes: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        homes.setdefault(label, set()).add(group)
    return [
        label if len(homes[label]) == 1 else f"{group}/{label}"
        for label, group in zip(labels, groups, strict=True)
    ]
