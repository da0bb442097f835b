"""Bayesian linear regression on features against Gaussians that are conditioned as the textbook says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from quickstudy.episode import Context, Examples
from quickstudy.learners.bayesian_linear import BayesianLinear
from quickstudy.nn.encoders import RawEncoder

WIDTH = 4


def learner_of(values: int = 2) -> BayesianLinear:
    torch.manual_seed(0)
    learner = BayesianLinear(RawEncoder(WIDTH), values=values).double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return learner


def context_of(tasks: int = 1, values: int = 2) -> Context:
    there = torch.ones(tasks, values, dtype=torch.bool)
    return Context(there, torch.zeros(tasks, 0), torch.zeros(tasks, values, 0).long())


def examples_of(count: int, tasks: int = 1, values: int = 2) -> Examples:
    x = torch.randn(tasks, count, WIDTH, dtype=torch.float64)
    y = torch.randn(tasks, count, values, dtype=torch.float64)
    return Examples(x, y, torch.ones(tasks, count, dtype=torch.bool))


def conditioned(learner: BayesianLinear, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the queries of one task, by the joint Gaussian of all its examples."""
    z = torch.cat([support.x[0], x[0]]) / math.sqrt(WIDTH)
    z = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1)
    known = support.x.shape[1]
    shared = z @ learner.log_spread.exp().square().diag() @ z.T + torch.eye(len(z), dtype=z.dtype)
    means = z @ learner.center
    one, cross, two = shared[:known, :known], shared[known:, :known], shared[known:, known:]
    share = cross @ one.inverse()
    mean = means[known:] + share @ (support.y[0] - means[:known])
    variance = (two - share @ cross.T).diagonal()
    return mean, variance.sqrt()[:, None] * learner.log_noise.exp()


@pytest.mark.parametrize("count", [0, 1, 3, WIDTH + 1, WIDTH + 2, 40])
def test_answers_are_the_conditional_gaussian(count: int) -> None:
    """With fewer examples than features, as many, and more, where the other form is solved."""
    learner, context = learner_of(), context_of()
    support, x = examples_of(count), torch.randn(1, 6, WIDTH, dtype=torch.float64)
    outputs = learner.predict(learner.adapt(support, context), x, context)
    mean, deviation = learner.likelihood.distribution(outputs)
    expected = conditioned(learner, support, x)
    torch.testing.assert_close(mean[0], expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(deviation[0], expected[1], rtol=1e-7, atol=1e-9)


def test_it_forgets_its_prior_where_it_sees_enough() -> None:
    """And then knows how large the noise is, where it has learned that."""
    learner, context = learner_of(1), context_of(values=1)
    weights = torch.randn(WIDTH, 1, dtype=torch.float64)
    x = torch.randn(1, 3000, WIDTH, dtype=torch.float64)
    noise = learner.log_noise.exp().item()
    y = x @ weights + 2 + noise * torch.randn(1, 3000, 1, dtype=torch.float64)
    state = learner.adapt(Examples(x, y, torch.ones(1, 3000, dtype=torch.bool)), context)
    asked = torch.randn(1, 50, WIDTH, dtype=torch.float64)
    mean, deviation = learner.likelihood.distribution(learner.predict(state, asked, context))
    assert (mean - asked @ weights - 2).abs().max().item() < 0.2 * noise
    torch.testing.assert_close(
        deviation.detach(), torch.full_like(deviation, noise), rtol=0.01, atol=0
    )


def test_options_and_tasks_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="The noise must be positive; found 0"):
        BayesianLinear(RawEncoder(1), values=1, noise=0)
    with pytest.raises(ValueError, match="values must be at least 1; found 0"):
        BayesianLinear(RawEncoder(1))
    with pytest.raises(ValueError, match="predicts 2 values, but the tasks have 3"):
        learner_of().adapt(examples_of(2, values=3), context_of(values=3))
