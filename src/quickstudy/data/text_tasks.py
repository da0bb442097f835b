"""Labelled texts as tasks, wherever they were read."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.data.apart import parts_apart
from quickstudy.data.calling import Tokenizes, described, tokens_of, words_of
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.splitting import (
    Conflicts,
    LabelledClass,
    check_split,
    count_splits,
    distinct,
    parts_of,
    pool_of,
    pool_of_labels,
    shared_out,
)

HIDDEN = "[MASK]"
"""Stands in a text for a hidden word."""


class LabelledText(NamedTuple):
    """A text, its class, and where it was found."""

    text: str
    label: str
    place: str
    """For messages: a file and a line."""
    group: str = ""
    split: str = ""
    """Of its class, empty where it is to be drawn; of the text itself, where support and queries lie apart."""


class Divided(NamedTuple):
    """Which classes labelled texts make, and in which split each is."""

    parts: Mapping[Split, Sequence[LabelledClass]]
    """The rows of a class are places of the texts."""
    labels: Mapping[str, str]
    """What each class is called: a label in two groups is two classes. Empty where learners shall not read it."""
    unlabelled: Mapping[Split, Sequence[int]] | None = None
    """Where a text may have any number of labels, and be in several classes: those of each split that have none."""
    folds: Sequence[int] = ()
    """The fold of each text, where tasks of the test split learn from whole folds."""


def divided(
    where: str,
    examples: Sequence[LabelledText],
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    conflicts: Conflicts = "drop",
    apart: bool = False,
) -> Divided:
    """Labelled texts as classes of splits; a text given twice in a class is left out with a note.

    Args:
        where: what they were read from, for messages.
        examples: the texts.
        validation: share of groups or labels held out for validation, where the examples do not say.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.
        conflicts: ``drop`` to leave out texts that are given to two classes, with a note, or ``error``.
        apart: all classes are in each split, and support and queries lie apart
            (:func:`quickstudy.data.apart.parts_apart`).

    Raises:
        DataError: they make no task; says what to do, and where.
    """
    labels = [each.label for each in examples]
    if len(set(labels)) < 2:
        found = f"one label, {labels[0]!r}" if labels else "no text"
        raise DataError(
            f"{where} holds {found}; a task needs at least 2. Add examples of another label."
        )
    owners = _class_names(labels, [each.group for each in examples])
    texts, places = [each.text for each in examples], [each.place for each in examples]
    keep = distinct(texts, owners, places, what="text", conflicts=conflicts)
    keys = [(each.split, each.group, name) for each, name in zip(examples, owners, strict=True)]
    called = dict(zip(owners, labels, strict=True))
    if apart:
        return Divided(parts_apart(keep, keys, where=where, seed=seed), called)
    parts = parts_of(keep, keys)
    return Divided(shared_out(parts, validation=validation, test=test, seed=seed), called)


class Texts(PoolSource):
    """Labelled texts as tasks, wherever they were read.

    Args:
        where: what they were read from, for messages.
        texts: all of them.
        classes: of the texts, and their splits.
        facts: what the model card says of them.
        said: what each group's tasks say of themselves; or else they say the group's name.
        strangers: texts of no class, by split.
        samples: of each shot, fixed support sets of the test split, each a place of ``texts`` for (class, shot), with
            the classes as they stand in the split.
        hidden: words of the texts are hidden, and stand there as ``[MASK]``; the encoder reads its own mask token.
    """

    kind = "text"

    def __init__(
        self,
        where: str,
        texts: Sequence[str],
        classes: Divided,
        *,
        facts: Mapping[str, Any],
        said: Mapping[str, str] | None = None,
        strangers: Mapping[Split, Sequence[str]] = MappingProxyType({}),
        samples: Mapping[int, Tensor] = MappingProxyType({}),
        hidden: bool = False,
    ) -> None:
        self.where, self.texts, self.facts, self._said = where, list(texts), dict(facts), said
        self.parts, self._labels, self.samples = classes.parts, classes.labels, samples
        self.unlabelled, self.folds = classes.unlabelled, classes.folds
        self.labels = "one" if classes.unlabelled is None else "many"
        self._hidden = hidden
        known = set(texts)
        self._strangers: dict[Split, range] = {}
        for split, beside in strangers.items():
            first = len(self.texts)
            self.texts += [text for text in dict.fromkeys(beside) if text not in known]
            self._strangers[split] = range(first, len(self.texts))
        self._encoder: Tokenizes | None = None
        self._tokens = torch.zeros(0, 0, dtype=torch.int64)

    def prepare(self, encoder: Any) -> None:
        """Turn the texts into the tokens of ``encoder``, once.

        Raises:
            DataError: the encoder takes other things than texts.
        """
        if not isinstance(encoder, Tokenizes):
            raise DataError(
                f"{self.where} holds texts, but {type(encoder).__name__} does not take texts; choose the encoder "
                "'text'."
            )
        if encoder is not self._encoder:
            texts = self.texts
            if self._hidden:
                texts = [text.replace(HIDDEN, getattr(encoder, "mask", HIDDEN)) for text in texts]
            self._encoder, self._tokens = encoder, tokens_of(texts, encoder)

    def pool(self, split: Split) -> Pool:
        classes = self.parts[check_split(split)]
        pool = self._pool(split, classes)
        if not self.samples or split != "test":
            return pool
        place = torch.full((len(self.texts),), -1)
        place[[row for one in classes for row in one.rows]] = torch.arange(len(pool.labels))
        return replace(pool, samples={shot: place[rows] for shot, rows in self.samples.items()})

    def strangers(self, split: Split) -> Tensor | None:
        rows = self._strangers.get(check_split(split), range(0))
        if not rows:
            return None
        self._check_prepared()
        return self._tokens[rows.start : rows.stop]

    def _check_prepared(self) -> None:
        if self._encoder is None:
            raise DataError(
                "Texts become tokens first: call prepare(encoder) before pool(split) or strangers(split)."
            )

    def _pool(self, split: Split, classes: Sequence[LabelledClass]) -> Pool:
        self._check_prepared()
        names = torch.zeros(len(classes), 0, dtype=torch.int64)
        if self._labels:
            names = words_of([self._labels.get(one.name, "") for one in classes], self._encoder)
        if self.labels == "many":
            rows = self._rows(split)
            folds = [self.folds[row] for row in rows] if self.folds and split == "test" else []
            pool = pool_of_labels(
                self._tokens, classes, rows=rows, split=split, where=self.where, names=names
            )
            return replace(pool, folds=torch.tensor(folds, dtype=torch.int64))
        pool = pool_of(self._tokens, classes, split=split, where=self.where, names=names)
        return described(pool, self._encoder, self._said)

    def pool_texts(self, split: Split) -> list[str]:
        """The texts of a split, in the order of the pool."""
        return [self.texts[row] for row in self._rows(check_split(split))]

    def _rows(self, split: Split) -> list[int]:
        """The texts of a split, in the order of the pool."""
        rows = [row for one in self.parts[split] for row in one.rows]
        if self.unlabelled is None:
            return rows
        return sorted({*rows, *self.unlabelled[split]})

    def without(self, split: Split, texts: Container[str]) -> Texts:
        """The same source, whose split lacks these texts, and the classes that are empty then.

        Fixed support sets stay as they are: only their queries are left out.
        """
        less = copy.copy(self)
        shown = {row for rows in self.samples.values() for row in rows.flatten().tolist()}
        out = {
            row
            for one in self.parts[split]
            for row in one.rows
            if self.texts[row] in texts and row not in shown
        }
        kept = [_fewer(one, out) for one in self.parts[split]]
        less.parts = {**self.parts, split: [one for one in kept if one.rows]}
        if self.unlabelled is not None:
            bare = [row for row in self.unlabelled[split] if self.texts[row] not in texts]
            less.unlabelled = {**self.unlabelled, split: bare}
        return less

    def describe(self) -> dict[str, Any]:
        counts = count_splits(self.parts)
        if self.labels == "many":
            for split in self.parts:
                counts[split]["examples"] = len(self._rows(split))
        return {**self.facts, "splits": counts}


def _fewer(one: LabelledClass, out: Container[int]) -> LabelledClass:
    """A class without some rows."""
    rows = [row for row in one.rows if row not in out]
    if one.asked is None:
        return replace(one, rows=rows)
    first = len(one.rows) - one.asked
    return replace(one, rows=rows, asked=sum(row not in out for row in one.rows[first:]))


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
