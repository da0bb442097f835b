"""SNAIL against a whole sequence for each query, its convolutions against torch's, and the numbering of classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learner_table import shaken
from quickstudy.episode import Context, Episode, Examples, Task, collate, without_support
from quickstudy.learners.snail import SNAIL, Convolution, Recall
from quickstudy.nn.encoders import RawEncoder

close = torch.testing.assert_close

SMALL = {"filters": 3, "keys": 4, "rounds": 2, "length": 5}


def task(shot: int, queries: int, *, values: int = 0, way: int = 3) -> Task:
    x, asked = (torch.randn(count, 2, dtype=torch.float64) for count in (shot, queries))
    if values:
        y, answers = (torch.randn(count, values, dtype=torch.float64) for count in (shot, queries))
        return Task(x, y, asked, answers, values)
    y, answers = (torch.randint(way, (count,)) for count in (shot, queries))
    return Task(x, y, asked, answers, way)


def learner_of(values: int = 0) -> SNAIL:
    learner = shaken(SNAIL(RawEncoder(2), values=values, bank=4, **SMALL))
    assert isinstance(learner, SNAIL)
    return learner


def outputs_of(learner: SNAIL, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


def test_a_convolution_is_that_of_torch() -> None:
    layer = Convolution(3, 4, dilation=2).double()
    sequence = torch.randn(2, 7, 3, dtype=torch.float64)
    kernel = torch.stack([layer.mix.weight[:, :3], layer.mix.weight[:, 3:]], -1)
    padded = F.pad(sequence.transpose(1, 2), (2, 0))
    both = F.conv1d(padded, kernel, layer.mix.bias, dilation=2).transpose(1, 2)
    close(layer(sequence), torch.tanh(both[..., :4]) * torch.sigmoid(both[..., 4:]))


def test_attention_sees_what_came_before() -> None:
    layer = Recall(3, 4, keys=2).double()
    sequence = torch.randn(1, 6, 3, dtype=torch.float64)
    changed = sequence.clone()
    changed[:, 4:] += 1
    close(layer(changed)[:, :4], layer(sequence)[:, :4])
    assert not torch.allclose(layer(changed)[:, 4:], layer(sequence)[:, 4:])


@pytest.mark.parametrize("values", [0, 2])
@pytest.mark.parametrize("shot", [1, 2, 6, 9])
def test_each_query_is_the_end_of_a_sequence_of_its_own(values: int, shot: int) -> None:
    learner, one = learner_of(values), task(shot, 4, values=values)
    found = outputs_of(learner, collate([one]))[0]
    labels = one.support_y
    if not values:
        order = list(dict.fromkeys(labels.tolist()))
        labels = F.one_hot(torch.tensor([order.index(int(c)) for c in labels]), 4).double()
    known = torch.cat([one.support_x, labels], 1)
    for number, x in enumerate(one.query_x):
        last = torch.cat([x, x.new_zeros(values or 4)])
        sequence = torch.cat([known, last[None]])[None]
        for layer in learner.stack:
            sequence = torch.cat([sequence, layer(sequence)], -1)
        expected = learner.read(sequence[0, -1])
        if values:
            close(found[number], expected)
            continue
        for turn, label in enumerate(order):
            close(found[number, label], expected[turn])


def test_holes_in_the_support_are_closed() -> None:
    learner, one = learner_of(2), task(5, 3, values=2)
    episode = collate([one])
    kept = torch.tensor([[True, False, True, True, False]])
    holes = episode._replace(support=episode.support._replace(mask=kept))
    few = one._replace(support_x=one.support_x[kept[0]], support_y=one.support_y[kept[0]])
    close(outputs_of(learner, holes), outputs_of(learner, collate([few])))


def test_the_order_of_the_examples_counts() -> None:
    learner, one = learner_of(), task(6, 3)
    turned = one._replace(support_x=one.support_x.flip(0), support_y=one.support_y.flip(0))
    outputs = outputs_of(learner, collate([one]))
    assert not torch.allclose(outputs_of(learner, collate([turned])), outputs)


def test_without_support_classes_are_equal_and_values_depend_on_the_query_alone() -> None:
    episode = collate([task(5, 3), task(2, 3)])
    state = learner_of().adapt(without_support(episode.support), episode.context)
    outputs = learner_of().predict(state, episode.query.x, episode.context)
    assert (outputs == outputs[0, 0, 0]).all()

    learner, nothing = learner_of(2), collate([task(5, 3, values=2)])
    empty = Examples(
        torch.zeros(1, 0, 2).double(), torch.zeros(1, 0, 2).double(), torch.zeros(1, 0).bool()
    )
    alone = learner.adapt(empty, nothing.context)
    hidden = learner.adapt(without_support(nothing.support), nothing.context)
    x = nothing.query.x
    close(learner.predict(alone, x, nothing.context), learner.predict(hidden, x, nothing.context))


def test_a_class_without_examples_is_never_the_answer() -> None:
    one = task(4, 3)._replace(support_y=torch.tensor([2, 0, 0, 2]))
    assert set(outputs_of(learner_of(), collate([one])).argmax(-1).flatten().tolist()) <= {0, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "filters must be at least 1; found 0"),
        ({"values": -1}, "values must be at least 0; found -1"),
        ({"length": 1}, "length must be at least 2; found 1"),
    ],
)
def test_a_bad_option_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SNAIL(RawEncoder(2), **options)


def test_tasks_that_do_not_fit_are_named() -> None:
    wide = Context(torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 0), torch.zeros(1, 5, 0))
    support = collate([task(3, 1)]).support
    with pytest.raises(
        ValueError, match="A task of 5 classes, but this learner was built for at most 4"
    ):
        learner_of().adapt(support, wide)
    with pytest.raises(ValueError, match="predicts 2 values, but the tasks have 5"):
        learner_of(2).adapt(support, wide)
