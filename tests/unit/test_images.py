"""Images in class folders: layouts, splits, decoding and every way in which they can be wrong."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quickstudy.data.augment import neighbourhood
from quickstudy.data.decoding import by_area, decode, read_images, to_pixels
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.images import ImageSource
from quickstudy.data.source import DataError, DataNote


def picture(file: Path) -> Path:
    """An image that no other path has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(file).encode())).integers(0, 255, (12, 12))
    Image.fromarray(noise.astype(np.uint8)).save(file)
    return file


def folders(root: Path, classes: list[str], each: int = 3) -> Path:
    for name in classes:
        for number in range(each):
            picture(root / name / f"{number}.png")
    return root


def class_names(source: ImageSource) -> dict[str, list[str]]:
    return {split: [one.name for one in part] for split, part in source.parts.items()}


def test_class_folders_become_pools_of_unequal_classes(tmp_path: Path) -> None:
    root = folders(tmp_path, [f"käse {i}" for i in range(10)])
    picture(root / "käse 3" / "extra.PNG")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "README.txt").write_text("about these images")
    source = ImageSource(str(root), size=8, invert="no")
    parts = class_names(source)
    assert [len(parts[split]) for split in ("train", "validation", "test")] == [6, 2, 2]
    assert sorted(name for part in parts.values() for name in part) == sorted(
        f"käse {i}" for i in range(10)
    )
    for split in ("train", "validation", "test"):
        pool = source.pool(split)
        assert pool.x.dtype == torch.uint8
        assert pool.x.is_contiguous()
        for number, name in enumerate(pool.class_names):
            files = sorted((root / name).iterdir())
            direct = [decode(f.read_bytes(), "", size=8, channels=1, invert="no") for f in files]
            np.testing.assert_array_equal(pool.of_class(number).numpy(), np.stack(direct))
    assert source.describe()["splits"]["test"]["classes"] == 2


def test_episodes_are_drawn_and_varied(tmp_path: Path) -> None:
    source = ImageSource(str(folders(tmp_path, list("abcdef"))), size=8)
    design = EpisodeDesign(way=2, shot=1, queries=2)
    plain = Episodes(source, "train", design, tasks=3)[0]
    varied = Episodes(source, "train", design, tasks=3, augment=True)[0]
    assert plain.support.x.shape == varied.support.x.shape == (3, 2, 1, 8, 8)
    assert not torch.equal(plain.support.x, varied.support.x)
    still = ImageSource(str(tmp_path), size=8, vary=False)
    unvaried = Episodes(still, "train", design, tasks=3, augment=True)[0]
    assert torch.equal(plain.query.x, unvaried.query.x)


def test_the_split_moves_little_when_a_class_is_added(tmp_path: Path) -> None:
    root = folders(tmp_path, [f"c{i:02d}" for i in range(20)], each=1)
    first = class_names(ImageSource(str(root)))
    assert first == class_names(ImageSource(str(root)))
    assert first != class_names(ImageSource(str(root), seed=1))
    second = class_names(ImageSource(str(folders(root, ["c20"], each=1))))
    assert sum(len(set(first[split]) - set(second[split])) for split in first) <= 2


def test_whole_groups_are_held_out(tmp_path: Path) -> None:
    root = folders(tmp_path, [f"g{g}/c{c}" for g in range(5) for c in range(3)])
    source = ImageSource(str(root), size=8)
    groups = {split: {one.group for one in part} for split, part in source.parts.items()}
    assert [len(groups[split]) for split in ("train", "validation", "test")] == [3, 1, 1]
    assert set.union(*groups.values()) == {f"g{g}" for g in range(5)}
    pool = source.pool("train")
    for name, group in zip(pool.class_names, pool.groups.tolist(), strict=True):
        assert name.split("/")[0] == pool.group_names[group]


