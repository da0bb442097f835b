"""Episodes: distinct, balanced, the same for the same index, and nothing to learn from a label's number."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, fit_design
from quickstudy.data.draw import Episodes, distinct_numbers
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.episode import Episode, leaves


class Numbered(PoolSource):
    """Each example is its own row and its class, so an episode shows what it was made of."""

    kind = "vector"

    def __init__(self, counts: list[int], groups: list[int] | None = None) -> None:
        total = torch.tensor(counts)
        groups = groups or [0] * len(counts)
        labels = torch.repeat_interleave(torch.arange(len(counts)), total)
        self.fixed = Pool(
            torch.stack([torch.arange(len(labels)), labels], 1).float(),
            total,
            [f"class {number}" for number in range(len(counts))],
            torch.tensor(groups),
            [f"group {number}" for number in range(max(groups) + 1)],
        )

    def pool(self, split: Split) -> Pool:
        return self.fixed

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.rand(x.shape, generator=generator) / 4


def same(a: Episode, b: Episode) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


@given(
    counts=st.lists(st.integers(4, 9), min_size=3, max_size=12),
    ways=st.tuples(st.integers(2, 3), st.integers(0, 1)),
    shots=st.tuples(st.integers(1, 2), st.integers(0, 1)),
    seed=st.integers(0, 100),
)
def test_an_episode_is_what_it_says(
    counts: list[int], ways: tuple[int, int], shots: tuple[int, int], seed: int
) -> None:
    way, shot = (ways[0], min(3, sum(ways))), (shots[0], sum(shots))
    source = Numbered(counts)
    tasks = Episodes(source, "train", EpisodeDesign(way, shot, 1), tasks=5, length=3, seed=seed)
    episode = tasks[1]
    for task in range(5):
        support, query, context = episode.support, episode.query, episode.context
        present = int(context.classes[task].sum())
        assert way[0] <= present <= way[1]
        rows, classes = [], {}
        for part in (support, query):
            for x, y, real in zip(part.x[task], part.y[task], part.mask[task], strict=True):
                if real:
                    rows.append(int(x[0]))
                    assert classes.setdefault(int(y), int(x[1])) == int(x[1])
        assert len(set(rows)) == len(rows), "an example was drawn twice"
        assert len(set(classes.values())) == len(classes) == present, "a class was drawn twice"
        for label in range(present):
            own = support.mask[task] & (support.y[task] == label)
            assert shot[0] <= int(own.sum()) <= shot[1]
            assert int((query.mask[task] & (query.y[task] == label)).sum()) == 1


def test_an_index_is_an_episode() -> None:
    source = Numbered([6] * 30)

    def drawn(seed: int, split: Split, augment: bool = True) -> Episodes:
        design = EpisodeDesign(4, 2, 2)
        return Episodes(source, split, design, tasks=2, length=50, seed=seed, augment=augment)

    first, again = drawn(0, "train"), drawn(0, "train")
    assert all(same(first[i], again[i]) for i in reversed(range(5)))
    assert not same(first[0], first[1])
    assert not same(first[0], drawn(1, "train")[0])
    assert not same(first[0], drawn(0, "validation")[0])
    assert torch.equal(first[3].support.y, drawn(0, "train", augment=False)[3].support.y)
    with pytest.raises(IndexError):
        first[50]


def test_rows_are_those_of_the_episode() -> None:
    tasks = Episodes(Numbered([7] * 9), "test", EpisodeDesign(3, 2, 4), tasks=2, length=4)
    classes, support, query = tasks.drawn(2)[:3]
    assert torch.equal(support.flatten(1), tasks[2].support.x[..., 0].long())
    assert torch.equal(query.flatten(1), tasks[2].query.x[..., 0].long())
    assert torch.equal(classes.repeat_interleave(2, dim=1), tasks[2].support.x[..., 1].long())


def test_the_number_of_a_class_says_nothing() -> None:
    """Each class is each label equally often: a learner that memorised labels would stay at chance."""
    tasks = Episodes(Numbered([2] * 6), "train", EpisodeDesign(3, 1, 1), tasks=4000)
    support = tasks[0].support
    table = torch.zeros(6, 3)
    table.index_put_(
        (support.x[..., 1].long().flatten(), support.y.flatten()),
        torch.ones(12000),
        accumulate=True,
    )
    expected = 4000 / 6
    chi_square = float(((table - expected) ** 2 / expected).sum())
    assert chi_square < 37.7  # the 0.1 % point with 15 degrees of freedom


@pytest.mark.parametrize(("count", "below"), [(2, 40), (3, 4)])
def test_distinct_numbers_are_even(count: int, below: int) -> None:
    drawn = distinct_numbers(20000, count, below, torch.Generator().manual_seed(1))
    assert all(len(set(row)) == count for row in drawn[:500].tolist())
    for column in drawn.T:
        seen = column.bincount(minlength=below).double()
        expected = 20000 / below
        degrees = below - 1
        limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3
        assert float(((seen - expected) ** 2 / expected).sum()) < limit


def test_tasks_stay_within_a_group() -> None:
    source = Numbered([5] * 12, groups=[0] * 3 + [1] * 5 + [2] * 4)
    tasks = Episodes(source, "train", EpisodeDesign(4, 1, 1, within_group=True), tasks=200)
    groups = source.fixed.groups[tasks.drawn(0).classes]
    assert (groups == groups[:, :1]).all()
    assert set(groups[:, 0].tolist()) == {1, 2}, "a group too small for the way is left out"


@pytest.mark.parametrize(
    ("counts", "design", "words"),
    [
        ([9] * 4, EpisodeDesign(5, 1, 3), ["found 4", "largest way is 4", "largest shot 6"]),
        (
            [9, 9, 2],
            EpisodeDesign(3, 1, 3),
            ["'class 2' with 2", "1 of 3 classes", "at least 4 examples", "no shot is possible"],
        ),
        ([9], EpisodeDesign(2, 1, 1), ["Found 1 class", "at least 2"]),
        ([9, 9], EpisodeDesign(1, 1, 1), ["at least 2 classes", "a way of 1"]),
    ],
)
def test_too_little_data_says_what_there_is(
    counts: list[int], design: EpisodeDesign, words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        Episodes(Numbered(counts), "train", design)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("options", [{"way": 0}, {"shot": -1}, {"queries": 0}, {"way": (5, 3)}])
def test_designs_that_are_none(options: dict) -> None:
    with pytest.raises(DataError, match="must be at least"):
        EpisodeDesign(**options)


@given(
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=9),
    shot=st.integers(1, 1),
    within=st.booleans(),
    most=st.none() | st.integers(1, 30),
)
def test_an_open_design_can_be_filled(
    counts: list[int], shot: int, within: bool, most: int | None
) -> None:
    groups = [number % 2 if len(counts) > 3 else 0 for number in range(len(counts))]
    source = Numbered(counts, groups)
    design = fit_design(
        source,
        "train",
        way=None,
        shot=shot,
        queries=None,
        within_group=within,
        most_way=5,
        examples=20,
        most_queries=most,
    )
    episode = Episodes(source, "train", design, tasks=3)[0]
    assert episode.tasks == 3
    assert design.way <= 5
    wanted = 20 // design.way - 1 if most is None else most
    assert design.queries == 1 or design.queries <= wanted


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=re.escape("add up to 3 examples, but 4")):
        Pool(torch.zeros(4, 1), torch.tensor([1, 2]), ["a", "b"], torch.zeros(2).long(), ["all"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "b"]}, "3 classes, but 2 class_names; give one of each class"),
        ({"groups": torch.zeros(4, dtype=torch.int64)}, "3 classes, but 4 groups"),
    ],
)
def test_what_is_told_of_classes_is_told_of_each(change: dict, message: str) -> None:
    options = {
        "x": torch.zeros(6, 2),
        "counts": torch.full((3,), 2),
        "class_names": ["a", "b", "c"],
        "groups": torch.zeros(3, dtype=torch.int64),
        "group_names": ["all"],
    }
    with pytest.raises(DataError, match=message):
        Pool(**(options | change))
