"""Shortcuts of fast weights against the general way."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from learner_table import shaken, vector_encoder
from quickstudy.episode import Episode, Task, collate
from quickstudy.functional import Weights, descend
from quickstudy.learners.gradient import MAML
from quickstudy.learners.step_sizes import Kind

close = torch.testing.assert_close


def tasks() -> Episode:
    """Two tasks, the second of fewer classes, support examples and queries."""

    def task(way: int, shot: int, queries: int) -> Task:
        labels = torch.arange(way).repeat_interleave(shot)
        rows = torch.randn(way * shot, 6, dtype=torch.float64)
        asked = torch.randn(queries, 6, dtype=torch.float64)
        return Task(rows, labels, asked, torch.randint(way, (queries,)), way)

    return collate([task(3, 2, 14), task(2, 1, 8)])


def generally(learner: MAML, episode: Episode) -> Weights:
    """All steps of all weights, each task by itself."""
    fast, (support, _, context) = learner.fast, episode
    start = fast.initial(support, context)
    return descend(fast.loop(), start, fast.shared(), (support, context.classes))


def gradient(learner: MAML, state: Weights, episode: Episode) -> list[Tensor]:
    _, query, context = episode
    loss = learner.likelihood.nll(learner.predict(state, query.x, context), query, context)
    weights = list(learner.parameters())
    return list(torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("rates", get_args(Kind))
@pytest.mark.parametrize(
    "options",
    [{"adapt": "all"}, {"adapt": "norms"}, {"adapt": "head"}, {"adapt": "all", "steps": 1}],
    ids=str,
)
def test_a_head_that_moves_alone_moves_as_in_a_step_of_all_weights(
    rates: Any, options: dict[str, Any]
) -> None:
    learner = MAML(vector_encoder(), rates=rates, strategy="unroll", **{"steps": 3, **options})
    shaken(learner)
    episode = tasks()
    found = learner.adapt(episode.support, episode.context)
    right = generally(learner, episode)
    close(found, right, rtol=1e-12, atol=1e-12)
    own, other = gradient(learner, found, episode), gradient(learner, right, episode)
    close(own, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strategy", ["sweep", "sqrt"])
@pytest.mark.parametrize("tasks_at_once", [1, 2])
@pytest.mark.parametrize("adapt", ["all", "norms", "head"])
def test_queries_a_few_at_a_time_have_the_gradient_of_all_at_once(
    strategy: Any, tasks_at_once: int, adapt: str
) -> None:
    learner = MAML(
        vector_encoder(), steps=3, strategy=strategy, tasks_at_once=tasks_at_once, adapt=adapt
    )
    shaken(learner)
    episode = tasks()
    assert episode.query.mask.shape[1] > 2 * episode.support.mask.shape[1]
    weights = list(learner.parameters())
    loss, right = learner(episode), learner.query_loss(episode)
    close(loss, right, rtol=1e-12, atol=1e-12)
    own, other = (
        torch.autograd.grad(each, weights, allow_unused=True, materialize_grads=True)
        for each in (loss, right)
    )
    close(own, other, rtol=1e-10, atol=1e-12)
