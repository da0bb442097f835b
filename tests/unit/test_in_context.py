"""The in-context learner's ways with many classes, named classes, several answers and one stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from learner_table import shaken, vector_encoder
from named_tasks import Words, text_task
from quickstudy.artifact import Artifact, extend, load_task, save_task
from quickstudy.artifact import answer as answer_of
from quickstudy.config import RunConfig
from quickstudy.data.source import DataNote
from quickstudy.episode import Episode, Task, collate, take_tasks, without_support
from quickstudy.learners.context import InContext
from quickstudy.learners.ensemble import varied
from quickstudy.learners.label_codes import deal
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import Encoder

close = torch.testing.assert_close


def learner_of(encoder: Callable[[], Encoder] = vector_encoder, **options: object) -> InContext:
    torch.manual_seed(0)
    options = {"width": 8, "heads": 2, "bank": 4, **options}
    learner = InContext(encoder(), **options)
    shaken(learner)
    return learner.eval()


def task_of(way: int, shot: int = 2, queries: int = 3) -> Task:
    y = torch.arange(way).repeat(shot)
    x, asked = torch.randn(len(y), 6).double(), torch.randn(queries, 6).double()
    return Task(x, y, asked, torch.randint(way, (queries,)), way)


def answer(learner: InContext, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


def chances(learner: InContext, task: Task) -> Tensor:
    episode = collate([task])
    return learner.likelihood.probabilities(answer(learner, episode), episode.context)[0]


def only(task: Task, classes: Tensor) -> Task:
    """The task with some of its classes, renumbered."""
    kept = (task.support_y[:, None] == classes).nonzero()
    return task._replace(
        support_x=task.support_x[kept[:, 0]],
        support_y=kept[:, 1],
        query_y=torch.zeros_like(task.query_y),
        way=len(classes),
    )


def test_above_the_bank_each_group_is_answered_as_if_alone_and_prototypes_choose_the_group() -> (
    None
):
    learner = learner_of()
    task = task_of(way=11)
    episode = collate([task])
    found = chances(learner, task)
    group = learner.adapt(episode.support, episode.context).codes[0] // learner.bank
    assert sorted(group.bincount().tolist()) == [3, 4, 4]
    prototypes = ProtoNet(learner.encoder).double()
    prototypes.log_temperature.data.copy_(learner.log_temperature)
    marginal = chances(prototypes, task)
    for which in range(3):
        classes = (group == which).nonzero().flatten()
        whole = found[:, classes].sum(1, keepdim=True)
        close(whole, marginal[:, classes].sum(1, keepdim=True))
        close(found[:, classes] / whole, chances(learner, only(task, classes)))


def test_a_task_within_the_bank_does_not_notice_a_larger_one_beside_it() -> None:
    learner = learner_of()
    small, large = task_of(way=3), task_of(way=9)
    together = answer(learner, collate([small, large]))[0, :, :3]
    close(together, answer(learner, collate([small]))[0], rtol=1e-12, atol=1e-12)


def test_learning_on_above_the_bank_is_learning_at_once() -> None:
    learner = learner_of()
    episode = collate([task_of(way=7)])
    support, context = episode.support, episode.context
    parts = [
        type(support)(*(part[:, half] for part in support)) for half in (slice(5), slice(5, None))
    ]
    state = learner.adapt(parts[1], context, learner.adapt(parts[0], context))
    close(learner.predict(state, episode.query.x, context), answer(learner, episode))


@pytest.mark.parametrize("options", [{}, {"bank": 3}, {"ensemble": 2}])
def test_the_training_loss_is_the_query_loss(options: dict) -> None:
    learner = learner_of(layers=3, **options)
    episode = collate([task_of(way=4, shot=1), task_of(way=2, shot=4, queries=5)])
    weights = list(learner.parameters())
    losses = [
        learner.outer_loss(episode),
        learner.likelihood.nll(answer(learner, episode), episode.query, episode.context),
    ]
    close(*losses)
    close(*(torch.autograd.grad(loss, weights) for loss in losses))


def test_an_ensemble_averages_probabilities_of_other_deals() -> None:
    learner = learner_of()
    task = task_of(way=3)
    alone = chances(learner, task)
    learner.ensemble = 4
    several = chances(learner, task)
    assert not torch.allclose(several, alone, atol=1e-4)
    close(several.sum(1), torch.ones(3).double())
    episode = collate([task])
    state = learner.adapt(episode.support, episode.context)
    means, counts = learner._class_means(episode.support._replace(x=state.features), 3)
    hands = [deal(means, counts, learner.key_direction, learner.bank, hand=m) for m in range(4)]
    assert len({tuple(hand.flatten().tolist()) for hand in hands}) > 1
    place = torch.tensor([2, 0, 1])
    renamed = task._replace(support_y=place[task.support_y])
    close(chances(learner, renamed)[:, place], several)


def test_a_state_keeps_the_ensemble_that_it_began_with_and_training_has_none() -> None:
    learner = learner_of(ensemble=3)
    episode = collate([task_of(way=3)])
    state = learner.adapt(episode.support, episode.context)
    learner.ensemble = 1
    more = learner.adapt(episode.support, episode.context, state)
    assert more.keys.shape[1] == state.keys.shape[1] == 3 * learner.layers
    assert learner.train()._members(None) == 1


def test_an_ensemble_over_features_is_the_mean_of_answers_to_turned_columns() -> None:
    learner = learner_of(ensemble=2, ensemble_over="features")
    task = task_of(way=3)
    both = chances(learner, task)
    learner.ensemble = 1
    first = chances(learner, task)
    assert (
        varied(task.support_x[None], 1).abs().sort().values == task.support_x.abs().sort().values
    ).all()
    assert not torch.allclose(both, first, atol=1e-4)
    learner.ensemble = 2
    support, _, context = collate([task])
    assert learner.adapt(support, context).features.shape[-1] == 2 * learner.encoder.width
    halves = [
        type(support)(*(part[:, half] for part in support)) for half in (slice(2), slice(2, None))
    ]
    state = learner.adapt(halves[1], context, learner.adapt(halves[0], context))
    found = learner.predict(state, task.query_x[None], context)
    close(learner.likelihood.probabilities(found, context)[0], both)
    with pytest.raises(ValueError, match="rows of numbers"):
        varied(torch.zeros(1, 2, 3, dtype=torch.int64), 1)


def test_names_are_examples_and_without_names_nothing_changes() -> None:
    learner, deaf = (learner_of(Words, names=names) for names in (True, False))
    bare = text_task(torch.zeros(3, 0, dtype=torch.int64))
    assert torch.equal(*(answer(each, collate([bare])) for each in (learner, deaf)))
    named = bare._replace(names=torch.randint(20, (3, 2)))
    assert torch.equal(answer(deaf, collate([named])), answer(deaf, collate([bare])))
    padded = torch.nn.functional.pad(named.names, (0, 2), value=-1)
    twice = bare._replace(
        support_x=torch.cat([bare.support_x, padded]),
        support_y=torch.cat([bare.support_y, torch.arange(3)]),
    )
    close(answer(learner, collate([named])), answer(deaf, collate([twice])))
    # A task without names beside one with names.
    together = answer(learner, collate([bare, named]))
    close(together[0], answer(learner, collate([bare]))[0])
    place = torch.tensor([1, 2, 0])
    renamed = named._replace(support_y=place[named.support_y], names=named.names[place.argsort()])
    close(answer(learner, collate([renamed]))[..., place], answer(learner, collate([named])))


def test_a_name_alone_makes_a_class_known_and_learning_on_counts_it_once() -> None:
    learner = learner_of(Words, names=True)
    names = torch.tensor([[1], [5], [9]])
    task = text_task(names)._replace(query_x=names, query_y=torch.arange(3))
    episode = collate([task])
    unseen = learner.adapt(without_support(episode.support), episode.context)
    found = learner.predict(unseen, episode.query.x, episode.context)[0]
    assert (found > -100).all()
    assert not torch.allclose(found[0], found[1])
    support, context = episode.support, episode.context
    halves = [
        type(support)(*(part[:, half] for part in support)) for half in (slice(2), slice(2, None))
    ]
    state = learner.adapt(halves[1], context, learner.adapt(halves[0], context))
    close(learner.predict(state, episode.query.x, context), answer(learner, episode))
    assert take_tasks(state, slice(0, 1)).labels.shape == (1, 9)


@pytest.mark.parametrize("names", [True, False])
def test_a_task_is_told_the_names_of_its_classes(names: bool, tmp_path: Path) -> None:
    learner = learner_of(Words, names=names)
    artifact = Artifact(learner, RunConfig(), {}, "0123456789abcdef", None)
    x = learner.encoder.tokenize(["where is my card", "lost it", "hello there"])
    task = extend(artifact, None, x, ["card_arrival", "card_lost", "greeting"])
    assert task.state.labels.shape[1] == (6 if names else 3)
    assert (task.context.names.shape[2] > 0) == names
    save_task(tmp_path / "some.task", task)
    task = load_task(tmp_path / "some.task", artifact)
    more = learner.encoder.tokenize(["did my card come"])
    task = extend(artifact, task, more, ["card_arrival"])
    assert task.state.labels.shape[1] == (7 if names else 4)
    with pytest.warns(DataNote, match="learned all these examples before"):
        assert extend(artifact, task, x[:1], ["card_arrival"]) is task
    found = answer_of(artifact, task, x)
    close(found.sum(1), torch.ones(3).double())