def test_folders_may_name_the_splits(tmp_path: Path) -> None:
    for split, classes in {"train": "abc", "val": "de", "Test": "fg"}.items():
        folders(tmp_path / split, list(classes))
    source = ImageSource(str(tmp_path), size=8)
    assert class_names(source) == {
        "train": list("abc"),
        "validation": ["d", "e"],
        "test": ["f", "g"],
    }
    picture(tmp_path / "Test" / "a" / "0.png")
    with pytest.raises(DataError, match=r"'a' is in the .* and in the .* split"):
        ImageSource(str(tmp_path))


def test_all_classes_may_be_for_testing(tmp_path: Path) -> None:
    source = ImageSource(str(folders(tmp_path, list("abc"))), test=1, size=8)
    assert source.pool("test").class_names == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"train split of .* is empty"):
        source.pool("train")
    with pytest.raises(DataError, match="no split 'dev'; the splits are train, validation, test"):
        source.pool("dev")  # type: ignore[arg-type]


def test_an_image_given_twice_in_a_class_is_left_out_with_a_note(tmp_path: Path) -> None:
    root = folders(tmp_path, list("abcd"))
    (root / "b" / "copy.png").write_bytes((root / "b" / "1.png").read_bytes())
    with pytest.warns(DataNote, match=r"Left out 1 of 13 examples.*copy\.png, equal to .*1\.png"):
        source = ImageSource(str(root), test=1)
    assert source.pool("test").counts.tolist() == [3, 3, 3, 3]


def test_an_image_of_two_classes_is_refused_or_left_out_of_both(tmp_path: Path) -> None:
    root = folders(tmp_path, list("abcd"))
    (root / "b" / "copy.png").write_bytes((root / "a" / "1.png").read_bytes())
    with pytest.raises(
        DataError, match=r"two classes: 'a' at .*1\.png and 'b' at .*copy\.png; keep"
    ):
        ImageSource(str(root))
    with pytest.warns(DataNote, match="Left out 2 of 13"):
        source = ImageSource(str(root), test=1, conflicts="drop")
    assert source.pool("test").counts.tolist() == [2, 3, 3, 3]


