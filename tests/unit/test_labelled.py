"""A person's own examples, for adapting and predicting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data.labelled import read_inputs, read_labelled
from quickstudy.data.source import DataError, DataNote


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    for i, name in enumerate(["ა", "ბ"]):
        (tmp_path / name).mkdir()
        for j in range(2):
            pixels = np.random.default_rng(10 * i + j).integers(0, 99, (9, 9)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{j}.png")
    return tmp_path


def test_class_folders_of_images(letters: Path) -> None:
    found = read_labelled(str(letters), kind="image", size=8)
    assert found.x.shape == (4, 1, 8, 8)
    assert found.labels == ["ა", "ა", "ბ", "ბ"]
    assert found.origins[2] == str(letters / "ბ" / "0.png")
    x, origins = read_inputs([found.origins[3], str(letters / "ა")], kind="image", size=8)
    assert torch.equal(x, found.x[[3, 0, 1]])
    assert origins == [found.origins[3], *found.origins[:2]]


def test_one_image_under_two_labels_is_refused(letters: Path) -> None:
    (letters / "ბ" / "copy.png").write_bytes((letters / "ა" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"'ა' at .* and 'ბ' at .*copy\.png; keep the right one\."):
        read_labelled(str(letters), kind="image")


def test_tables_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"two\nlines",a\nx,b\nx,b\n', encoding="utf-8")
    found = read_labelled(str(path), kind="text")
    assert found.x == ["two\nlines", "x", "x"]
    assert found.labels == ["a", "b", "b"]
    assert found.origins == [f"{path}:{n}" for n in (2, 4, 5)]
    with pytest.warns(DataNote, match=r"The text at .*:5 is the same as that at .*:4, and counts"):
        once = read_labelled(str(path), kind="text", once=True)
    assert once.x == ["two\nlines", "x"]
    assert once.origins == found.origins[:2]
    path.write_text("text,label\nx,a\nx,b\n", encoding="utf-8")
    with pytest.warns(
        DataNote,
        match=r"The same text 'x' has two classes: 'a' at .*a\.csv:2 and 'b' at .*:3\. Both",
    ):
        assert read_labelled(str(path), kind="text").labels == ["a", "b"]


def test_texts_come_from_tables_files_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "from a table"}\n')
    (tmp_path / "b.txt").write_text("one\n\n two \n")
    paths = [str(tmp_path / "a.jsonl"), "said, just so.txt", str(tmp_path / "b.txt")]
    texts, origins = read_inputs(paths, kind="text")
    assert texts == ["from a table", "said, just so.txt", "one", "two"]
    assert origins == [f"{paths[0]}:1", "text 2", f"{paths[2]}:1", f"{paths[2]}:3"]
    with pytest.raises(DataError, match="No such file"):
        read_inputs([str(tmp_path / "none.csv")], kind="text")
    with pytest.raises(DataError, match="Text number 2 is empty"):
        read_inputs(["a", " "], kind="text")


def test_tables_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("height,label,width\n1,a,2.5\n-3e1,b,4\n")
    found = read_labelled(str(path), kind="vector")
    assert found.x.tolist() == [[1, 2.5], [-30, 4]]
    assert found.labels == ["a", "b"]
    x, origins = read_inputs([str(path)], kind="vector")
    assert torch.equal(x, found.x)
    assert origins == [f"{path}:2", f"{path}:3"]
    for cell in ("tall", "nan", "", "1_000x"):
        path.write_text(f"height,label\n1,a\n{cell},b\n")
        with pytest.raises(
            DataError, match=f"line 3: found '{cell}' in the column 'height', expected a number"
        ):
            read_labelled(str(path), kind="vector")
    path.write_text("label\na\n")
    with pytest.raises(DataError, match="no column of numbers beside 'label'"):
        read_inputs([str(path)], kind="vector")


def test_columns_of_numbers_go_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,label\n1,2,p\n3,4,q\n")
    (tmp_path / "b.csv").write_text("id,y,x\n7,20,10\n")
    (tmp_path / "c.csv").write_text("x\n1\n")
    assert read_labelled(str(tmp_path / "a.csv"), kind="vector").columns == ["x", "y"]
    turned = read_labelled(str(tmp_path / "a.csv"), kind="vector", columns=["y", "x"])
    assert turned.x.tolist() == [[2, 1], [4, 3]]
    x, _ = read_inputs([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], kind="vector")
    assert x.tolist() == [[1, 2], [3, 4], [10, 20]]
    with pytest.raises(
        DataError, match=r"c\.csv, line 2: there is no column 'y', only 'x'; rename"
    ):
        read_inputs([str(tmp_path / "a.csv"), str(tmp_path / "c.csv")], kind="vector")


def test_a_number_that_no_float_holds_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n1e30\n-1e39\n")
    with pytest.raises(DataError, match=r"line 3: found '-1e39' .* a number of at most 3.4e\+38"):
        read_inputs([str(path)], kind="vector")


def test_the_same_picture_twice_in_a_class_counts_once(letters: Path) -> None:
    (letters / "ა" / "copy.png").write_bytes((letters / "ა" / "0.png").read_bytes())
    assert len(read_labelled(str(letters), kind="image").labels) == 5
    with pytest.warns(DataNote, match=r"The image at .*copy\.png is the same as that at .*0\.png"):
        found = read_labelled(str(letters), kind="image", once=True)
    assert len(found.labels) == len(found.x) == 4


def test_a_path_is_not_taken_for_a_text(tmp_path: Path) -> None:
    spaced = tmp_path / "my texts.txt"
    spaced.write_text("one\ntwo\n")
    assert read_inputs([str(spaced)], kind="text")[0] == ["one", "two"]
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    for path in (tmp_path / "sheet.xlsx", tmp_path):
        with pytest.raises(DataError, match="cannot be read as texts; texts are read from tables"):
            read_inputs([str(path)], kind="text")
    with pytest.raises(DataError, match=r"There is no file \./none\.log"):
        read_inputs(["./none.log"], kind="text")
    with pytest.raises(DataError, match=r"There is no file a text"):
        read_inputs(["a text"], kind="text", typed=False)
    long = "what is this? " * 99
    assert read_inputs([long], kind="text")[0] == [long.strip()]


def test_one_class_is_enough_only_for_a_task_that_was_begun(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,a\n")
    with pytest.raises(DataError, match="holds one class, 'a'; a task needs at least 2"):
        read_labelled(str(path), kind="text")
    assert read_labelled(str(path), kind="text", fewest_classes=1).labels == ["a"]


def test_the_wrong_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Found .*; expected a table .* with the columns text and label\."
    ):
        read_labelled(str(tmp_path), kind="text")
    with pytest.raises(DataError, match="no image"):
        read_inputs([str(tmp_path / "none.png")], kind="image")
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match="does not end like an image"):
        read_inputs([str(tmp_path / "a.csv")], kind="image")
    with pytest.raises(DataError, match="nothing to answer"):
        read_inputs([], kind="image")
