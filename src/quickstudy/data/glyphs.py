"""Glyphs: the letters of fourteen scripts, rendered from the fonts that matplotlib carries. No download."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFont
from torch import Tensor

from quickstudy.cache import Array, digest, remember
from quickstudy.data.augment import Variation, vary
from quickstudy.data.source import SPLITS, DataError, Pool, PoolSource, Split
from quickstudy.data.splitting import check_split
from quickstudy.episode import Inputs
from quickstudy.nn.words import bytes_of

FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
"""The sixteen faces; DejaVu is free to use and change, STIX comes under the SIL Open Font License."""


class Script(NamedTuple):
    """A group of letters: its name, how the Unicode names of its letters begin, and its split."""

    name: str
    word: str
    split: Split


SCRIPTS = (
    Script("Latin", "LATIN", "train"),
    Script("Cyrillic", "CYRILLIC", "train"),
    Script("Arabic", "ARABIC", "train"),
    Script("Canadian Aboriginal", "CANADIAN SYLLABICS", "train"),
    Script("Lisu", "LISU", "train"),
    Script("Greek", "GREEK", "validation"),
    Script("Old Italic", "OLD ITALIC", "validation"),
    Script("Ogham", "OGHAM", "validation"),
    Script("Georgian", "GEORGIAN", "test"),
    Script("Armenian", "ARMENIAN", "test"),
    Script("Hebrew", "HEBREW", "test"),
    Script("Tifinagh", "TIFINAGH", "test"),
    Script("Lao", "LAO", "test"),
    Script("N'Ko", "NKO", "test"),
)
"""Whole scripts are held out, so that every letter of the test is new."""

SIZE = 28
"""Pixels of a side of the finished image."""

SAME = 0.985
"""Product of outlines above which two letters are one shape; nobody could tell them apart once they are varied."""

EXAMPLES = 20
"""Drawings of each letter, as many as Omniglot has."""

CANVAS = 64
"""Pixels of the square in which a letter is drawn before it is varied."""

DRAWN = Variation(turn=20, scale=0.23, shear=0.25, shift=0.09, wave=0.03, weight=0.3)
"""How far two examples of a letter differ beside their face."""


TRAINING = Variation(turn=8, scale=0.1, shear=0.1, shift=0.04, wave=0.015, weight=0.9, lean=0.85)
"""How far training examples are varied once more, afresh in every episode."""


def font_folder() -> Path:
    """Where matplotlib keeps its fonts.

    Raises:
        DataError: matplotlib is not installed.
    """
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise DataError(
            "The glyphs are drawn from the fonts of matplotlib, which is not installed; "
            'run pip install "quickstudy[glyphs]".'
        )
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


def drawable(face: Path) -> set[int]:
    """The code points that a font has a drawing for.

    Raises:
        RuntimeError: the file is no font, or a damaged one.
    """
    from matplotlib.ft2font import FT2Font

    return set(FT2Font(str(face)).get_charmap())


def draw(character: str, font: ImageFont.FreeTypeFont) -> Array:
    """A letter in white on black, scaled to fill most of the canvas, uint8 (height, width).

    Proportions are kept, so a dash stays a dash.
    """
    ink = font.getmask(character)
    image = Image.frombytes("L", ink.size, bytes(ink))
    scale = 0.72 * CANVAS / max(image.size)
    wide, high = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((wide, high), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(image, ((CANVAS - image.width) // 2, (CANVAS - image.height) // 2))
    return np.array(canvas)


def is_letter(character: str) -> bool:
    """Whether a character is an undecorated letter that has a name.

    Letters that Unicode composes of others (accents, ligatures, presentation forms) are no classes of their own.
    """
    return (
        unicodedata.category(character) in ("Lu", "Ll", "Lo")
        and unicodedata.name(character, "") != ""
        and unicodedata.normalize("NFKD", character) == character
    )


def drawing_key(version: int, faces: Sequence[object], letters: object) -> str:
    """A key that changes when the drawings of these letters in these faces would."""
    versions = [importlib.metadata.version(name) for name in ("matplotlib", "pillow")]
    return digest([version, faces, SAME, letters, DRAWN, CANVAS, SIZE, EXAMPLES, *versions])


def outline(drawing: Array) -> Tensor:
    """A drawing as a vector of unit length, (256,), whose product with another says how alike they are."""
    coarse = F.avg_pool2d(torch.from_numpy(drawing).float()[None], CANVAS // 16)
    return F.normalize(coarse.flatten(), dim=0)


def draw_everything() -> dict[str, Array]:
    """Every letter of the fourteen scripts in the sixteen faces, as :func:`draw_letters` has them.

    A shape that several letters share (Latin X and Tifinagh ⵝ, large and small O) is one class: it
    belongs to the test scripts first, then to validation, so no shape is in two splits.
    """
    paths = [font_folder() / f"{face}.ttf" for face in FACES]
    faces = {path: drawable(path) for path in paths}
    known = [code for code in sorted(set().union(*faces.values())) if is_letter(chr(code))]
    letters = {
        which: [code for code in known if unicodedata.name(chr(code)).startswith(f"{script.word} ")]
        for which, script in reversed(list(enumerate(SCRIPTS)))
    }
    return draw_letters(faces, letters)


def draw_letters(
    faces: Mapping[Path, set[int]], letters: Mapping[int, Sequence[int]]
) -> dict[str, Array]:
    """Letters, each drawn :data:`EXAMPLES` times with a face and a variation of its own.

    A letter that no face can draw is left out, and so is one of the same shape as an earlier one.

    Args:
        faces: files of fonts, and what each can draw; of a letter, the first :data:`EXAMPLES` that have it are used.
        letters: code points by the number of their script, those first whose shapes are to be kept.

    Returns:
        ``codes`` (letter,), ``scripts`` (letter,), and ``pixels``, uint8 (letter, example, 1, 28, 28).
    """
    fonts = [ImageFont.truetype(str(path), CANVAS) for path in faces]
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros(0, 256)
    codes: list[int] = []
    scripts: list[int] = []
    drawings: list[Array] = []
    chosen: list[Tensor] = []
    for which, members in letters.items():
        for code in members:
            having = [font for font, has in zip(fonts, faces.values(), strict=True) if code in has]
            inked = [font for font in having if all(font.getmask(chr(code)).size)]
            versions = [draw(chr(code), font) for font in inked[:EXAMPLES]]
            if not versions:
                continue
            shape = outline(versions[0])
            if (seen @ shape > SAME).any():
                continue
            seen = torch.cat([seen, shape[None]])
            deal = torch.randperm(len(versions), generator=generator).repeat(EXAMPLES)[:EXAMPLES]
            chosen.append(len(drawings) + deal)
            drawings += versions
            codes.append(code)
            scripts.append(which)
    half = F.avg_pool2d(torch.from_numpy(np.stack(drawings))[:, None].float(), 2).to(torch.uint8)
    rows = torch.cat(chosen).split(4096)
    varied = torch.cat([vary(half[part], DRAWN, generator, size=SIZE) for part in rows])
    return {
        "codes": np.array(codes),
        "scripts": np.array(scripts),
        "pixels": varied.unflatten(0, (len(codes), EXAMPLES)).numpy(),
    }


def _turned(name: str, turn: int) -> str:
    """What a letter is called after so many quarter turns."""
    return f"{name} turned {90 * turn}" if turn else name


class LetterSource(PoolSource):
    """Letters of scripts, each drawn :data:`EXAMPLES` times. Groups are scripts, which describe tasks within one.

    The names of the classes, for learners that read them, are those of Unicode, such as GEORGIAN LETTER AN.

    Args:
        scripts: what the letters are of.
        arrays: the letters, as :func:`draw_letters` makes them.
        rotations: letters turned by 90, 180 and 270 degrees are further training classes.
    """

    kind: ClassVar[Literal["image", "text", "vector"]] = "image"

    def __init__(
        self, scripts: Sequence[Script], arrays: Mapping[str, Array], *, rotations: bool
    ) -> None:
        self.scripts, self.arrays, self.rotations = scripts, arrays, rotations

    def pool(self, split: Split) -> Pool:
        check_split(split)
        own = [which for which, script in enumerate(self.scripts) if script.split == split]
        members = np.flatnonzero(np.isin(self.arrays["scripts"], own))
        pixels = torch.from_numpy(self.arrays["pixels"][members])
        groups = torch.tensor([own.index(which) for which in self.arrays["scripts"][members]])
        letters = [chr(code) for code in self.arrays["codes"][members].tolist()]
        turns = range(4) if self.rotations and split == "train" else range(1)
        scripts = [self.scripts[which].name for which in own]
        turned = torch.cat([torch.rot90(pixels, turn, (-2, -1)) for turn in turns])
        return Pool(
            x=turned.flatten(0, 1),
            counts=torch.full((len(turned),), EXAMPLES),
            class_names=[_turned(letter, turn) for turn in turns for letter in letters],
            groups=groups.repeat(len(turns)),
            group_names=scripts,
            names=bytes_of(
                [
                    _turned(unicodedata.name(letter), turn).upper()
                    for turn in turns
                    for letter in letters
                ]
            ),
            descriptions=bytes_of(scripts),
        )

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        return vary(x, TRAINING, generator)

    def _splits(self) -> dict[str, dict[str, int]]:
        """How many classes and examples each split has."""
        return {
            split: {"classes": pool.classes, "examples": int(pool.counts.sum())}
            for split in SPLITS
            for pool in [self.pool(split)]
        }


class GlyphSource(LetterSource):
    """Letters of fourteen scripts in sixteen faces, turned, stretched, bent, thick and thin.

    Latin, Cyrillic, Arabic, Canadian Aboriginal and Lisu letters are for training; Greek, Old
    Italic and Ogham for validation; Georgian, Armenian, Hebrew, Tifinagh, Lao and N'Ko are not seen
    before the test. Nothing is downloaded.

    Args:
        path: nothing; the glyphs are drawn, not read.
        rotations: letters turned by 90, 180 and 270 degrees are further training classes.

    Raises:
        DataError: a path was given, or matplotlib is not installed.
    """

    def __init__(self, path: str | None = None, *, rotations: bool = True) -> None:
        if path:
            raise DataError(
                f"The glyphs are drawn from the fonts of matplotlib, not read from {path!r}; use the name glyphs "
                f"alone, images:{path} for a folder of class folders, or fonts:{path} for a folder of fonts."
            )
        font_folder()
        key = drawing_key(2, FACES, SCRIPTS)
        super().__init__(SCRIPTS, remember("glyphs", key, draw_everything), rotations=rotations)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "glyphs",
            "title": "Letters of fourteen scripts, drawn from the fonts that matplotlib carries",
            "licence": "DejaVu fonts: free to use, change and share; STIX fonts: SIL Open Font "
            "License 1.1",
            "splits": self._splits(),
        }
