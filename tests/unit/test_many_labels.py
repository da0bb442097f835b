"""Sources whose examples may have any number of labels: files, splits, and the tasks that are drawn from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.build import build_source
from quickstudy.data.design import EpisodeDesign, fit_design, fixed_tasks
from quickstudy.data.draw import Episodes
from quickstudy.data.label_draw import LabelDraw, enough_of_each
from quickstudy.data.many_labels import labels_in
from quickstudy.data.nlupp import NluPlusPlus
from quickstudy.data.overlap import overlap, without_overlap
from quickstudy.data.source import SPLITS, DataError, DataNote, Pool
from quickstudy.data.text_tasks import Texts
from tiny_corpora import Letters, lines, nlupp, spoken

LABELS = ["card", "pay", "lost", "new", "pin", "fee"]


def table(path: Path, *, rows: int = 60, lists: bool = True, split: bool = False) -> str:
    """A table of texts with up to three labels, each text saying which."""
    made = []
    for number in range(rows):
        own = [name for place, name in enumerate(LABELS) if (number >> place) % 3 == 0][:3]
        made.append(
            {"text": f"{number}: {' '.join(own)}", "label": own if lists else "; ".join(own)}
        )
        if split:
            made[-1]["split"] = ("train", "dev", "test")[number % 3]
    lines(path, made)
    return str(path)


def source_of(spec: str) -> Texts:
    source = build_source(spec)
    assert isinstance(source, Texts)
    source.prepare(Letters())
    return source


def told(pool: Pool) -> list[tuple[str, set[str]]]:
    """Each text of a pool, and its labels."""
    return [
        (
            spoken(x),
            {name for name, mark in zip(pool.class_names, marks.tolist(), strict=True) if mark},
        )
        for x, marks in zip(pool.x, pool.marks, strict=True)
    ]


@pytest.mark.parametrize("lists", [False, True])
def test_no_label_and_no_text_is_in_two_splits(tmp_path: Path, lists: bool) -> None:
    path = table(tmp_path / "own.jsonl", lists=lists)
    source = source_of(f"text:{path},labels=many,test=0.34,validation=0.34")
    pools = {split: source.pool(split) for split in SPLITS}
    names = [name for pool in pools.values() for name in pool.class_names]
    assert sorted(names) == sorted(LABELS)
    found = {split: told(pool) for split, pool in pools.items()}
    texts = [text for part in found.values() for text, _ in part]
    assert len(set(texts)) == len(texts)
    held = set(pools["test"].class_names)
    for split, part in found.items():
        own = set(pools[split].class_names)
        for text, labels in part:
            said = set(text.partition(": ")[2].split())
            assert labels == said & own
            assert labels
            assert split == "test" or not said & held
    assert source.labels == "many"
    assert source.describe()["splits"]["test"] == {"classes": 2, "examples": len(found["test"])}


def test_a_column_says_the_split_of_each_text(tmp_path: Path) -> None:
    source = source_of(f"text:{table(tmp_path / 'own.jsonl', split=True)},labels=many")
    for split in SPLITS:
        part = told(source.pool(split))
        assert len(part) == 20
        assert all(labels == set(text.partition(": ")[2].split()) for text, labels in part)
    bare = [text for split in SPLITS for text, labels in told(source.pool(split)) if not labels]
    assert bare


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a", "label": "x"}], "holds one label, 'x'; a task needs at least 2"),
        ([{"text": "a", "label": []}], "holds no label"),
        ([{"text": "a", "tags": ["x"]}], "line 1: there is no column 'label'"),
        ([{"text": "a", "label": ["x", 3]}], "line 1: found the labels"),
        ([{"text": "a", "label": "[x]"}], "line 1: found the labels"),
        (
            [{"text": "a", "label": "x;y"}, {"text": "a", "label": "x"}],
            r"The same text 'a' has two classes: 'x; y' at .*line 1 and 'x' at .*line 2",
        ),
        ([{"text": "a", "label": "x;y", "group": "g"}], "has a column 'group'"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, rows: list[dict], said: str) -> None:
    lines(tmp_path / "own.jsonl", rows)
    with pytest.raises(DataError, match=said):
        build_source(f"text:{tmp_path / 'own.jsonl'},labels=many,conflicts=error")


def test_labels_are_told_apart_however_they_are_written() -> None:
    assert labels_in(" a ;b;; a ") == ("a", "b")
    assert labels_in(json.dumps([" a ", "b;c"])) == ("a", "b;c")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3), st.integers(0, 9999), st.booleans())
def test_a_support_set_has_enough_of_each_label_and_no_more_than_it_takes(
    tasks: int, way: int, shot: int, seed: int, often: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    has = torch.rand(tasks, 40, way, generator=generator) < (0.6 if often else 0.2)
    wanted = torch.full((tasks, way), shot).minimum(has.sum(1))
    taken = enough_of_each(has, wanted)
    count = (has & taken[..., None]).sum(1)
    assert (count >= wanted).all()
    assert (taken.sum(1) <= wanted.sum(1)).all()
    assert (count.amin(1) <= shot).all()  # of the label that came last among those that lacked


def random_pool(examples: int = 60, labels: int = 6) -> Pool:
    generator = torch.Generator().manual_seed(5)
    marks = torch.rand(examples, labels, generator=generator) < 0.3
    return Pool(
        x=torch.arange(examples),
        counts=marks.sum(0),
        class_names=[f"label {i}" for i in range(labels)],
        groups=torch.zeros(labels, dtype=torch.int64),
        group_names=[""],
        marks=marks,
    )


@pytest.mark.parametrize(("way", "shot"), [(3, 2), ((2, 5), (1, 3)), (4, (0, 2))])
def test_tasks_hold_what_the_design_says(
    way: int | tuple[int, int], shot: int | tuple[int, int]
) -> None:
    pool, design = random_pool(), EpisodeDesign(way, shot, 4)
    draw = LabelDraw(pool, design, tasks=8)
    drawn = draw.drawn(torch.Generator().manual_seed(0))
    episode = draw.made_of(drawn, torch.Generator())
    for task in range(8):
        exists = episode.context.classes[task]
        own = drawn.classes[task][exists]
        parts = []
        for part in (episode.support, episode.query):
            rows = part.x[task][part.mask[task]]
            wanted = pool.marks[rows][:, own].float()
            assert torch.equal(part.y[task][part.mask[task]][:, exists], wanted)
            assert wanted.any(1).all()
            parts.append(set(rows.tolist()))
            assert len(parts[-1]) == len(rows)
        assert not parts[0] & parts[1]
        assert len(parts[1]) <= 4 * (way if isinstance(way, int) else way[1])
        if drawn.shots is not None and isinstance(shot, int):
            rows = episode.support.x[task][episode.support.mask[task]]
            assert (pool.marks[rows][:, own].sum(0) >= shot).all()
    assert (episode.support.y[..., ~episode.context.classes.any(0)] == 0).all()


def test_a_label_says_nothing_of_what_it_is() -> None:
    draw = LabelDraw(random_pool(), EpisodeDesign(3, 1, 1), tasks=400)
    drawn = draw.drawn(torch.Generator().manual_seed(0))
    counts = torch.stack([column.bincount(minlength=6) for column in drawn.classes.unbind(1)])
    assert counts.min() > 30


@pytest.mark.parametrize("split_up", [False, True])
def test_tasks_of_nlupp_learn_from_whole_folds(tmp_path: Path, split_up: bool) -> None:
    nlupp(tmp_path / "nlupp", split_up=split_up)
    source = source_of(f"nlupp:{tmp_path / 'nlupp'},protocol=folds")
    openly = {"way": None, "queries": None, "within_group": False, "most_way": 5, "examples": 30}
    for shot, tasks in ((1, 6), (2, 3)):
        design = fit_design(source, "test", shot=shot, **openly)
        assert design.way == 8
        assert fixed_tasks(source, "test", design) == tasks
        draws = Episodes(source, "test", design, length=tasks)
        support, asked = [], []
        for index in range(tasks):
            episode = draws[index]
            rows = [
                {spoken(x) for x in part.x[0][part.mask[0]]}
                for part in (episode.support, episode.query)
            ]
            assert len(rows[0]) == 12 * shot
            assert len(rows[0] | rows[1]) == 72
            support += rows[0]
            asked.append(episode.query.y[0][episode.query.mask[0]].sum(1))
        assert len(set(support)) == 72
        assert {0.0, 1.0, 2.0} <= set(torch.cat(asked).tolist())
    with pytest.raises(DataError, match=r"learn all 8 labels from some of 6 folds; .* 1, 2, 3"):
        Episodes(source, "test", EpisodeDesign(8, 4, 1))
    with pytest.raises(DataError, match="There are 6 fixed tasks"):
        Episodes(source, "test", EpisodeDesign(8, 1, 1), length=7)
    with pytest.raises(DataError, match=r"The train split of .* is empty"):
        source.pool("train")


def test_folds_of_unlike_sizes_make_tasks_of_one_shape(tmp_path: Path) -> None:
    intents = ["block", "change"]
    rows = [
        {"fold": i % 3, "text": f"{i} {intents[i % 2]}", "intents": [intents[i % 2]]}
        for i in range(13)
    ]
    lines(tmp_path / "banking.jsonl", rows)
    source = source_of(f"nlupp:{tmp_path},protocol=folds")
    draws = Episodes(source, "test", EpisodeDesign(2, 1, 5), length=3)
    assert [draws[i].support.mask.sum().item() for i in range(3)] == [5, 4, 4]
    assert {draws[i].support.mask.shape for i in range(3)} == {(1, 5)}
    assert [draws[i].query.mask.sum().item() for i in range(3)] == [8, 9, 9]
    assert len({draws[i].query.mask.shape for i in range(3)}) == 1


def test_intents_of_nlupp_are_called_what_the_ontology_asks(tmp_path: Path) -> None:
    nlupp(tmp_path / "nlupp")
    pool = source_of(f"nlupp:{tmp_path / 'nlupp'}").pool("test")
    assert {spoken(name) for name in pool.names} == {
        f"is it to {name.replace('_', ' ')}?" for name in pool.class_names
    }


def test_sentences_that_stand_in_two_folds_stay_there_and_are_noted(tmp_path: Path) -> None:
    rows = [
        {"fold": i % 2, "text": ["yes", "no", "yes", "a card"][i], "intents": [f"{i}"]}
        for i in range(4)
    ]
    lines(tmp_path / "banking.jsonl", rows)
    with pytest.warns(DataNote, match="1 sentences stand in the folds more than once"):
        source = source_of(f"nlupp:{tmp_path},protocol=folds")
    assert source.pool("test").examples == 4


def test_files_of_nlupp_that_are_not_as_published(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nlupp needs .*banking.jsonl, which is not there; get it"):
        build_source(f"nlupp:{tmp_path}")
    with pytest.raises(DataError, match="The protocol must be unseen or folds"):
        NluPlusPlus(str(tmp_path), protocol="all")  # type: ignore[arg-type]
    lines(tmp_path / "banking.jsonl", [{"fold": "x", "text": "a", "intents": ["b"]}])
    with pytest.raises(DataError, match="is not as published: found 'x'"):
        build_source(f"nlupp:{tmp_path}")
    lines(tmp_path / "banking.jsonl", [{"fold": 2, "text": "a", "intents": ["b", "c"]}])
    with pytest.raises(DataError, match="has no sentence of fold 0"):
        build_source(f"nlupp:{tmp_path}")


def test_what_training_and_test_share_is_found_and_left_out(tmp_path: Path) -> None:
    path = table(tmp_path / "own.jsonl", split=True)
    source = source_of(f"text:{path},labels=many")
    known = told(source.pool("test"))[:3]
    lines(
        tmp_path / "other.jsonl",
        [
            {"text": text, "label": ["a", "b"][: i % 2 + 1], "split": "train"}
            for i, (text, _) in enumerate(known)
        ],
    )
    found = overlap(source_of(f"text:{tmp_path / 'other.jsonl'},labels=many"), source, split="test")
    assert found is not None
    assert found.exact == 3
    less = without_overlap(source, found, split="test")
    assert isinstance(less, Texts)
    assert {text for text, _ in told(less.pool("test"))} == {
        text for text, _ in told(source.pool("test"))
    } - {text for text, _ in known}


def test_a_mixture_is_of_one_kind_of_tasks(tmp_path: Path) -> None:
    many = table(tmp_path / "own.jsonl", split=True)
    other = table(tmp_path / "other.jsonl", rows=40, split=True)
    mixture = build_source(f"mixture:(text:{many},labels=many)+(text:{other},labels=many)")
    mixture.prepare(Letters())
    assert mixture.labels == "many"
    episode = Episodes(mixture, "train", EpisodeDesign((2, 4), 1, 2), tasks=6)[0]
    assert episode.support.y.shape == (*episode.support.mask.shape, 4)
    lines(tmp_path / "one.jsonl", [{"text": f"{i}", "label": f"{i % 4}"} for i in range(20)])
    with pytest.raises(DataError, match=r"cannot be mixed: .* tasks of many labels"):
        build_source(f"mixture:(text:{many},labels=many)+(text:{tmp_path / 'one.jsonl'})")
