"""Omniglot: handwritten characters of fifty alphabets, read from the published archives."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import replace
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from quickstudy.cache import Array, digest, remember
from quickstudy.data.augment import Variation, vary
from quickstudy.data.catalog import CATALOG, data_folder
from quickstudy.data.decoding import FORMAT, by_area, check_image_options
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.splitting import LabelledClass, assign, check_split, count_splits, pool_of
from quickstudy.episode import Inputs

Part = Literal["background", "evaluation"]

IMAGES: dict[Part, int] = {"background": 19_280, "evaluation": 13_180}
"""Drawings in each archive."""

BATCH = 256
"""Drawings shrunk at once: few enough to stay in the cache of the processor."""

HELD_OUT = 5
"""Background alphabets kept for validation."""

LISTS: dict[Split, str] = {
    "train": "vinyals_train.txt",
    "validation": "vinyals_val.txt",
    "test": "vinyals_test.txt",
}
"""The split of Vinyals et al. 2016: one ``Alphabet/characterNN/rotDDD`` a line."""

_MEMBER = re.compile(r"images_(?:background|evaluation)/([^/]+)/(character\d+)/([^/]+)\.png")
_CLASS = re.compile(r"([^/]+)/(character\d+)/rot(000|090|180|270)")


def _check_archive(file: Path, part: Part, found: int, data: bytes) -> None:
    """Accept the published archive and its repacked copies by checksum, any other copy by its number of drawings."""
    known = CATALOG["omniglot"].files[file.name].checksums
    if f"md5:{md5(data, usedforsecurity=False).hexdigest()}" not in known and found != IMAGES[part]:
        raise DataError(
            f"{file} is not Omniglot's archive: found {found:,} drawings at images_{part}/ALPHABET/characterNN/, "
            f"expected {IMAGES[part]:,}; fetch it again with: quickstudy download omniglot"
        )


def _decode_archive(file: Path, part: Part, data: bytes, size: int) -> dict[str, Array]:
    """Pixels (drawing, 1, size, size), and the names of the drawings as UTF-8, a line each."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = sorted(name for name in archive.namelist() if _MEMBER.fullmatch(name))
            _check_archive(file, part, len(members), data)
            pieces = []
            for start in range(0, len(members), BATCH):
                drawings = []
                for name in members[start : start + BATCH]:
                    with Image.open(BytesIO(archive.read(name)), formats=("PNG",)) as image:
                        drawings.append(np.asarray(image.convert("L")))
                pieces.append(255 - by_area(np.stack(drawings), size, size))
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{file} is damaged ({error}); fetch it again with: quickstudy download omniglot"
        ) from error
    names = np.frombuffer("\n".join(members).encode(), dtype=np.uint8)
    return {"pixels": np.concatenate(pieces)[:, None], "names": names}


