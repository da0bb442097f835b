"""Tasks from few and unequal corrections, alone and among others, and what of them is held out."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.data.corrected import CorrectedTasks
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.held_out import divide
from quickstudy.data.mixture import Mixed, Mixture
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.synthetic import Sinusoid
from quickstudy.episode import Episode

COUNTS = torch.tensor([1, 2, 3, 5, 4, 2])
GROUPS = torch.tensor([0, 0, 0, 1, 1, 2])


def numbered(counts: Tensor = COUNTS, groups: Tensor = GROUPS) -> Pool:
    """Each example is its row, its class and its group."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    x = torch.stack([torch.arange(len(labels)), labels, groups[labels]], 1).float()
    names = [f"class {i}" for i in range(len(counts))]
    return Pool(x, counts, names, groups, [f"task {i}" for i in range(int(groups.max()) + 1)])


def source(**more: Any) -> CorrectedTasks:
    return CorrectedTasks({"train": numbered(), "validation": numbered()}, kind="vector", **more)


def drawn(tasks: CorrectedTasks, design: EpisodeDesign, split: Split = "validation") -> Episode:
    return tasks.draw(split, design, tasks=40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "design", [EpisodeDesign(4, 2, 3), EpisodeDesign((2, 3), (1, 4), 1), EpisodeDesign(2, 1, 9)]
)
def test_tasks_are_as_large_as_their_group_allows(design: EpisodeDesign) -> None:
    episode = drawn(source(), design)
    way, shot = (max(v) if isinstance(v, tuple) else v for v in (design.way, design.shot))
    assert episode.support.mask.shape == (40, way * shot)
    assert episode.query.mask.shape == (40, way * design.queries)
    met = set()
    for t in range(40):
        support, query = (part.x[t][part.mask[t]] for part in (episode.support, episode.query))
        assert not set(support[:, 0].tolist()) & set(query[:, 0].tolist())
        assert len(support[:, 0].unique()) == len(support)
        assert len({*support[:, 2].tolist(), *query[:, 2].tolist()}) == 1  # one group
        exists = int(episode.context.classes[t].sum())
        assert 2 <= exists <= way
        for part in (episode.support, episode.query):
            pairs = set(
                zip(
                    part.y[t][part.mask[t]].tolist(),
                    part.x[t][part.mask[t]][:, 1].tolist(),
                    strict=True,
                )
            )
            assert len(pairs) == exists  # every class is asked about, and each number is one class
        met.add(float(support[0, 2]))
        for y, kept in Counter(episode.support.y[t][episode.support.mask[t]].tolist()).items():
            which = int(episode.support.x[t][episode.support.mask[t]][
                episode.support.y[t][episode.support.mask[t]] == y][0, 1])  # fmt: skip
            assert kept <= min(shot, int(COUNTS[which]) - 1)
    assert met == {0.0, 1.0}  # the third group has one class


def test_a_single_example_serves_in_two_variations() -> None:
    varied = source(
        augment=lambda x, generator: x + 0.25 * torch.rand(x.shape, generator=generator)
    )
    episode = drawn(varied, EpisodeDesign(3, 1, 1), "train")
    alone = 0
    for t in range(40):
        support, query = (part.x[t][part.mask[t]] for part in (episode.support, episode.query))
        alone += int((support[:, 1].floor() == 0).sum())
        both = support[support[:, 1].floor() == 0], query[query[:, 1].floor() == 0]
        assert torch.equal(both[0].floor(), both[1].floor())
        assert not len(both[0]) or not torch.equal(*both)
    assert alone
    held = drawn(varied, EpisodeDesign(3, 1, 1)).support
    assert not (held.x[..., 1] == 0)[held.mask].any()


