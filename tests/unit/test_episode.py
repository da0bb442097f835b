"""Collation, trees and concatenation, by property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.episode import (
    EpisodeError,
    Examples,
    Task,
    collate,
    concatenate,
    leaves,
    pad_stack,
    take_tasks,
    tree_map,
    without_support,
)


def task(way: int, support: int, queries: int, words: int, seed: int) -> Task:
    """A task of token ids, with a second input beside them."""
    generator = torch.Generator().manual_seed(seed)

    def x(count: int) -> dict[str, torch.Tensor]:
        return {
            "ids": torch.randint(0, 9, (count, words), generator=generator),
            "age": torch.rand(count, 1, generator=generator),
        }

    def y(count: int) -> torch.Tensor:
        return torch.randint(way, (count,), generator=generator)

    return Task(x(support), y(support), x(queries), y(queries), way=way)


tasks = st.lists(
    st.builds(
        task,
        way=st.integers(1, 5),
        support=st.integers(1, 6),
        queries=st.integers(1, 6),
        words=st.integers(1, 4),
        seed=st.integers(0, 999),
    ),
    min_size=1,
    max_size=4,
)


@given(tasks)
def test_collating_keeps_every_example_and_marks_all_else(batch: list[Task]) -> None:
    episode = collate(batch)
    assert episode.tasks == len(batch)
    for row, one in enumerate(batch):
        for part, x, y in (
            (episode.support, one.support_x, one.support_y),
            (episode.query, one.query_x, one.query_y),
        ):
            count, words = x["ids"].shape
            assert part.mask[row].tolist() == [i < count for i in range(part.mask.shape[1])]
            assert torch.equal(part.y[row, :count], y)
            assert (part.y[row, count:] == 0).all()
            assert torch.equal(part.x["ids"][row, :count, :words], x["ids"])
            assert (part.x["ids"][row, count:] == -1).all()
            assert (part.x["ids"][row, :, words:] == -1).all()
            assert torch.equal(part.x["age"][row, :count], x["age"])
            assert (part.x["age"][row, count:] == 0).all()
        classes = episode.context.classes[row]
        assert classes.sum() == one.way
        assert classes[: one.way].all()


@given(tasks, st.integers(0, 3))
def test_a_task_of_a_batch_is_the_batch_of_that_task(batch: list[Task], which: int) -> None:
    which %= len(batch)
    one = take_tasks(collate(batch), slice(which, which + 1))
    alone = collate([batch[which]])
    count, words = batch[which].support_x["ids"].shape
    assert torch.equal(one.support.x["ids"][:, :count, :words], alone.support.x["ids"])
    assert one.tasks == 1


@given(tasks)
def test_concatenating_keeps_both_sets(batch: list[Task]) -> None:
    episode = collate(batch)
    joined = concatenate(episode.support, episode.query)
    assert torch.equal(joined.mask, torch.cat([episode.support.mask, episode.query.mask], 1))
    assert torch.equal(joined.y, torch.cat([episode.support.y, episode.query.y], 1))
    words = episode.query.x["ids"].shape[2]
    behind = joined.x["ids"][:, episode.support.mask.shape[1] :, :words]
    assert torch.equal(behind, episode.query.x["ids"])


def test_hiding_the_support_keeps_the_rest() -> None:
    support = collate([task(3, 4, 1, 2, seed=0)]).support
    hidden = without_support(support)
    assert not hidden.mask.any()
    assert support.mask.all()
    assert hidden.x is support.x


def test_an_episode_moves_as_a_whole() -> None:
    episode = collate([task(2, 2, 2, 2, seed=0)]).to("meta")
    assert {tensor.device.type for tensor in leaves(episode)} == {"meta"}


def test_trees_keep_their_types() -> None:
    tree = {"a": (torch.ones(1), [torch.zeros(1)]), "b": Examples(*(torch.ones(1),) * 3)}
    doubled = tree_map(lambda a, b: a + b, tree, tree)
    assert isinstance(doubled["b"], Examples)
    assert isinstance(doubled["a"][1], list)
    assert [tensor.item() for tensor in leaves(doubled)] == [2, 0, 2, 2, 2]


def test_an_episode_needs_a_task() -> None:
    with pytest.raises(EpisodeError, match="at least one task"):
        collate([])


@pytest.mark.parametrize("label", [-2, 2])
def test_a_label_outside_the_way_is_named(label: int) -> None:
    wrong = Task(
        torch.zeros(1, 2), torch.tensor([label]), torch.zeros(0, 2), torch.zeros(0).long(), 2
    )
    with pytest.raises(EpisodeError, match=f"run from {label} to {label}, but the task has 2"):
        collate([wrong])


def test_each_input_needs_a_label() -> None:
    wrong = Task(torch.zeros(3, 2), torch.tensor([0]), torch.zeros(1, 2), torch.tensor([0]), 2)
    with pytest.raises(EpisodeError, match="support set has 3 inputs and 1 labels"):
        collate([wrong])


def test_inputs_of_two_kinds_do_not_share_a_batch() -> None:
    with pytest.raises(EpisodeError, match=r"torch.float32 with 1 axes beside torch.int64"):
        pad_stack([torch.zeros(2), torch.zeros(2, dtype=torch.int64)])


@pytest.mark.parametrize("shape", [(2, 1, 5), (1, 1, 4)])
def test_examples_of_another_size_cannot_be_added(shape: tuple[int, ...]) -> None:
    def examples(size: tuple[int, ...]) -> Examples:
        return Examples(
            torch.zeros(size), torch.zeros(size[:2]).long(), torch.ones(size[:2]).bool()
        )

    with pytest.raises(EpisodeError, match=r"Cannot put|bring them to that size"):
        concatenate(examples((1, 1, 5)), examples(shape))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_whole_labels_become_numbers_of_classes(dtype: torch.dtype) -> None:
    y = torch.arange(3).to(dtype)
    found = collate([Task(torch.zeros(3, 2), y, torch.zeros(3, 2), y, way=3)])
    assert found.support.y.dtype == found.query.y.dtype == torch.int64
