"""The texts that come with the package: every class is whole, no text comes twice, and whole areas are held out."""

from __future__ import annotations

import re
import warnings
from collections import Counter

import pytest

from quickstudy.data.areas import FOLDER, ShortTexts, _read
from quickstudy.data.source import SPLITS, DataError


def test_every_area_has_fourteen_classes_of_sixteen_texts() -> None:
    rows = list(_read())
    assert len({row.group for row in rows}) == len(list(FOLDER.glob("*.txt"))) > 60
    of_class = Counter((row.group, row.label) for row in rows)
    assert set(of_class.values()) == {16}
    assert set(Counter(group for group, _ in of_class).values()) == {14}


def test_texts_are_clean() -> None:
    seen: dict[str, str] = {}
    for row in _read():
        assert row.text == row.text.strip()
        assert not re.match(r"^(\d+[.)]|[-*#])\s", row.text), row
        assert not re.search(r"https?://(?![\w.]+\.example/)", row.text), row
        key = re.sub(r"\W+", " ", row.text.casefold()).strip()
        assert key not in seen, (row.place, seen[key])
        seen[key] = row.place


def test_whole_areas_are_held_out_without_a_note() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = ShortTexts()
    groups = {split: {each.group for each in source.parts[split]} for split in SPLITS}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert sum(map(len, groups.values())) == len(list(FOLDER.glob("*.txt")))
    assert len(groups["test"]) > len(groups["validation"]) > 5
    assert source.describe()["name"] == "short_texts"


def test_another_seed_holds_out_other_areas_and_a_path_is_refused() -> None:
    one, other = ShortTexts(), ShortTexts(seed=1)
    assert {c.group for c in one.parts["test"]} != {c.group for c in other.parts["test"]}
    with pytest.raises(DataError, match=r"text:mine\.csv for texts of your own"):
        ShortTexts("mine.csv")
