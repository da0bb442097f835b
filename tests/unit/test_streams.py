"""Streams of tasks: what is carried, how far gradients go back, and learners that forget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.episode import EpisodeError, Stream, Task, collate_streams, take_tasks
from quickstudy.learners import ProtoNet
from quickstudy.learners.streams import stream_loss, stream_outputs
from quickstudy.nn.encoders import RawEncoder
from recollecting import Recollecting, streams

close = torch.testing.assert_close


def gradient(learner: Recollecting, loss: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, [learner.trust])
    return found


def test_memory_is_what_the_earlier_supports_left() -> None:
    learner, stream = Recollecting(), streams(tasks=3, length=4)
    before = torch.zeros(3)
    for position, (episode, outputs) in enumerate(stream_outputs(learner, stream)):
        now = episode.support.y.sum((1, 2))
        count = 2 + learner.trust * 2 * position + 1
        close(outputs[:, 0, 0], (now + learner.trust * before) / count)
        before = before + now


def test_without_memory_every_position_is_as_the_first() -> None:
    learner, stream = Recollecting(), streams(tasks=3, length=4)
    for episode, outputs in stream_outputs(learner, stream, memory=False):
        alone = learner.predict(
            learner.adapt(episode.support, episode.context), episode.query.x, episode.context
        )
        close(outputs, alone)


def test_the_loss_is_the_mean_over_positions() -> None:
    learner, stream = Recollecting(), streams(tasks=3, length=4)
    each = [
        learner.likelihood.nll(outputs, episode.query, episode.context)
        for episode, outputs in stream_outputs(learner, stream)
    ]
    close(stream_loss(learner, stream), torch.stack(each).mean())
    close(learner(stream), torch.stack(each).mean())


def test_gradients_through_time_equal_central_differences() -> None:
    learner, stream = Recollecting().double(), streams(tasks=3, length=4, double=True)
    found = gradient(learner, learner(stream))
    step = 1e-5
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            learner.trust += sign * step
            sides.append(learner(stream))
            learner.trust -= sign * step
    close(found, (sides[0] - sides[1]) / (2 * step), rtol=1e-7, atol=1e-9)


def test_a_horizon_cuts_the_memory_from_the_graph_and_changes_no_loss() -> None:
    # What is remembered is a sum that trust enters once more at each task, so the cut must show.
    learner, stream = Recollecting(fading=True).double(), streams(tasks=3, length=4, double=True)
    whole, cut = learner(stream), learner(stream, horizon=2)
    close(whole, cut)
    first, second = (Stream(stream.episodes[part]) for part in (slice(0, 2), slice(2, 4)))
    carried = None
    for episode in first.episodes:
        carried = learner.carry(learner.adapt(episode.support, episode.context, carried))
    assert carried is not None
    fixed, losses = {name: tensor.detach() for name, tensor in carried.items()}, []
    for episode in second.episodes:
        state = learner.adapt(episode.support, episode.context, fixed)
        outputs = learner.predict(state, episode.query.x, episode.context)
        losses.append(learner.likelihood.nll(outputs, episode.query, episode.context))
        fixed = learner.carry(state)
    expected = gradient(learner, learner(first)) + gradient(learner, torch.stack(losses).mean())
    close(gradient(learner, cut), expected / 2)
    assert not torch.allclose(gradient(learner, whole), expected / 2)


def test_a_learner_without_memory_takes_a_stream_as_any_tasks() -> None:
    learner, x = ProtoNet(RawEncoder(2)), torch.randn(8, 2)
    task = Task(x, torch.arange(2).repeat(4), x, torch.arange(2).repeat(4), way=2)
    stream = collate_streams([[task, task], [task, task]])
    assert not learner.has_memory
    close(learner(stream), learner(stream.episodes[0]))


def test_streams_in_pieces_have_the_gradient_of_all() -> None:
    learner, stream = Recollecting().double(), streams(tasks=5, length=3, double=True)
    whole = gradient(learner, learner(stream))
    learner.at_once = 2
    learner(stream).backward()
    close(learner.trust.grad, whole)


def test_streams_are_taken_and_moved_like_tasks() -> None:
    stream = streams(tasks=5, length=3)
    part = take_tasks(stream, slice(1, 3))
    assert (part.tasks, len(part.episodes)) == (2, 3)
    close(part.episodes[2].query.y, stream.episodes[2].query.y[1:3])
    assert stream.to("cpu").tasks == 5


def test_a_stream_that_was_cut_off_is_named() -> None:
    task = Task(torch.zeros(2, 1), torch.arange(2), torch.zeros(1, 1), torch.zeros(1).long(), way=2)
    with pytest.raises(EpisodeError, match=r"Stream 2 was cut off: it has 2 tasks, another has 3"):
        collate_streams([[task] * 3, [task] * 2])
    with pytest.raises(EpisodeError, match="at least one task"):
        collate_streams([[], []])
