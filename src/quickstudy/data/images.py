"""Images in class folders, or in group folders of class folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quickstudy.data.augment import Variation, vary
from quickstudy.data.calling import described, words_of
from quickstudy.data.decoding import Invert, read_images
from quickstudy.data.source import DataError, Pool, PoolSource, Split
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
from quickstudy.episode import Inputs

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pbm"]
)
"""Endings of the files that are taken for images."""

IGNORED = frozenset({"thumbs.db", "desktop.ini"})
"""Files that file managers leave behind; hidden files are ignored too."""


@dataclass(frozen=True)
class ClassFolder:
    """The images of one class; ``split`` is empty unless the folders name it."""

    split: str
    group: str
    name: str
    files: list[Path]


def _listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files of a folder, in order of their names, without hidden ones."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    seen = [p for p in entries if not p.name.startswith(".") and p.name.lower() not in IGNORED]
    return [p for p in seen if p.is_dir()], [p for p in seen if not p.is_dir()]


def is_image(file: Path) -> bool:
    """Whether a file's name ends like an image's."""
    return file.suffix.lower() in SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """The images right inside a folder of images.

    Raises:
        DataError: there are none, or a file beside them is no image.
    """
    _, files = _listing(folder)
    strays = [file for file in files if not is_image(file)]
    if strays:
        raise DataError(
            f"{strays[0]} lies among images but does not end in {', '.join(sorted(SUFFIXES))}; convert it or move it."
        )
    if not files:
        raise DataError(
            f"The folder {folder} holds no images; put the images of one class into it."
        )
    return files


def _class_folders(folder: Path, *, split: str) -> list[ClassFolder]:
    """Class folders, or group folders of class folders."""
    tops, beside = _listing(folder)
    astray = [file for file in beside if is_image(file)]
    if astray:
        raise DataError(
            f"The image {astray[0]} lies beside the class folders and so belongs to no class; "
            "move it into the folder of its class."
        )
    if not tops:
        raise DataError(
            f"The folder {folder} holds no class folders; expected one folder of images for each class."
        )
    inner = {top: _listing(top) for top in tops}
    nested = [top for top in tops if inner[top][0]]
    flat = [top for top in tops if not inner[top][0]]
    if nested and flat:
        raise DataError(
            f"{flat[0]} holds images, but {nested[0]} holds folders; use class folders, or group folders that hold "
            "class folders, throughout."
        )
    if not nested:
        return [ClassFolder(split, "", top.name, list_images(top)) for top in tops]
    found = []
    for top in tops:
        classes, beside = inner[top]
        astray = [file for file in beside if is_image(file)]
        if astray:
            raise DataError(
                f"The image {astray[0]} lies beside the class folders of its group; move it into one of them."
            )
        for inside in classes:
            deeper, _ = _listing(inside)
            if deeper:
                raise DataError(
                    f"The folder {deeper[0]} lies too deep; expected {folder}/group/class/image."
                )
            found.append(
                ClassFolder(split, top.name, f"{top.name}/{inside.name}", list_images(inside))
            )
    return found


def find_classes(path: str | Path) -> list[ClassFolder]:
    """The classes of a folder: class folders, group/class folders, or either below train, validation and test.

    Raises:
        DataError: the folder is missing or laid out in another way.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"The folder {folder} {what}; expected a folder of class folders.")
    tops, _ = _listing(folder)
    names = [SPLIT_NAMES.get(top.name.lower()) for top in tops]
    if len(tops) >= 2 and all(names) and len(set(names)) == len(names):
        return [
            one
            for top, name in zip(tops, names, strict=True)
            for one in _class_folders(top, split=str(name))
        ]
    return _class_folders(folder, split="")


class ImageSource(PoolSource):
    """Images in class folders, or in group folders of class folders.

    ``FOLDER/class/image.png`` or ``FOLDER/group/class/image.png``; below ``train``, ``validation`` and ``test``
    where the splits are given. Otherwise whole groups are held out, or whole classes where there are fewer than
    three groups. Decoded images are kept in the cache until a file changes.

    Args:
        path: the folder.
        size: side that images are brought to, in pixels.
        channels: 1 for grey, 3 for colour.
        invert: ``auto`` makes ink bright on dark in grey images whose border is bright like paper; ``no`` for
            grey photographs.
        validation: share of groups or classes held out for validation.
        test: share held out for testing; 1 to test on all of them.
        seed: another seed, another split.
        conflicts: ``error``, or ``drop`` to leave out examples that are given to two classes.
        vary: vary the training examples: turn, scale, shear and shift a little.

    Raises:
        DataError: the folder or one of its images cannot be used.
    """

    kind = "image"

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
            raise DataError("Images need a folder: images:FOLDER, with one folder for each class.")
        self.path, self.variation = path, Variation() if vary else None
        folders = find_classes(path)
        if len(folders) < 2:
            raise DataError(
                f"{path} holds one class, {folders[0].name!r}; a task needs at least 2. Add a folder of another class."
            )
        files = [file for one in folders for file in one.files]
        keys = [(one.split, one.group, one.name) for one in folders for _ in one.files]
        self.x, marks = read_images(files, size=size, channels=channels, invert=invert)
        owners = [name for _, _, name in keys]
        keep = distinct(
            marks, owners, [str(file) for file in files], what="image", conflicts=conflicts
        )
        parts = parts_of(keep, keys)
        self.parts = shared_out(parts, validation=validation, test=test, seed=seed)

    def pool(self, split: Split) -> Pool:
        classes = self.parts[check_split(split)]
        names = words_of([one.name for one in classes])
        return described(pool_of(self.x, classes, split=split, where=self.path, names=names))

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        return x if self.variation is None else vary(x, self.variation, generator)

    def describe(self) -> dict[str, Any]:
        return {"name": "images", "path": self.path, "splits": count_splits(self.parts)}
