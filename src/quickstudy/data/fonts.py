"""The letters of every script that the fonts of a folder can draw. Nothing is downloaded."""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quickstudy.cache import Array, remember
from quickstudy.data import glyphs
from quickstudy.data.glyphs import LetterSource, Script, draw_letters
from quickstudy.data.source import DataError, DataNote, Split

FILES = (".ttf", ".otf", ".ttc")
LEAST = 10
"""Letters of a script; one with fewer makes no tasks of its own."""
HELD_OUT = {
    split: "+".join(script.name for script in glyphs.SCRIPTS if script.split == split)
    for split in ("validation", "test")
}
"""Scripts that ``glyphs`` holds out, so that letters there are new to a model of fonts, too."""


class FontSource(LetterSource):
    """Letters of every script that the fonts of a folder can draw, varied as those of ``glyphs`` are.

    Letters are those of Unicode (Lu, Ll, Lo) that are not composed of others; scripts are Unicode's, too, and whole
    ones are held out. What looks the same in two scripts is one class: of the test first, then of validation.

    Args:
        path: the folder; files .ttf, .otf and .ttc in it and below it are used.
        rotations: letters turned by 90, 180 and 270 degrees are further training classes.
        most: letters of a script, drawn by the seed where it has more, as those of China have.
        validation: names of the scripts for validation, with a plus between; those that no font has are passed over.
        test: of those for the test. All others are for training.
        seed: another seed, other letters of large scripts.

    Raises:
        DataError: no folder, no fonts in it, or a split without scripts; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        rotations: bool = True,
        most: int = 120,
        validation: str = HELD_OUT["validation"],
        test: str = HELD_OUT["test"],
        seed: int = 0,
    ) -> None:
        if not path:
            raise DataError(
                "Fonts need a folder: fonts:FOLDER with files .ttf, .otf or .ttc in it."
            )
        glyphs.font_folder()
        if most < LEAST:
            raise DataError(f"The option most must be at least {LEAST}; found {most}.")
        self.path = path
        faces = _faces(Path(path).expanduser())
        held: dict[str, Split] = {_plain(name): "validation" for name in validation.split("+")}
        held |= {_plain(name): "test" for name in test.split("+")}
        by_script = _letters(set().union(*faces.values()), most=most, seed=seed)
        splits = {name: held.get(_plain(name), "train") for name in by_script}
        missing = {"train", "validation", "test"} - set(splits.values())
        if missing:
            raise DataError(
                f"The fonts of {path} have letters of {', '.join(by_script) or 'no script'}, of which none is for "
                f"{' and '.join(sorted(missing))}. Name scripts that are there by validation=NAME+NAME and test=NAME, "
                "or add fonts."
            )
        # The first to be drawn keep what others look like, too.
        scripts = [
            Script(name, "", split)
            for split in ("test", "validation", "train")
            for name in by_script
            if splits[name] == split
        ]
        letters = {which: by_script[script.name] for which, script in enumerate(scripts)}
        sizes = [(str(face), face.stat().st_size) for face in faces]
        key = glyphs.drawing_key(1, sizes, letters)
        arrays = remember("fonts", key, partial(_drawn, faces, letters))
        super().__init__(scripts, arrays, rotations=rotations)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "fonts",
            "title": f"Letters of {len(self.scripts)} scripts, drawn from the fonts of {self.path}",
            "licence": "that of the fonts",
            "splits": self._splits(),
        }


def _plain(script: str) -> str:
    """N'Ko, Nko and NKO are one script."""
    return "".join(filter(str.isalpha, script)).casefold()


def _drawn(faces: dict[Path, set[int]], letters: dict[int, list[int]]) -> dict[str, Array]:
    count = sum(map(len, letters.values()))
    warnings.warn(
        f"Drawing {count:,} letters with {len(faces)} fonts; that takes some milliseconds each, and is kept.",
        DataNote,
        stacklevel=5,
    )
    return draw_letters(faces, letters)


def _faces(folder: Path) -> dict[Path, set[int]]:
    """The files of fonts that can be read, in order, and what each can draw; a note names those that cannot.

    Raises:
        DataError: there is no such folder, or no font in it.
    """
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}; fonts:FOLDER names one with files .ttf, .otf or .ttc."
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in FILES)
    faces: dict[Path, set[int]] = {}
    unread = []
    for file in files:
        try:
            faces[file] = glyphs.drawable(file)
        except (RuntimeError, OSError):
            unread.append(file.name)
    if unread:
        warnings.warn(
            f"Left out {len(unread)} of {len(files)} fonts in {folder}, which cannot be read: {', '.join(unread[:5])}.",
            DataNote,
            stacklevel=3,
        )
    if not faces:
        raise DataError(
            f"{folder} holds no font that can be read; expected files .ttf, .otf or .ttc."
        )
    return faces


def _letters(known: set[int], *, most: int, seed: int) -> dict[str, list[int]]:
    """The code points of the letters of each script that has enough of them."""
    from fontTools import unicodedata as scripts

    by_script: dict[str, list[int]] = defaultdict(list)
    for code in sorted(known):
        if glyphs.is_letter(chr(code)):
            by_script[str(scripts.script_name(scripts.script(chr(code))))].append(code)
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    for name, codes in sorted(by_script.items()):
        if len(codes) < LEAST or name in ("Common", "Inherited", "Unknown"):
            continue
        kept = torch.randperm(len(codes), generator=generator)[:most].sort().values
        chosen[name] = [codes[place] for place in kept.tolist()]
    return chosen