def damaged(root: Path) -> None:
    content = picture(root / "a" / "cut.png").read_bytes()
    (root / "a" / "cut.png").write_bytes(content[: len(content) // 2])


WRONG = {
    r"a/empty\.png is empty \(0 bytes\)": lambda root: (root / "a" / "empty.png").write_bytes(b""),
    r"a/words\.png cannot be read \(it is no image": lambda root: (
        root / "a" / "words.png"
    ).write_text("hello"),
    r"a/cut\.png cannot be read": damaged,
    r"notes\.pdf lies among images but does not end in": lambda root: (
        root / "a" / "notes.pdf"
    ).touch(),
    r"astray\.png lies beside the class folders": lambda root: picture(root / "astray.png"),
    r"folder .*nothing holds no images": lambda root: (root / "nothing").mkdir(),
    r"b holds images, but .*a holds folders": lambda root: folders(root, ["a/inner"]),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, message: str) -> None:
    folders(tmp_path, list("abc"), each=1)
    WRONG[message](tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        ImageSource(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_missing_folders_and_single_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images:FOLDER"):
        ImageSource()
    with pytest.raises(DataError, match="does not exist"):
        ImageSource(str(tmp_path / "none"))
    with pytest.raises(DataError, match="no class folders"):
        ImageSource(str(tmp_path))
    with pytest.raises(DataError, match="is a file"):
        ImageSource(str(picture(tmp_path / "only" / "0.png")))
    with pytest.raises(DataError, match="one class, 'only'"):
        ImageSource(str(tmp_path))
    with pytest.raises(DataError, match="lies too deep"):
        ImageSource(str(folders(tmp_path.parent / "deep", ["a/b/c", "d/e/f"])))
    folders(tmp_path, ["a", "b"])
    with pytest.raises(DataError, match="channels must be 1"):
        ImageSource(str(tmp_path), channels=2)
    with pytest.raises(DataError, match="size must lie between"):
        ImageSource(str(tmp_path), size=0)
    with pytest.raises(DataError, match="test is a share of the classes"):
        ImageSource(str(tmp_path), test=2)


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    file = picture(tmp_path / "0.png")
    before, _ = read_images([file], size=8, channels=1, invert="no")
    again, _ = read_images([file], size=8, channels=1, invert="no")
    Image.new("L", (12, 12), 77).save(file)
    after, _ = read_images([file], size=8, channels=1, invert="no")
    assert torch.equal(before, again)
    assert after.unique().tolist() == [77]


def as_pixels(image: Image.Image, channels: int = 1, invert: str = "auto") -> np.ndarray:
    return to_pixels(image, size=8, channels=channels, invert=invert)  # type: ignore[arg-type]


def test_dark_ink_on_paper_becomes_bright_on_dark() -> None:
    paper = Image.new("L", (16, 16), 255)
    paper.paste(0, (6, 6, 10, 10))
    drawn = as_pixels(paper)
    assert drawn[0, 4, 4] == 255
    assert drawn[0, 0, 0] == 0
    np.testing.assert_array_equal(drawn, 255 - as_pixels(paper, invert="no"))
    negative = Image.eval(paper, lambda value: 255 - value)
    np.testing.assert_array_equal(as_pixels(negative), drawn)
    assert as_pixels(negative, invert="yes")[0, 0, 0] == 255
    assert as_pixels(paper.convert("RGB"), channels=3)[:, 0, 0].tolist() == [255, 255, 255]


def test_proportions_are_kept_and_the_rest_has_the_colour_of_the_border() -> None:
    wide = Image.new("RGB", (32, 16), (10, 20, 30))
    wide.paste((200, 100, 50), (8, 4, 24, 12))
    pixels = as_pixels(wide, channels=3)
    assert pixels.shape == (3, 8, 8)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert pixels[:, 4, 4].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_images_of_every_mode_are_grey_at_last(mode: str) -> None:
    array = np.full((16, 16), 200 * 257 if mode == "I;16" else 200)
    if mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16))
    elif mode in "IF":
        image = Image.fromarray(array.astype({"I": np.int32, "F": np.float32}[mode]))
    else:
        image = Image.fromarray(array.astype(np.uint8)).convert(mode)
    expected = 255 if mode == "1" else 200
    if mode == "1":
        image = Image.new("1", (16, 16), 1)
    assert abs(as_pixels(image, invert="no").astype(int) - expected).max() <= 1


def test_what_is_transparent_is_paper() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((4, 4), (0, 0, 0, 255))
    pixels = as_pixels(image)
    assert pixels[0, 4, 4] == 255
    assert pixels.sum() == 255


def test_the_rotation_that_a_camera_noted_is_applied() -> None:
    image = Image.new("L", (8, 8), 0)
    image.putpixel((0, 0), 255)
    facts = Image.Exif()
    facts[0x0112] = 6  # turn right
    buffer = BytesIO()
    image.save(buffer, "PNG", exif=facts)
    pixels = decode(buffer.getvalue(), "", size=8, channels=1, invert="no")
    assert pixels[0, 0, 7] == 255


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 255))
def test_shrinking_by_area_keeps_the_mean(height: int, width: int, size: int, seed: int) -> None:
    before = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    after = by_area(before, size, size)
    assert after.shape == (size, size)
    assert abs(float(after.mean()) - float(before.mean())) <= 0.51
    np.testing.assert_array_equal(by_area(before, height, width), before)


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_neighbourhood_is_what_pooling_sees(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 1, height, width, generator=generator)
    pooled = torch.nn.functional.max_pool2d(images, 3, 1, 1)
    assert torch.equal(neighbourhood(images, torch.maximum), pooled)
    assert torch.equal(-neighbourhood(-images, torch.minimum), pooled)
