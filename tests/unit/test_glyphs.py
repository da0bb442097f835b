"""Letters: whole scripts held out, no shape in two splits, and variations that keep the letter."""

from __future__ import annotations

import unicodedata

import pytest
import torch

from quickstudy.data.augment import Variation, vary
from quickstudy.data.glyphs import SCRIPTS, GlyphSource
from quickstudy.data.source import SPLITS, DataError


@pytest.fixture(scope="module")
def source() -> GlyphSource:
    return GlyphSource()


def test_whole_scripts_are_held_out(source: GlyphSource) -> None:
    pools = {split: source.pool(split) for split in SPLITS}
    scripts = [set(pool.group_names) for pool in pools.values()]
    assert not scripts[0] & scripts[1]
    assert not scripts[0] & scripts[2]
    assert not scripts[1] & scripts[2]
    assert set(pools["test"].group_names) == {
        *("Georgian", "Armenian", "Hebrew"),
        *("Tifinagh", "Lao", "N'Ko"),
    }
    words = {script.name: script.word for script in SCRIPTS}
    for pool in pools.values():
        for name, group in zip(pool.class_names, pool.groups.tolist(), strict=True):
            assert unicodedata.name(name[0]).startswith(words[pool.group_names[group]])


def test_every_letter_has_twenty_drawings_with_ink(source: GlyphSource) -> None:
    for split in SPLITS:
        pool = source.pool(split)
        assert (pool.counts == 20).all()
        assert pool.x.shape[1:] == (1, 28, 28)
        assert pool.x.dtype == torch.uint8
        ink = (pool.x > 127).float().mean((1, 2, 3))
        assert float(ink.min()) > 0.002
        assert float(ink.max()) < 0.6


def test_rotations_are_further_training_classes(source: GlyphSource) -> None:
    plain, turned = GlyphSource(rotations=False).pool("train"), source.pool("train")
    assert turned.classes == 4 * plain.classes
    second = turned.of_class(plain.classes)
    assert torch.equal(second, torch.rot90(plain.of_class(0), 1, (-2, -1)))
    assert turned.class_names[plain.classes] == f"{plain.class_names[0]} turned 90"
    assert source.pool("test").classes == GlyphSource(rotations=False).pool("test").classes


def test_no_drawing_is_in_two_splits(source: GlyphSource) -> None:
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        for drawing in source.pool(split).x:
            assert seen.setdefault(drawing.numpy().tobytes(), split) == split


def test_glyphs_are_not_read_from_a_folder() -> None:
    with pytest.raises(DataError, match="images:letters"):
        GlyphSource("letters")


def test_training_examples_are_varied_afresh(source: GlyphSource) -> None:
    x = source.pool("validation").x[:64]
    one = source.augment(x, torch.Generator().manual_seed(1))
    again = source.augment(x, torch.Generator().manual_seed(1))
    other = source.augment(x, torch.Generator().manual_seed(2))
    assert one.dtype == torch.uint8
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def disc(size: int = 32, radius: float = 6.0) -> torch.Tensor:
    axis = torch.arange(size) - (size - 1) / 2
    inside = axis[:, None] ** 2 + axis[None] ** 2 <= radius**2
    return (inside * 255).to(torch.uint8)[None, None]


STILL = Variation(turn=0, scale=0, shear=0, shift=0)


def test_examples_are_varied_by_themselves() -> None:
    pictures = torch.randint(0, 256, (3, 2, 16, 16), dtype=torch.uint8)
    drawn = vary(pictures, Variation(weight=0.5, wave=0.05), torch.Generator().manual_seed(3))
    pictures[1] = 0
    after = vary(pictures, Variation(weight=0.5, wave=0.05), torch.Generator().manual_seed(3))
    assert torch.equal(drawn[[0, 2]], after[[0, 2]])
    assert not after[1].any()


def test_the_size_of_the_result_is_chosen() -> None:
    small = vary(disc(), STILL, torch.Generator(), size=16)
    assert small.shape == (1, 1, 16, 16)
    assert abs(float((small > 127).float().mean() - (disc() > 127).float().mean())) < 0.03


def test_weight_thickens_or_thins() -> None:
    discs = disc().expand(200, 1, 32, 32)
    area = (disc() > 127).sum()
    thick = vary(discs, Variation(0, 0, 0, 0, weight=1.0, lean=0.0), torch.Generator())
    thin = vary(discs, Variation(0, 0, 0, 0, weight=1.0, lean=1.0), torch.Generator())
    assert ((thick > 127).sum((1, 2, 3)) >= area).all()
    assert ((thin > 127).sum((1, 2, 3)) <= area).all()
    assert (thick > 127).sum() > 1.1 * 200 * area
    assert (thin > 127).sum() < 0.9 * 200 * area


def test_shift_stays_within_its_bound() -> None:
    discs = disc().expand(300, 1, 32, 32)
    moved = vary(discs, Variation(0, 0, 0, shift=0.1), torch.Generator()).float()
    axis = torch.arange(32) - 15.5
    for across in (-1, -2):
        centre = (moved.sum((1, across)) * axis).sum(-1) / moved.sum((1, 2, 3))
        assert float(centre.abs().max()) < 3.4
        assert float(centre.std()) > 1.5
