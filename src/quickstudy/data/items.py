"""Items: records whose examples have several parts, an image, a text and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.augment import Variation, vary
from quickstudy.data.calling import described, words_of
from quickstudy.data.decoding import Invert, read_images
from quickstudy.data.records import Record, cell, check_columns, read_records
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.splitting import (
    Conflicts,
    check_split,
    count_splits,
    distinct,
    parts_of,
    pool_of,
    shared_out,
)
from quickstudy.data.text import group_descriptions, split_of
from quickstudy.episode import Inputs, tree_map

IMAGE, TEXT, NUMBERS = "image", "text", "numbers"
NOT_NUMBERS = frozenset({IMAGE, TEXT, "label", "group", "split", "description"})
"""Columns that hold no numbers; all others do."""


def read_parts(
    path: str,
    records: Sequence[Record],
    *,
    parts: Sequence[str] = (),
    size: int = 28,
    channels: int = 1,
    invert: Invert = "auto",
) -> dict[str, Any]:
    """The parts of the examples in a table: ``image`` tensors, ``text`` strings, ``numbers``.

    A cell may be empty: the image is then black, the text without words, the number NaN. Images are files, named as
    seen from the table's folder.

    Args:
        path: the table, for messages.
        records: its rows.
        parts: the parts to read, all absent where no such column is; by default those that there are.
        size: side of the images in pixels.
        channels: 1 for grey images, 3 for colour.
        invert: as in :class:`quickstudy.data.images.ImageSource`.

    Raises:
        DataError: there are no parts, an image cannot be read, or a cell is no number.
    """
    names = list(records[0].cells)
    columns = [name for name in names if name not in NOT_NUMBERS]
    there = [part for part in (IMAGE, TEXT) if part in names] + ([NUMBERS] if columns else [])
    if not there or (parts and not set(parts) & set(there)):
        raise DataError(
            f"{path} has the columns {', '.join(map(repr, names))}; expected image (a file), text, or columns of "
            "numbers."
        )
    found: dict[str, Any] = {}
    for part in parts or there:
        if part == TEXT:
            found[TEXT] = [record.cells.get(TEXT, "").strip() for record in records]
        elif part == NUMBERS:
            rows = [[_number(path, record, name) for name in columns] for record in records]
            found[NUMBERS] = torch.tensor(rows).view(len(records), -1)
            if not columns:
                found[NUMBERS] = torch.full((len(records), 1), torch.nan)
        else:
            found[IMAGE] = _images(path, records, size=size, channels=channels, invert=invert)
    return found


def _images(
    path: str, records: Sequence[Record], *, size: int, channels: int, invert: Invert
) -> Tensor:
    files = [record.cells.get(IMAGE, "").strip() for record in records]
    folder = Path(path).expanduser().parent
    named = [i for i, file in enumerate(files) if file]
    pixels = torch.zeros(len(files), channels, size, size, dtype=torch.uint8)
    if named:
        shape: dict[str, Any] = {"size": size, "channels": channels, "invert": invert}
        pixels[named] = read_images([folder / files[i] for i in named], **shape)[0]
    return pixels


def _number(path: str, record: Record, column: str) -> float:
    """A finite number, or NaN where the cell is empty."""
    text = record.cells.get(column, "").strip()
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path}, line {record.line}: found {text!r} in the column {column!r}, expected a number; correct it, "
            "leave the cell empty, or take the column away."
        )
    return value


class RecordSource(PoolSource):
    """Records of several parts from a CSV, TSV or JSON Lines file: columns image (a file), text, and numbers.

    A column ``label`` says the class; ``group``, ``split`` and ``description`` are those of text files. All other
    columns are numbers, of about the size of 1. Any cell of a part may be empty.

    Args:
        path: the file.
        size: side that images are brought to, in pixels.
        channels: 1 for grey, 3 for colour.
        invert: as in :class:`quickstudy.data.images.ImageSource`.
        validation: share of groups or labels held out for validation.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.
        conflicts: ``error``, or ``drop`` to leave out examples that are given to two classes.
        vary: vary the images of the training examples.

    Raises:
        DataError: the file cannot be used; says what to do, and on which line.
    """

    kind = "several"

    def __init__(
        self,
        path: str | None = None,
        *,
        size: int = 28,
        channels: int = 1,
        invert: Invert = "auto",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
        conflicts: Conflicts = "error",
        vary: bool = True,
    ) -> None:
        if not path:
            raise DataError(
                "Records need a file: records:FILE.csv, with columns label and image, text or numbers."
            )
        self.path, self.variation = path, Variation() if vary else None
        self.size, self.channels = size, channels
        records = read_records(path)
        check_columns(path, records, ["label"])
        self.x = read_parts(path, records, size=size, channels=channels, invert=invert)
        labels = [cell(path, record, "label") for record in records]
        groups = [record.cells.get("group", "").strip() for record in records]
        has_split = "split" in records[0].cells
        splits = [split_of(path, record, "split") if has_split else "" for record in records]
        owners = [f"{g}/{label}" if g else label for g, label in zip(groups, labels, strict=True)]
        marks = [
            repr(
                [record.cells.get(name) for name in record.cells if name not in ("label", "group")]
            )
            for record in records
        ]
        places = [f"{path}, line {record.line}" for record in records]
        keep = distinct(marks, owners, places, what="record", conflicts=conflicts)
        parts = parts_of(keep, list(zip(splits, groups, owners, strict=True)))
        self.parts = shared_out(parts, validation=validation, test=test, seed=seed)
        self._said = group_descriptions(path, records, groups, "description")
        self._encoder: Any = None
        self._tensors: dict[str, Tensor] = {}

    @property
    def encoders(self) -> Mapping[str, Mapping[str, Any]]:
        """An encoder that fits each part, as a configuration says it."""
        known: dict[str, dict[str, Any]] = {}
        if IMAGE in self.x:
            known[IMAGE] = {"name": "image", "size": self.size, "channels": self.channels}
        if TEXT in self.x:
            known[TEXT] = {"name": "words"}
        if NUMBERS in self.x:
            known[NUMBERS] = {"name": "vector", "inputs": self.x[NUMBERS].shape[1]}
        return known

    def prepare(self, encoder: Any) -> None:
        """Turn the texts into what ``encoder`` reads, once.

        Raises:
            DataError: the encoder takes other parts.
        """
        known = getattr(encoder, "parts", ())
        if set(known) != set(self.x):
            raise DataError(
                f"{self.path} has the parts {', '.join(self.x)}, but {type(encoder).__name__} takes "
                f"{', '.join(known) or 'one kind of example'}; choose the encoder several with these parts."
            )
        if encoder is not self._encoder:
            self._encoder, self._tensors = encoder, encoder.read(self.x)

    def pool(self, split: Split) -> Pool:
        classes = self.parts[check_split(split)]
        if self._encoder is None:
            raise DataError("Texts become words first: call prepare(encoder) before pool(split).")
        names = words_of([one.name for one in classes])
        pool = pool_of(self._tensors, classes, split=split, where=self.path, names=names)
        return described(pool, said=self._said)

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        if self.variation is None or IMAGE not in x:
            return x
        return {**tree_map(lambda part: part, x), IMAGE: vary(x[IMAGE], self.variation, generator)}

    def describe(self) -> dict[str, Any]:
        return {"name": "records", "path": self.path, "splits": count_splits(self.parts)}
