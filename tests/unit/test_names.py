"""What classes and tasks are called: by sources, by tasks that are adapted, and by learners that read it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from quickstudy.build import BuildError, build_learner, fitted
from quickstudy.config import RunConfig
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.glyphs import GlyphSource
from quickstudy.data.images import ImageSource
from quickstudy.data.source import DataError, TaskSource
from quickstudy.data.synthetic import Sinusoid
from quickstudy.data.text import TextSource
from quickstudy.nn.words import bytes_of


def said(words: Tensor) -> str:
    return bytes(words[words >= 0].tolist()).decode()


class Letters:
    """An encoder as far as a source sees it: a word is a letter's number."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return bytes_of(texts) + 1000 * (bytes_of(texts) >= 0)


def test_glyphs_are_called_as_unicode_calls_them() -> None:
    source = GlyphSource()
    pool = source.pool("test")
    found = dict(zip(pool.class_names, map(said, pool.names), strict=True))
    assert found["ა"] == "GEORGIAN LETTER AN"
    assert found["א"] == "HEBREW LETTER ALEF"
    assert [said(words) for words in pool.descriptions] == pool.group_names
    trained = source.pool("train")
    names = [said(words) for words in trained.names]
    assert len(set(names)) == trained.classes
    assert names[trained.classes // 2] == f"{names[0]} TURNED 180"


@pytest.mark.parametrize("within_group", [True, False])
def test_a_task_has_the_names_of_its_classes_and_says_its_script(within_group: bool) -> None:
    source = GlyphSource()
    pool = source.pool("validation")
    design = EpisodeDesign(way=3, shot=1, queries=1, within_group=within_group)
    tasks = Episodes(source, "validation", design, tasks=4)
    context, classes = tasks[0].context, tasks.drawn(0).classes
    assert torch.equal(context.names, pool.names[classes])
    if not within_group:
        assert context.description.shape == (4, 0)
        return
    for words, row in zip(context.description, classes, strict=True):
        assert {said(words)} == {pool.group_names[int(pool.groups[i])] for i in row}


def test_images_are_called_like_their_folders(tmp_path: Path) -> None:
    for group in ("north", "south", "east"):
        for name in ("red_fox", "käse"):
            folder = tmp_path / group / name
            folder.mkdir(parents=True)
            for i in range(2):
                noise = np.random.default_rng([len(group), len(name), i, ord(group[0])])
                pixels = noise.integers(0, 255, (8, 8)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    source = ImageSource(str(tmp_path), size=8)
    pool = source.pool("test")
    (group,) = pool.group_names
    assert sorted(map(said, pool.names)) == [f"{group} käse", f"{group} red fox"]
    assert said(pool.descriptions[0]) == group


def rows(**columns: Sequence[str]) -> list[dict[str, str]]:
    return [
        {
            "text": f"{number} {label} {group}",
            "label": label,
            "group": group,
            **{name: said[place] for name, said in columns.items()},
        }
        for place, group in enumerate(("bank", "travel", "food"))
        for label in ("card_lost", "greeting")
        for number in range(2)
    ]


def table(path: Path, records: list[dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    return str(path)


def test_texts_within_a_group_say_its_name_or_its_description(tmp_path: Path) -> None:
    deep = ["money and cards", "", "Wünsche aus der Küche"]
    for name, columns, expected in (
        ("plain", {}, {"bank", "travel", "food"}),
        ("described", {"description": deep}, {"money and cards", "travel", deep[2]}),
    ):
        source = TextSource(table(tmp_path / f"{name}.csv", rows(**columns)))
        source.prepare(Letters())
        found = set()
        for split in ("train", "validation", "test"):
            pool = source.pool(split)
            found |= {said(words - 1000 * (words >= 0)) for words in pool.descriptions}
            assert all(said(words - 1000 * (words >= 0)) for words in pool.names)
        assert found == expected


def test_a_group_that_says_two_things_of_itself(tmp_path: Path) -> None:
    records = rows(description=["a", "b", "c"])
    records[1]["description"] = "another"
    with pytest.raises(DataError, match=r"line 3: the group 'bank' is described as 'another'"):
        TextSource(table(tmp_path / "a.csv", records))


def test_names_as_examples_need_an_encoder_of_texts() -> None:
    learner = {"name": "in_context", "names": True, "width": 64}
    with pytest.raises(BuildError, match="only to an encoder of texts, which ImageEncoder is not"):
        build_learner(learner, {"name": "image", "width": 8})


def test_tasks_without_examples_are_those_of_one_example_hidden() -> None:
    source = GlyphSource()
    none, one = (
        Episodes(source, "test", EpisodeDesign(way=4, shot=shot, queries=2), tasks=3)[0]
        for shot in (0, 1)
    )
    assert not none.support.mask.any()
    assert one.support.mask.all()
    assert torch.equal(none.query.x, one.query.x)
    assert torch.equal(none.context.names, one.context.names)
    world = Episodes(Sinusoid(), "test", EpisodeDesign(way=1, shot=0, queries=2), tasks=3)[0]
    assert not world.support.mask.any()
    assert world.query.mask.all()


@pytest.mark.parametrize("source", [GlyphSource(), Sinusoid()], ids=["pool", "world"])
def test_of_a_range_from_zero_some_tasks_have_no_example_at_all(source: TaskSource) -> None:
    way = 5 if isinstance(source, GlyphSource) else 1
    design = EpisodeDesign(way=way, shot=(0, 3), queries=2)
    drawn = Episodes(source, "test", design, tasks=400)[0]
    bare = float((~drawn.support.mask.any(1)).float().mean())
    assert abs(bare - 1 / 4) < 0.08
    assert drawn.query.mask.all()


def test_tasks_that_share_a_shot_may_share_none() -> None:
    design = EpisodeDesign(way=1, shot=(0, 2), queries=2)
    tasks = Episodes(Sinusoid(), "train", design, tasks=2, length=30, same_shot=True)
    counts = [tasks[i].support.mask.sum(1).tolist() for i in range(30)]
    assert {tuple(each) for each in counts} == {(0, 0), (1, 1), (2, 2)}


def test_training_without_examples_needs_a_learner_that_reads_names() -> None:
    source, run = GlyphSource(), RunConfig(episode={"shot": (0, 5)})
    learner = build_learner({"name": "protonet"}, {"name": "image", "width": 8})
    with pytest.raises(BuildError, match=r"could only guess; set episode\.shot to at least 1"):
        fitted(run, source, learner)
    named = {"name": "meta_transformer", "names": True, "width": 8}
    found = fitted(run, source, build_learner(named, {"name": "image", "width": 8}))
    assert found.episode.shot == (0, 5)