def read_archive(file: Path, part: Part, *, size: int = 28) -> tuple[Tensor, list[str], list[str]]:
    """The drawings of one archive, ink bright on dark, shrunk by the mean over areas.

    Returns:
        uint8 (drawing, 1, size, size), and the alphabet and the character (``Alphabet/characterNN``) of each.

    Raises:
        DataError: the archive is missing, damaged, or another one.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"Omniglot's archive {file} cannot be read ({error.strerror}); run: quickstudy download omniglot, or name "
            "the folder that holds images_background.zip and images_evaluation.zip: omniglot:FOLDER"
        ) from error
    key = digest([FORMAT, size, part, data])
    kept = remember("omniglot", key, lambda: _decode_archive(file, part, data, size))
    parts = [name.split("/") for name in kept["names"].tobytes().decode().split("\n")]
    return (
        torch.from_numpy(kept["pixels"]),
        [p[1] for p in parts],
        [f"{p[1]}/{p[2]}" for p in parts],
    )


def read_list(file: Path) -> list[tuple[str, int]]:
    """The classes of one list of Vinyals et al.: character and quarter turns.

    Raises:
        DataError: the list is missing or holds something else.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"The split list {file} is missing; put vinyals_train.txt, vinyals_val.txt and vinyals_test.txt (lines "
            "like Angelic/character01/rot090) into that folder, or leave out protocol=vinyals."
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        match = _CLASS.fullmatch(line.strip())
        if match is None and line.strip():
            raise DataError(
                f"{file}, line {number}: found {line!r}, expected ALPHABET/characterNN/rotDDD."
            )
        if match is not None:
            found.append((f"{match[1]}/{match[2]}", int(match[3]) // 90))
    return found


class OmniglotSource(PoolSource):
    """Handwritten characters: train on some alphabets, test on others.

    Lake et al. 2015, Human-level concept learning through probabilistic program induction; ``protocol="vinyals"``:
    Vinyals et al. 2016, Matching Networks for One Shot Learning, with each character turned by 0, 90, 180 and 270
    degrees as four classes. Without it, the test split is the evaluation alphabets, and five of the background
    alphabets are for validation.

    Args:
        path: folder with images_background.zip and images_evaluation.zip (and ``splits`` for Vinyals' lists);
            where ``quickstudy download omniglot`` puts them, when absent.
        protocol: ``lake`` or ``vinyals``.
        size: side of the images in pixels.
        vary: vary the training drawings: turn, scale, shear and shift a little.

    Raises:
        DataError: an archive or a list is missing or damaged.
    """

    kind = "image"

    def __init__(
        self,
        path: str | None = None,
        *,
        protocol: Literal["lake", "vinyals"] = "lake",
        size: int = 28,
        vary: bool = True,
    ) -> None:
        if protocol not in ("lake", "vinyals"):
            raise DataError(f"The protocol must be lake or vinyals; found {protocol!r}.")
        check_image_options(size, 1)
        self.folder = Path(path).expanduser() if path else data_folder("omniglot")
        self.protocol, self.variation = protocol, Variation() if vary else None
        images, alphabets, self.characters = [], [], []
        self._where: list[Part] = []
        for part in IMAGES:
            pixels, groups, names = read_archive(
                self.folder / f"images_{part}.zip", part, size=size
            )
            images.append(pixels)
            alphabets += groups
            self.characters += names
            self._where += [part] * len(names)
        self._images = torch.cat(images)
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.characters):
            rows.setdefault(name, []).append(row)
        self._classes = {
            name: LabelledClass(name, alphabets[members[0]], members)
            for name, members in rows.items()
        }
        self._turns: dict[Split, list[int]] = {}
        self.parts = self._lake() if protocol == "lake" else self._vinyals()

    def _lake(self) -> dict[Split, list[LabelledClass]]:
        parts: dict[Split, list[LabelledClass]] = {"train": [], "validation": [], "test": []}
        background = sorted(
            {
                one.group
                for one in self._classes.values()
                if self._where[one.rows[0]] == "background"
            }
        )
        share = min(HELD_OUT, len(background) - 1) / len(background)
        chosen = assign(background, validation=share, test=0.0, seed=0, least=1)
        split_of = dict(zip(background, chosen, strict=True))
        for one in self._classes.values():
            in_background = self._where[one.rows[0]] == "background"
            parts[split_of[one.group] if in_background else "test"].append(one)
        return parts

    def _vinyals(self) -> dict[Split, list[LabelledClass]]:
        parts: dict[Split, list[LabelledClass]] = {}
        for split, name in LISTS.items():
            file = self.folder / "splits" / name
            listed = read_list(file)
            unknown = [character for character, _ in listed if character not in self._classes]
            if unknown:
                raise DataError(
                    f"{file} names {unknown[0]!r}, which is not in the archives; fetch them again."
                )
            self._turns[split] = [turn for _, turn in listed]
            parts[split] = [
                replace(self._classes[character], name=f"{character}/rot{90 * turn:03d}")
                for character, turn in listed
            ]
        return parts

    def pool(self, split: Split) -> Pool:
        classes = self.parts[check_split(split)]
        pool = pool_of(self._images, classes, split=split, where=str(self.folder))
        if split not in self._turns:
            return pool
        turns = torch.tensor(self._turns[split])[pool.labels]
        for turn in (1, 2, 3):
            of_turn = turns == turn
            pool.x[of_turn] = pool.x[of_turn].rot90(turn, dims=(-2, -1))
        return pool

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        return x if self.variation is None else vary(x, self.variation, generator)

    def describe(self) -> dict[str, Any]:
        entry = CATALOG["omniglot"]
        return {
            "name": "omniglot",
            "protocol": self.protocol,
            "licence": entry.licence,
            "source": entry.source,
            "splits": count_splits(self.parts),
        }
