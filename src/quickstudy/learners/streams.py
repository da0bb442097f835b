"""Streams: what a learner makes of tasks that follow one another, with the memory that each leaves to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quickstudy.episode import Episode, Stream, tree_map

if TYPE_CHECKING:
    from quickstudy.learners.base import Learner


def stream_outputs(
    learner: Learner, stream: Stream, *, memory: bool = True, horizon: int = 0
) -> Iterator[tuple[Episode, Tensor]]:
    """The tasks of each position in turn, and the outputs (task, query, …) for their queries.

    ``s_t = adapt(support_t, m_{t-1})`` with ``m_t = carry(s_t)``, from no memory at the first position.

    Args:
        learner: that answers.
        stream: the tasks.
        memory: whether a task starts from what the one before it left; without, every position is as the first.
        horizon: tasks after which what is carried is cut from the graph, so gradients go no further back; 0 for never.
    """
    carried = None
    for position, episode in enumerate(stream.episodes, start=1):
        state = learner.adapt(episode.support, episode.context, carried)
        yield episode, learner.predict(state, episode.query.x, episode.context)
        carried = learner.carry(state) if memory else None
        if horizon and position % horizon == 0 and carried is not None:
            carried = tree_map(torch.detach, carried)


def stream_loss(learner: Learner, stream: Stream, *, horizon: int = 0) -> Tensor:
    """The mean over positions of the queries' negative log-likelihood, each after adapting from what the last one left.

    ``1/T Σ_t nll_t``, whose gradient goes back through adapting to earlier tasks: back-propagation through time, over
    tasks. A learner without memory descends the mean of its :meth:`Learner.outer_loss`, as of any tasks.

    Args:
        learner: that is trained.
        stream: the tasks.
        horizon: what is carried is cut from the graph after so many tasks (truncated back-propagation); 0 for never.
    """
    if not learner.has_memory:
        losses = [learner.outer_loss(episode) for episode in stream.episodes]
    else:
        losses = [
            learner.likelihood.nll(outputs, episode.query, episode.context)
            for episode, outputs in stream_outputs(learner, stream, horizon=horizon)
        ]
    return torch.stack(losses).mean()
