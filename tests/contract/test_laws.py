"""The laws that every learner obeys; the rows are in ``learner_table.py``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from learner_table import (
    ROWS,
    Row,
    learner_of,
    ragged_tasks,
    with_labels,
)
from quickstudy.episode import (
    NO_LABEL,
    Episode,
    Examples,
    Task,
    collate,
    leaves,
    take_tasks,
    tree_map,
    without_support,
)
from quickstudy.learners import LEARNERS, Learner, Tables
from quickstudy.nn.encoders import VectorEncoder

close = torch.testing.assert_close


@pytest.fixture(params=ROWS, ids=lambda row: row.label)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture
def learner(row: Row) -> Learner:
    return learner_of(row)


@pytest.fixture
def tasks(row: Row) -> list[Task]:
    return ragged_tasks(row.values, many=row.many, bare=row.bare)


@pytest.fixture
def episode(tasks: list[Task]) -> Episode:
    return collate(tasks)


def answer(learner: Learner, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


def examples_at(examples: Examples, index: Tensor | slice) -> Examples:
    return tree_map(lambda tensor: tensor[:, index], examples)


def test_every_learner_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(LEARNERS)


# Law 1


def test_a_ragged_batch_equals_each_task_alone(
    learner: Learner, tasks: list[Task], episode: Episode
) -> None:
    together = answer(learner, episode)
    for outputs, task in zip(together, tasks, strict=True):
        alone = answer(learner, collate([task]))[0]
        width = learner.likelihood.width(task.way)
        close(outputs[: len(task.query_y), :width], alone, rtol=1e-9, atol=1e-9)


def test_padding_does_not_reach_the_loss(learner: Learner, tasks: list[Task]) -> None:
    each = torch.stack([learner(collate([task])) for task in tasks])
    close(learner(collate(tasks)), each.mean(), rtol=1e-9, atol=1e-9)


# Law 2


def test_the_order_of_the_support_changes_nothing(learner: Learner, episode: Episode) -> None:
    order = torch.randperm(episode.support.mask.shape[1])
    moved = episode._replace(support=examples_at(episode.support, order))
    if learner.order_free:
        close(answer(learner, moved), answer(learner, episode), rtol=1e-9, atol=1e-9)


def test_numbering_the_classes_anew_permutes_the_outputs(
    row: Row, learner: Learner, tasks: list[Task]
) -> None:
    if row.values:
        return  # A value has a meaning of its own; only a class is what its examples are.
    task = tasks[1]
    place = torch.tensor([2, 0, 3, 1])
    if row.many:
        before = place.argsort()
        renamed = task._replace(
            support_y=task.support_y[:, before], query_y=task.query_y[:, before]
        )
    else:
        said = task.support_y != NO_LABEL
        y = torch.where(said, place[task.support_y], NO_LABEL)
        renamed = task._replace(support_y=y, query_y=place[task.query_y])
    outputs, moved = (answer(learner, collate([each])) for each in (task, renamed))
    close(moved[..., place], outputs, rtol=1e-9, atol=1e-9)


# Law 3


def test_adapting_in_two_parts(learner: Learner, episode: Episode) -> None:
    support, context = episode.support, episode.context
    first = learner.adapt(examples_at(support, slice(0, 3)), context)
    second = learner.adapt(examples_at(support, slice(3, None)), context, first)
    outputs = learner.predict(second, episode.query.x, context)
    assert isinstance(second, learner.state_type)
    assert outputs.isfinite().all()
    if learner.additive:
        close(outputs, answer(learner, episode), rtol=1e-9, atol=1e-9)
    else:
        assert not torch.equal(outputs, learner.predict(first, episode.query.x, context))


GROWING = [row for row in ROWS if LEARNERS[row.name].grows]


@pytest.mark.parametrize("row", GROWING, ids=lambda row: row.label)
def test_a_class_may_come_later(row: Row, learner: Learner, episode: Episode) -> None:
    """A state of all classes but the last goes on with one of all."""
    whole = int(episode.context.classes.all(1).nonzero()[0])
    task = take_tasks(episode, slice(whole, whole + 1))
    support, context, last = task.support, task.context, task.context.classes.shape[1] - 1
    late = support.mask & (support.y[..., last] > 0 if row.many else support.y == last)
    fewer = context._replace(classes=context.classes[:, :last], names=context.names[:, :last])
    y = support.y[..., :last] if row.many else support.y.clamp(max=last - 1)
    early = support._replace(mask=support.mask & ~late, y=y)
    grown = learner.adapt(support._replace(mask=late), context, learner.adapt(early, fewer))
    found = learner.predict(grown, task.query.x, context)
    close(found, answer(learner, task), rtol=1e-9, atol=1e-9)
    assert (found[..., last] > -1000).all()


# Law 4


def test_the_meta_gradient_equals_central_differences(
    row: Row, learner: Learner, tasks: list[Task]
) -> None:
    if not row.exact:
        return
    episode = collate([tasks[0], tasks[2]])
    layers: dict[str, list[Tensor]] = {}
    for name, value in learner.named_parameters():
        layers.setdefault(name.rsplit(".", 2)[0], []).append(value)
    learner(episode).backward()
    step = 1e-6

    def loss_beside(values: list[Tensor], moves: list[Tensor], scale: float) -> float:
        with torch.no_grad():
            kept = [value.clone() for value in values]
            for value, move in zip(values, moves, strict=True):
                value += scale * move
            loss = learner(episode).item()
            for value, old in zip(values, kept, strict=True):
                value.copy_(old)
        return loss

    for layer, values in layers.items():
        moves = [torch.randn_like(value) for value in values]
        ahead, behind = (loss_beside(values, moves, scale) for scale in (step, -step))
        expected = sum(
            float((value.grad * move).sum())
            for value, move in zip(values, moves, strict=True)
            if value.grad is not None
        )
        assert (ahead - behind) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-7), layer


# Law 5


def test_every_parameter_gets_a_finite_gradient(
    row: Row, learner: Learner, episode: Episode
) -> None:
    learner.train()(episode).backward()
    for name, value in learner.named_parameters():
        if name not in row.exempt:
            assert value.grad is not None, f"{name} has no gradient"
        assert value.grad is None or value.grad.isfinite().all(), name


# Law 6


def test_queries_do_not_see_each_other(learner: Learner, episode: Episode) -> None:
    state = learner.adapt(episode.support, episode.context)
    together = learner.predict(state, episode.query.x, episode.context)
    for place in range(together.shape[1]):
        alone = learner.predict(state, episode.query.x[:, place : place + 1], episode.context)
        close(alone[:, 0], together[:, place], rtol=1e-9, atol=1e-9)


# Law 7


def test_a_saved_learner_gives_the_same_outputs_bit_for_bit(
    row: Row, learner: Learner, episode: Episode
) -> None:
    fresh = copy.deepcopy(learner)
    with torch.no_grad():
        for value in fresh.parameters():
            value.zero_()
    fresh.load_state_dict(load(save(learner.state_dict())))
    assert torch.equal(answer(fresh, episode), answer(learner, episode))


def test_fewer_digits_are_no_obstacle(learner: Learner, episode: Episode) -> None:
    learner.bfloat16()
    half = tree_map(lambda x: x.bfloat16() if x.is_floating_point() else x, episode)
    if isinstance(learner, Tables):
        with pytest.raises(ValueError, match="float32 or float64"):
            answer(learner, half)
        return
    assert answer(learner, half).isfinite().all()
    assert learner(half).isfinite()


def test_one_task_can_be_sliced_out_of_a_state(learner: Learner, episode: Episode) -> None:
    state = learner.adapt(episode.support, episode.context)
    assert isinstance(state, learner.state_type)
    assert all(isinstance(tensor, Tensor) and len(tensor) == 3 for tensor in leaves(state))
    outputs = learner.predict(state, episode.query.x, episode.context)
    for task in range(3):
        which = slice(task, task + 1)
        one = take_tasks(episode, which)
        alone = learner.predict(take_tasks(state, which), one.query.x, one.context)
        close(alone[0], outputs[task], rtol=1e-9, atol=1e-9)


def test_a_state_of_a_kind_is_rebuilt_from_its_tensors(learner: Learner, episode: Episode) -> None:
    state = learner.adapt(episode.support, episode.context)
    if learner.state_type is dict:
        rebuilt = dict(state)
    else:
        rebuilt = learner.state_type(**state._asdict())
    outputs = learner.predict(rebuilt, episode.query.x, episode.context)
    assert torch.equal(outputs, learner.predict(state, episode.query.x, episode.context))


# Law 8


def snapshot(learner: Learner, *trees: object) -> list[Tensor]:
    tensors = [
        *learner.parameters(),
        *learner.buffers(),
        *(t for tree in trees for t in leaves(tree)),
    ]
    return [tensor.detach().clone() for tensor in tensors]


@pytest.mark.parametrize("training", [False, True])
def test_adapting_and_predicting_leave_everything_untouched(
    learner: Learner, training: bool, episode: Episode
) -> None:
    learner.train(training)
    state = learner.adapt(episode.support, episode.context)
    before = snapshot(learner, episode, state)
    modes = [part.training for part in learner.modules()]
    chance = torch.get_rng_state()
    learner.predict(
        learner.adapt(episode.support, episode.context, state), episode.query.x, episode.context
    )
    assert all(
        torch.equal(*pair) for pair in zip(before, snapshot(learner, episode, state), strict=True)
    )
    assert [part.training for part in learner.modules()] == modes
    assert all(value.grad is None for value in learner.parameters())
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_needs_no_graph(
    learner: Learner, mode: type, tasks: list[Task], episode: Episode
) -> None:
    expected = answer(learner, episode)
    with mode():
        outputs = answer(learner, collate(tasks))
    assert not outputs.requires_grad
    close(outputs, expected.detach(), rtol=1e-9, atol=1e-9)


# Law 9


def test_before_adaptation_no_class_is_preferred(
    row: Row, learner: Learner, episode: Episode
) -> None:
    if row.values:
        return
    state = learner.adapt(without_support(episode.support), episode.context)
    outputs = learner.predict(state, episode.query.x, episode.context)
    for logits, classes in zip(outputs, episode.context.classes, strict=True):
        assert (logits[:, classes] == logits[:, :1]).all()


WAY, SHOT, SIGNAL, NOISE = 4, 2, 4, 12


def toy_task(values: int, offset: float, generator: torch.Generator, many: bool = False) -> Task:
    """A task whose classes, or whose values, are told by a few features; the others are loud noise."""
    shift = offset * torch.randn(values, generator=generator) if offset else 0.0
    centres = torch.randn(WAY, SIGNAL, generator=generator)

    def part(each: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(WAY).repeat_interleave(each)
        spread = torch.randn(WAY * each, SIGNAL, generator=generator)
        noise = torch.randn(WAY * each, NOISE, generator=generator)
        if values:
            y = spread @ centres[:values].T + shift
            return torch.cat([spread, noise], 1).double(), y.double()
        return torch.cat([centres[labels] + 0.3 * spread, noise], 1).double(), labels

    task = Task(*part(SHOT), *part(4), way=values or WAY)
    return with_labels(task) if many else task


def toy_episodes(
    seed: int, tasks: int = 8, values: int = 0, offset: float = 0.0, many: bool = False
) -> Iterator[Episode]:
    """Endless batches of such tasks."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield collate([toy_task(values, offset, generator, many) for _ in range(tasks)])


