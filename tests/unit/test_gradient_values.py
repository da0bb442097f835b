"""MAML that predicts numbers: closed forms, and the learned start of its head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from learner_table import shaken, vector_encoder
from quickstudy.episode import Episode, Task, collate
from quickstudy.learners.gradient import MAML
from quickstudy.likelihood import SquaredError
from quickstudy.nn.encoders import Encoder, RawEncoder

close = torch.testing.assert_close


class Linear(Encoder):
    """``A x``, so that every slope has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 3
        self.embed = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)


def regression_task(values: int = 2, shot: int = 5) -> Task:
    x, asked = (torch.randn(count, 6, dtype=torch.float64) for count in (shot, 4))
    law = torch.randn(6, values, dtype=torch.float64)
    return Task(x, x @ law, asked, asked @ law, way=values)


def answer(learner: MAML, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


@pytest.mark.parametrize("values", [1, 2])
@pytest.mark.parametrize("strategy", ["unroll", "sweep", "first"])
def test_a_step_on_values_is_a_closed_form(values: int, strategy: str) -> None:
    learner = MAML(Linear(), values=values, steps=1, rate=0.2, strategy=strategy)
    shaken(learner)
    tasks = [regression_task(values), regression_task(values, shot=2)]
    episode = collate(tasks)
    outputs, losses = answer(learner, episode), []
    for task, found in zip(tasks, outputs, strict=True):
        rows, bias, matrix = learner.start.weight, learner.start.bias, learner.encoder.embed.weight
        if strategy == "first":
            error = (task.support_x @ matrix.T @ rows.T + bias - task.support_y).detach()
            turned, features = error @ rows.detach(), (task.support_x @ matrix.T).detach()
        else:
            error = task.support_x @ matrix.T @ rows.T + bias - task.support_y
            turned, features = error @ rows, task.support_x @ matrix.T
        step = 0.2 / len(task.support_y)
        rows = rows - step * error.T @ features
        bias = bias - step * error.sum(0)
        matrix = matrix - step * turned.T @ task.support_x
        expected = task.query_x @ matrix.T @ rows.T + bias
        close(found, expected, rtol=1e-12, atol=1e-12)
        losses.append(0.5 * (expected - task.query_y).square().sum(1).mean())
    weights = list(learner.parameters())
    own = torch.autograd.grad(learner(episode), weights)
    known = torch.autograd.grad(torch.stack(losses).mean(), weights)
    close(own, known, rtol=1e-10, atol=1e-12)


def test_a_head_alone_descends_to_the_least_squares_of_the_support() -> None:
    task = regression_task(shot=30)
    learner = MAML(RawEncoder(6), values=2, adapt="head", steps=400, rate=0.5)
    shaken(learner)
    episode = collate([task])
    close(answer(learner, episode)[0].detach(), task.query_y, rtol=1e-5, atol=1e-5)
    close(learner.query_loss(episode).detach(), torch.zeros(()).double(), rtol=0, atol=1e-8)


def test_before_adaptation_the_head_is_where_training_left_it() -> None:
    learner = shaken(MAML(vector_encoder(), values=3))
    support, _, context = collate([regression_task(3), regression_task(3)])
    start = learner.fast.initial(support, context)
    outputs = learner.predict(start, support.x, context)
    close(outputs, learner.start(learner.encode(support.x)))
    assert isinstance(learner.likelihood, SquaredError)
    assert {"start.weight", "start.bias"} < set(learner.state_dict())


def test_the_head_of_a_body_that_adapts_stays() -> None:
    learner = shaken(MAML(vector_encoder(), values=2, adapt="body", steps=2))
    support, _, context = collate([regression_task(2)])
    state = learner.adapt(support, context)
    assert torch.equal(state["head.weight"][0], learner.start.weight)
    assert not torch.equal(state["encoder.embed.weight"][0], learner.encoder.embed.weight.detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": -1}, "0 for classes; found -1"),
        ({"values": 2, "head": "prototypes"}, "Found head='prototypes' beside values"),
    ],
)
def test_a_bad_option_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(vector_encoder(), **options)


def test_another_number_of_values_is_named() -> None:
    learner = MAML(vector_encoder(), values=2).double()
    support, _, context = collate([regression_task(values=1)])
    with pytest.raises(ValueError, match="predicts 2 values, but the tasks have 1"):
        learner.adapt(support, context)
