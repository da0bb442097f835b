"""A person's own examples: with labels, to adapt to; without, to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from quickstudy.data.calling import note_trimmed
from quickstudy.data.decoding import Invert, read_images
from quickstudy.data.images import find_classes, is_image, list_images
from quickstudy.data.items import read_parts
from quickstudy.data.records import (
    TABLES,
    cell,
    check_columns,
    is_table,
    read_records,
    text_lines,
)
from quickstudy.data.rows import LABEL, RENAME, Categories, check_table, row_of, rows_of
from quickstudy.data.source import DataError
from quickstudy.data.splitting import check_conflicts, note_conflicts, without_copies
from quickstudy.episode import Inputs

Kind = Literal["image", "text", "vector", "several"]

TEXT = "text"
"""The column of the texts."""


class Labelled(NamedTuple):
    """Examples and their labels."""

    x: Inputs
    """uint8 (example, channel, height, width), a list of texts, float (example, column), or these by name."""
    labels: list[str]
    """A label for each."""
    origins: list[str]
    """Where each came from: a file, or ``file.csv:12`` for the record that begins on line 12."""
    columns: Sequence[str] = ()
    """Of numbers, what the columns are called, in their order."""
    categories: Categories | None = None
    """As in :class:`quickstudy.data.rows.Rows`."""


def read_labelled(
    path: str,
    *,
    kind: Kind,
    size: int = 28,
    channels: int = 1,
    invert: Invert = "auto",
    parts: Sequence[str] = (),
    columns: Sequence[str] = (),
    coded: bool = False,
    categories: Categories | None = None,
    fewest_classes: int = 2,
    once: bool = False,
) -> Labelled:
    """Examples with labels: a folder of class folders of images, or a table with a column ``label``.

    Args:
        path: the folder or the table (.csv, .tsv or .jsonl).
        kind: what the examples are; numbers stand in all columns but ``label``, ``group`` and ``split``.
        size: side of the images in pixels.
        channels: 1 for grey images, 3 for colour.
        invert: as in :class:`quickstudy.data.images.ImageSource`.
        parts: of examples of several.
        columns: of a task of numbers that was begun, what these are called; by default those that there are.
        coded: of numbers, there may be categories and gaps as well.
        categories: of a task that was begun, those that it knows.
        fewest_classes: 2 for a new task; 1 for more examples of a task that was begun.
        once: of images and texts that are given twice in a class, keep the first, with a note.

    Raises:
        DataError: what was found cannot be used; says where and what to do.
    """
    if kind == "image":
        found, marks = _labelled_images(path, size=size, channels=channels, invert=invert)
        if once:
            kept = without_copies(marks, found.labels, found.origins, what="image")
            found = _some(found, kept)
    else:
        _check_table(path, kind)
        records = read_records(path)
        needed = [TEXT, LABEL] if kind == "text" else [LABEL]
        check_columns(path, records, needed, remedy=RENAME)
        origins = [f"{path}:{record.line}" for record in records]
        labels = [cell(path, record, LABEL) for record in records]
        note_trimmed(record.cells[LABEL] for record in records)
        if kind == "several":
            shape: dict[str, Any] = {"size": size, "channels": channels, "invert": invert}
            found = Labelled(read_parts(path, records, parts=parts, **shape), labels, origins)
        elif kind == "text":
            texts = [cell(path, record, TEXT) for record in records]
            note_conflicts(texts, labels, origins, what="text")
            found = Labelled(texts, labels, origins)
            if once:
                found = _some(found, without_copies(texts, labels, origins, what="text"))
        else:
            rows = rows_of(path, records, columns, coded=coded, categories=categories)
            found = Labelled(rows.x, labels, origins, rows.columns, rows.categories)
    classes = sorted(set(found.labels))
    if len(classes) < fewest_classes:
        raise DataError(
            f"{path} holds one class, {classes[0]!r}; a task needs at least {fewest_classes}. Add examples of another."
        )
    return found


def read_inputs(
    paths: Sequence[str],
    *,
    kind: Kind,
    size: int = 28,
    channels: int = 1,
    invert: Invert = "auto",
    parts: Sequence[str] = (),
    columns: Sequence[str] = (),
    coded: bool = False,
    categories: Categories | None = None,
    typed: bool = True,
) -> tuple[Inputs, list[str]]:
    """Examples without labels, and where each came from.

    Args:
        paths: for images, files or folders of them; for numbers, tables; for texts, tables with a column ``text``,
            ``.txt`` files with a text on each line, or the texts themselves. Of a task of numbers, a row may be typed
            as well, with commas between.
        kind: what the examples are.
        size: side of the images in pixels.
        channels: 1 for grey images, 3 for colour.
        invert: as in :class:`quickstudy.data.images.ImageSource`.
        parts: of examples of several, which stand in tables.
        columns: as in :func:`read_labelled`, and so are those that follow.
        coded: there may be categories and gaps.
        categories: those that a task knows.
        typed: a text or a row may be given itself, and not only a file of them.

    Returns:
        The ``x`` and the ``origins`` of :class:`Labelled`.

    Raises:
        DataError: what was found cannot be used; says where and what to do.
    """
    if not paths:
        raise DataError(
            "There is nothing to answer; name a file, a folder or, for texts, the text itself."
        )
    if kind == "image":
        files = [file for path in paths for file in _image_files(path)]
        x, _ = read_images(files, size=size, channels=channels, invert=invert)
        return x, [str(file) for file in files]
    if kind == "text":
        found = [
            one
            for place, path in enumerate(paths, start=1)
            for one in _texts(path, place, typed=typed)
        ]
        return [text for text, _ in found], [origin for _, origin in found]
    if kind == "several":
        if len(paths) != 1:
            raise DataError(f"Found {len(paths)} inputs; put all records into one table.")
        _check_table(paths[0], kind)
        records = read_records(paths[0])
        options: dict[str, Any] = {"size": size, "channels": channels, "invert": invert}
        several = read_parts(paths[0], records, parts=parts, **options)
        return several, [f"{paths[0]}:{record.line}" for record in records]
    tables: list[torch.Tensor] = []
    origins: list[str] = []
    for path in paths:
        if typed and columns and not is_table(path):
            tables.append(row_of(path, columns, categories))
            origins.append(path)
            continue
        _check_table(path, kind)
        records = read_records(path)
        # Of several tables, all have the columns of the first.
        table, columns, categories = rows_of(
            path, records, columns, coded=coded, categories=categories
        )
        tables.append(table)
        origins += [f"{path}:{record.line}" for record in records]
    return torch.cat(tables), origins


def _some(found: Labelled, kept: list[int]) -> Labelled:
    """Those of texts or images."""
    x: Any = found.x
    labels, origins = ([part[i] for i in kept] for part in (found.labels, found.origins))
    return Labelled([x[i] for i in kept] if isinstance(x, list) else x[kept], labels, origins)


def _labelled_images(
    path: str, *, size: int, channels: int, invert: Invert
) -> tuple[Labelled, list[bytes]]:
    """Every image below a folder, and what tells them apart; where folders name splits, these do not matter here."""
    folders = find_classes(path)
    files = [file for one in folders for file in one.files]
    labels = [one.name for one in folders for _ in one.files]
    x, marks = read_images(files, size=size, channels=channels, invert=invert)
    origins = [str(file) for file in files]
    check_conflicts(marks, labels, origins, what="image")
    return Labelled(x, labels, origins), marks


def _check_table(path: str, kind: Kind) -> None:
    """Check that a path is a table."""
    columns = {"text": "text and label", "several": "image, text or numbers, and label"}
    check_table(path, columns.get(kind, "of numbers, and label"))


def _image_files(path: str) -> list[Path]:
    """An image, or the images right inside a folder."""
    place = Path(path).expanduser()
    if place.is_dir():
        return list_images(place)
    if not place.exists():
        raise DataError(f"There is no image {path}; name a file or a folder of images.")
    if not is_image(place):
        raise DataError(f"{path} does not end like an image; convert it, for example to PNG.")
    return [place]


def _texts(path: str, place: int, *, typed: bool) -> list[tuple[str, str]]:
    """Texts and origins of a table, of a text file, or of one argument."""
    if is_table(path):
        records = read_records(path)
        check_columns(path, records, [TEXT], remedy=RENAME)
        return [(cell(path, record, TEXT), f"{path}:{record.line}") for record in records]
    if not path.strip():
        raise DataError(f"Text number {place} is empty; say something.")
    is_there = _is_there(path)
    if Path(path).suffix.lower() == ".txt" and (is_there or " " not in Path(path).name):
        return [(line, f"{path}:{number}") for number, line in text_lines(path)]
    if is_there or not typed or path.startswith(("./", "../", "~/")):
        found = f"{path} cannot be read as texts" if is_there else f"There is no file {path}"
        raise DataError(
            f"{found}; texts are read from tables ({', '.join(sorted(TABLES))}) with the column {TEXT!r}, and from "
            ".txt files with one on each line."
        )
    return [(path.strip(), f"text {place}")]


def _is_there(path: str) -> bool:
    """Whether there is such a file or folder; a long text is the name of none."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