def mean_score(learner: Learner, episode: Episode, *, adapted: bool = True) -> float:
    support = episode.support if adapted else without_support(episode.support)
    with torch.no_grad():
        state = learner.adapt(support, episode.context)
        outputs = learner.predict(state, episode.query.x, episode.context)
        return learner.likelihood.task_score(outputs, episode.query, episode.context).mean().item()


def test_training_helps_and_without_support_the_score_is_at_chance(row: Row) -> None:
    learner = row.build(VectorEncoder(SIGNAL + NOISE, width=16, layers=1)).double()
    kind: dict[str, Any] = {"values": row.values, "offset": row.offset, "many": row.many}
    unseen = next(toy_episodes(seed=1, tasks=40, **kind))
    untrained = mean_score(learner, unseen)
    optimiser = torch.optim.Adam(learner.parameters(), lr=row.rate)
    episodes = toy_episodes(seed=0, **kind)
    for _ in range(row.steps):
        optimiser.zero_grad()
        learner(next(episodes)).backward()
        optimiser.step()
    trained = mean_score(learner, unseen)
    chance = mean_score(learner, unseen, adapted=False)
    if row.values:
        assert trained < 0.8 * chance
        assert trained < untrained
        return
    # Without examples no label is likelier than not, so none is answered.
    assert chance == (0 if row.many else 1 / WAY)
    assert trained > chance + 0.2
    assert trained > untrained
