"""Letters of one's own fonts: scripts are found, held out whole, and what cannot be drawn is said."""

from __future__ import annotations

import shutil
import unicodedata
import warnings
from pathlib import Path

import pytest
import torch

from quickstudy.build import build_source
from quickstudy.data.fonts import FontSource
from quickstudy.data.glyphs import SCRIPTS, GlyphSource, font_folder
from quickstudy.data.source import SPLITS, DataError, DataNote
from quickstudy.nn.words import bytes_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two faces, one of them further down."""
    folder = tmp_path_factory.mktemp("fonts")
    (folder / "more").mkdir()
    shutil.copy(font_folder() / "DejaVuSans.ttf", folder)
    shutil.copy(font_folder() / "DejaVuSerif-Bold.ttf", folder / "more" / "SERIF.TTF")
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> FontSource:
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        source = FontSource(str(folder), most=12)
    assert ["letters with 2 fonts" in str(note.message) for note in notes] == [True]
    return source


def test_scripts_that_glyphs_holds_out_are_held_out(source: FontSource) -> None:
    pools = {split: source.pool(split) for split in SPLITS}
    scripts = {split: set(pool.group_names) for split, pool in pools.items()}
    assert scripts["test"] == {"Georgian", "Armenian", "Hebrew", "Tifinagh", "Lao", "Nko"}
    assert scripts["validation"] == {"Greek", "Old Italic", "Ogham"}
    assert {"Latin", "Cyrillic", "Arabic"} <= scripts["train"]
    begins = {script.name.replace("'", "").lower(): script.word for script in SCRIPTS}
    for pool in pools.values():
        for name, group in zip(pool.class_names, pool.groups.tolist(), strict=True):
            word = begins.get(pool.group_names[group].lower(), "")
            assert unicodedata.name(name[0]).startswith(word)


def test_large_scripts_give_so_many_letters_and_others_all(source: FontSource) -> None:
    for split in SPLITS:
        pool = source.pool(split)
        assert (pool.counts == 20).all()
        classes = pool.groups.bincount() // (4 if split == "train" else 1)
        assert int(classes.max()) <= 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        other = FontSource(source.path, most=12, seed=1)
    assert set(other.pool("train").class_names) != set(source.pool("train").class_names)


def test_no_drawing_is_in_two_splits_and_names_are_unicode(source: FontSource) -> None:
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        pool = source.pool(split)
        for drawing in pool.x:
            assert seen.setdefault(drawing.numpy().tobytes(), split) == split
        first = bytes_of([unicodedata.name(pool.class_names[0])])
        assert torch.equal(pool.names[0, : first.shape[1]], first[0])


def test_letters_are_those_of_glyphs_where_the_fonts_are(source: FontSource) -> None:
    """One way to draw: what glyphs tells apart by its first face is drawn with the same ink here."""
    mine, theirs = source.pool("test"), GlyphSource().pool("test")
    shared = set(mine.class_names) & set(theirs.class_names)
    assert len(shared) > 40
    for letter in sorted(shared)[::8]:
        one, other = (
            pool.of_class(pool.class_names.index(letter)).float().mean((0, 1))
            for pool in (mine, theirs)
        )
        alike = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert float(alike) > 0.8, letter


def test_scripts_are_chosen_by_name(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)
        source = build_source(f"fonts:{folder},most=10,validation=greek,test=Cyrillic+N'Ko")
        assert set(source.pool("test").group_names) == {"Cyrillic", "Nko"}  # type: ignore[attr-defined]
        assert set(source.pool("validation").group_names) == {"Greek"}  # type: ignore[attr-defined]
    assert source.describe()["splits"]["test"]["classes"] <= 20
    with pytest.raises(DataError, match=r"Armenian.*of which none is for test\. Name scripts"):
        FontSource(str(folder), test="Klingon")


def test_what_cannot_be_read_is_named_and_the_rest_is_used(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "mixed")
    whole = (folder / "DejaVuSans.ttf").read_bytes()
    (tmp_path / "mixed" / "broken.ttf").write_bytes(whole[:500])
    (tmp_path / "mixed" / "readme.txt").write_text("no font")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        FontSource(str(tmp_path / "mixed"), most=10)
    left_out, _ = (str(note.message) for note in notes)
    assert left_out.startswith("Left out 1 of 3 fonts in")
    assert left_out.endswith("which cannot be read: broken.ttf.")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: FontSource(), "Fonts need a folder"),
        (lambda place: FontSource(str(place / "none")), "There is no folder"),
        (lambda place: FontSource(str(place)), "holds no font that can be read"),
        (lambda place: FontSource(str(place), most=3), "most must be at least 10; found 3"),
    ],
)
def test_what_is_missing_is_said(make: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        make(tmp_path)  # type: ignore[operator]
