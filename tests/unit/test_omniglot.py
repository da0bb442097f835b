"""Omniglot's archives in miniature: 6 and 2 alphabets of 2 characters with 2 drawings each."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data import omniglot
from quickstudy.data.omniglot import OmniglotSource
from quickstudy.data.source import DataError

ALPHABETS = {"background": [f"B{i}" for i in range(6)], "evaluation": ["E_(x)", "E-2"]}


def drawing(number: int) -> np.ndarray:
    """A stroke on paper, 105 pixels high and wide, unlike every other; True is paper."""
    paper = np.ones((105, 105), dtype=bool)
    paper[number % 100 : number % 100 + 5, : 20 + number // 2] = False
    return paper


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    number = 0
    for part, alphabets in ALPHABETS.items():
        with zipfile.ZipFile(tmp_path / f"images_{part}.zip", "w") as archive:
            archive.writestr(f"images_{part}/readme.txt", "no drawing")
            for alphabet in alphabets:
                for place in (
                    "character01/1_01",
                    "character01/1_02",
                    "character02/2_01",
                    "character02/2_02",
                ):
                    buffer = BytesIO()
                    Image.fromarray(drawing(number)).save(buffer, "PNG")
                    archive.writestr(f"images_{part}/{alphabet}/{place}.png", buffer.getvalue())
                    number += 1
    monkeypatch.setattr(omniglot, "IMAGES", {"background": 24, "evaluation": 8})
    return tmp_path


def test_evaluation_alphabets_are_the_test_split(folder: Path) -> None:
    source = OmniglotSource(str(folder))
    pools = {split: source.pool(split) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert [len(pool.group_names) for pool in pools.values()] == [1, 5, 2]
    assert pools["test"].group_names == ["E-2", "E_(x)"]
    assert (
        sorted([*pools["train"].group_names, *pools["validation"].group_names])
        == ALPHABETS["background"]
    )
    assert pools["test"].class_names == [
        f"{group}/character{i:02d}" for group in ("E-2", "E_(x)") for i in (1, 2)
    ]
    assert pools["test"].counts.tolist() == [2, 2, 2, 2]
    assert source.describe()["splits"]["test"] == {"classes": 4, "examples": 8}


def test_ink_is_bright_and_drawings_are_shrunk_by_area(folder: Path) -> None:
    pool = OmniglotSource(str(folder)).pool("test")
    assert pool.x.shape == (8, 1, 28, 28)
    assert pool.x.dtype == torch.uint8
    # Drawing 24 is the first of the alphabet E_(x), which comes second in the order of names.
    ink = ~drawing(24)
    first = pool.of_class(2)[0, 0].float() / 255
    assert abs(float(first.mean()) - ink.mean()) < 2e-3
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(ink)[None, None].float(), scale_factor=4, mode="nearest"
    )
    exact = torch.nn.functional.avg_pool2d(whole, 15)[0, 0]
    assert float((first - exact).abs().max()) < 3e-3


def test_the_second_time_nothing_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = OmniglotSource(str(folder)).pool("test")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    assert torch.equal(OmniglotSource(str(folder)).pool("test").x, first.x)


def lists(folder: Path) -> None:
    (folder / "splits").mkdir()
    for name, lines in {
        "train": ["B0/character01/rot000", "B0/character01/rot090", "B1/character02/rot270"],
        "val": ["B2/character01/rot180", "B3/character01/rot000"],
        "test": ["E-2/character01/rot000", "E_(x)/character01/rot090"],
    }.items():
        (folder / "splits" / f"vinyals_{name}.txt").write_text("\n".join(lines) + "\n")


def test_vinyals_lists_name_turned_classes(folder: Path) -> None:
    lists(folder)
    source = OmniglotSource(str(folder), protocol="vinyals")
    pool = source.pool("train")
    assert pool.class_names == [
        "B0/character01/rot000",
        "B0/character01/rot090",
        "B1/character02/rot270",
    ]
    assert torch.equal(pool.of_class(1), pool.of_class(0).rot90(1, dims=(-2, -1)))
    assert not torch.equal(pool.of_class(1), pool.of_class(0))
    assert [source.pool(split).classes for split in ("validation", "test")] == [2, 2]  # type: ignore[arg-type]
    assert torch.equal(source.pool("train").x, pool.x)  # turning one pool turns no other


def test_wrong_lists(folder: Path) -> None:
    with pytest.raises(DataError, match=r"split list .*vinyals_train\.txt is missing; put"):
        OmniglotSource(str(folder), protocol="vinyals")
    lists(folder)
    file = folder / "splits" / "vinyals_val.txt"
    file.write_text("B2/character01/rot180\nB2/character01\n")
    with pytest.raises(DataError, match="line 2: found 'B2/character01', expected"):
        OmniglotSource(str(folder), protocol="vinyals")
    file.write_text("B2/character09/rot180\n")
    with pytest.raises(DataError, match="names 'B2/character09', which is not in the archives"):
        OmniglotSource(str(folder), protocol="vinyals")
    with pytest.raises(DataError, match="must be lake or vinyals"):
        OmniglotSource(str(folder), protocol="mine")  # type: ignore[arg-type]


def test_archives_are_verified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "IMAGES", {"background": 24, "evaluation": 9})
    with pytest.raises(DataError, match=r"not Omniglot's archive: found 8 drawings .* expected 9"):
        OmniglotSource(str(folder))
    file = folder / "images_evaluation.zip"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"images_evaluation\.zip is damaged"):
        OmniglotSource(str(folder))
    file.unlink()
    with pytest.raises(DataError, match="quickstudy download omniglot"):
        OmniglotSource(str(folder))


def test_without_a_folder_the_cache_is_looked_at_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"data/omniglot/images_background\.zip cannot be read"):
        OmniglotSource()