def test_what_is_asked_is_known_by_its_row() -> None:
    episode, rows = source().asked(
        "validation", EpisodeDesign(3, 1, 2), tasks=9, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(
        rows[episode.query.mask].float(), episode.query.x[..., 0][episode.query.mask]
    )


def test_numbers_are_predicted_within_a_task() -> None:
    goals = torch.arange(17.0)[:, None] * 2
    tasks = source(targets={"train": goals, "validation": goals})
    episode = drawn(tasks, EpisodeDesign(1, 3, 4))
    assert episode.context.classes.all()
    for part in (episode.support, episode.query):
        assert torch.equal(part.y[..., 0][part.mask], 2 * part.x[..., 0][part.mask])
    for t in range(40):
        assert len(episode.support.x[t][episode.support.mask[t]][:, 1].unique()) == 1


def test_the_design_is_cut_to_what_can_be_filled() -> None:
    tasks = source()
    within = tasks.within("validation", EpisodeDesign(60, 1, 9))
    assert within == EpisodeDesign((2, 2), (1, 1), 4)
    wide, narrow = (drawn(tasks, d) for d in (EpisodeDesign(60, 1, 9), within))
    assert (wide.query.mask.sum(1) <= 8).all()
    assert narrow.query.mask.shape == (40, 8)


def test_corrections_without_a_task_are_refused() -> None:
    lonely = numbered(torch.tensor([1, 3]), torch.tensor([0, 0]))
    with pytest.raises(DataError, match="4 corrected examples of 2 classes hold no task"):
        CorrectedTasks({"validation": lonely}, kind="vector")


class Others(PoolSource):
    kind = "vector"

    def pool(self, split: Split) -> Pool:
        pool = numbered(torch.full((8,), 6), torch.zeros(8, dtype=torch.int64))
        return Pool(pool.x - 100, pool.counts, pool.class_names, pool.groups, pool.group_names)


@pytest.mark.parametrize("within_group", [True, False])
def test_they_can_be_mixed_with_others(within_group: bool) -> None:
    mixture = Mixture([Mixed("others", 2, Others()), Mixed("corrected", 1, source())])
    design = EpisodeDesign(5, 1, 2, within_group=within_group)
    episodes = Episodes(mixture, "train", design, tasks=60)
    support = episodes[0].support
    own = [bool((support.x[t][support.mask[t]] >= 0).all()) for t in range(60)]
    assert 10 < sum(own) < 30


def test_images_can_be_mixed_with_others() -> None:
    class Pictures(PoolSource):
        kind = "image"

        def pool(self, split: Split) -> Pool:
            pool = numbered(torch.full((8,), 6), torch.zeros(8, dtype=torch.int64))
            x = torch.full((48, 1, 4, 4), 200, dtype=torch.uint8)
            return Pool(x, pool.counts, pool.class_names, pool.groups, pool.group_names)

    own = numbered()
    x = torch.zeros(17, 1, 4, 4, dtype=torch.uint8)
    pool = Pool(x, own.counts, own.class_names, own.groups, own.group_names)
    corrected = CorrectedTasks({"train": pool}, kind="image")
    mixture = Mixture([Mixed("others", 1, Pictures()), Mixed("corrected", 1, corrected)])
    episode = Episodes(mixture, "train", EpisodeDesign(3, 1, 1), tasks=400)[0]
    assert episode.support.x.shape == (400, 3, 1, 4, 4)
    assert 150 < int((episode.support.x.flatten(1).amax(1) == 0).sum()) < 250


def test_functions_can_be_mixed_with_a_world() -> None:
    goals, pool = torch.randn(17, 1), numbered()
    flat = Pool(pool.x[:, :1], pool.counts, pool.class_names, pool.groups, pool.group_names)
    corrected = CorrectedTasks({"train": flat}, kind="vector", targets={"train": goals})
    mixture = Mixture([Mixed("waves", 1, Sinusoid()), Mixed("corrected", 1, corrected)])
    episode = Episodes(mixture, "train", EpisodeDesign(1, 3, 6), tasks=30)[0]
    assert set(episode.support.mask.sum(1).tolist()) >= {1, 2, 3}
    assert episode.query.y.shape == (30, 6, 1)


@st.composite
def corrections(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    tasks, labels = [], []
    for task in range(draw(st.integers(1, 4))):
        for label in range(draw(st.integers(1, 6))):
            count = draw(st.integers(1, 6))
            shared = draw(st.booleans())
            tasks += [f"t{task}"] * count
            labels += [f"c{label}" if shared else f"c{task} {label}"] * count
    return tasks, labels


@given(given=corrections(), seed=st.integers(0, 3), shared=st.integers(0, 9))
def test_what_is_held_out_is_new_and_both_parts_hold_a_task(
    given: tuple[list[str], list[str]], seed: int, shared: int
) -> None:
    tasks, labels = given
    # The first inputs of each task are those of every other.
    inputs, met = [], Counter[str]()
    for task in tasks:
        inputs.append(str(met[task]) if met[task] < shared else f"{task} {met[task]}")
        met[task] += 1
    try:
        found = divide(tasks, labels, seed=seed, inputs=inputs)
    except DataError:
        return
    left_out = set(range(len(tasks))) - {*found.train, *found.validation}
    asked = {inputs[row] for row in found.validation}
    assert not asked & {inputs[row] for row in found.train}
    assert all(inputs[row] in asked for row in left_out)
    assert divide(tasks, labels, seed=seed, inputs=inputs) == found
    if found.held_out == "classes":
        assert not {labels[i] for i in found.train} & {labels[i] for i in found.validation}
    if found.held_out == "tasks":
        assert not {tasks[i] for i in found.train} & {tasks[i] for i in found.validation}
    for part in (found.train, found.validation):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row in part:
            counts[tasks[row]][labels[row]] += 1
        assert any(sum(n >= 2 for n in each.values()) >= 2 for each in counts.values())


@pytest.mark.parametrize(
    ("tasks", "labels", "held_out"),
    [
        (["a"] * 8, list("wwxxyyzz"), "classes"),
        (list("aaaabbbbccccdddd"), list("wwxx" * 4), "tasks"),
        (["a"] * 4 + ["b"] * 4, list("ppnnppnn"), "tasks"),
        (["a"] * 8, list("ppppnnnn"), "examples"),
        (["a"] * 2 + ["b"] * 2, None, "tasks"),
        (["a"] * 4, None, "examples"),
    ],
)
def test_classes_are_held_out_or_else_tasks_or_else_examples(
    tasks: list[str], labels: list[str] | None, held_out: str
) -> None:
    assert divide(tasks, labels, seed=0).held_out == held_out


def test_the_same_labels_in_every_task_are_held_out_everywhere() -> None:
    tasks, labels = zip(*[(t, c) for t in "ABC" for c in "wxyz" for _ in range(2)], strict=True)
    found = divide(tasks, labels, seed=0)
    assert len({labels[i] for i in found.validation}) == 2
    assert {tasks[i] for i in found.validation} == set("ABC")


@pytest.mark.parametrize("labels", [list("ab"), None])
def test_too_few_are_refused(labels: list[str] | None) -> None:
    with pytest.raises(DataError, match=r"2 corrections of 1 tasks are too few.*Collect more"):
        divide(["t", "t"], labels, seed=0)


def test_two_tasks_of_the_same_inputs_do_not_judge_one_another() -> None:
    tasks, labels, inputs = ["a"] * 6 + ["b"] * 6, list("xxyyzz" * 2), list("123456" * 2)
    assert divide(tasks, labels, seed=0).held_out == "tasks"
    with pytest.raises(DataError, match=r"and no input on both sides\. Collect more"):
        divide(tasks, labels, seed=0, inputs=inputs)
    more = divide([*tasks, *"cccc"], [*labels, *"xxyy"], seed=0, inputs=[*inputs, *"pqrs"])
    assert {tuple(more.train), tuple(more.validation)} != {()}
