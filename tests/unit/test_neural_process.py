"""Neural processes: the joint densities of their answers, what a query sees, and answers in turn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from learner_table import shaken
from quickstudy.episode import Context, Episode, Examples, Task, collate, without_support
from quickstudy.learners.autoregressive import (
    AutoregressiveNeuralProcess,
    density_in_turn,
    sampled_in_turn,
)
from quickstudy.learners.base import Learner
from quickstudy.learners.conditional_process import ConditionalNeuralProcess
from quickstudy.learners.metric import ProtoNet
from quickstudy.learners.neural_process import TransformerNeuralProcess
from quickstudy.likelihood import Gaussian, JointGaussian, drawn, predicted_values
from quickstudy.nn.encoders import RawEncoder

close = torch.testing.assert_close

SMALL = {"width": 8, "layers": 2, "heads": 2, "waves": 2}


def task(shot: int, queries: int, values: int = 1, inputs: int = 2) -> Task:
    def numbers(count: int, width: int) -> Tensor:
        return torch.randn(count, width, dtype=torch.float64)

    return Task(
        numbers(shot, inputs),
        numbers(shot, values),
        numbers(queries, inputs),
        numbers(queries, values),
        values,
    )


@pytest.fixture
def episode() -> Episode:
    return collate([task(4, 3), task(2, 5)])


def turns() -> AutoregressiveNeuralProcess:
    learner = shaken(AutoregressiveNeuralProcess(RawEncoder(2), values=1, **SMALL))
    assert isinstance(learner, AutoregressiveNeuralProcess)
    return learner


def outputs_of(learner: Learner, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


# The likelihood of all queries together


def test_a_joint_density_is_that_of_a_multivariate_normal() -> None:
    likelihood = JointGaussian(rank=3)
    episode = collate([task(1, 4, values=2), task(1, 6, values=2)])
    outputs = torch.randn(2, 6, likelihood.width(2), dtype=torch.float64)
    mean, scale, factor = likelihood.parts(outputs)
    assert bool((scale > 0.01).all())
    found = likelihood.task_nll(outputs, episode.query, episode.context)
    for number, count in enumerate((4, 6)):
        total = 0.0
        for dim in range(2):
            rows = factor[number, :count, dim]
            spread = rows @ rows.T + torch.diag(scale[number, :count, dim] ** 2)
            close(likelihood.covariance(outputs)[number, dim, :count, :count], spread)
            normal = MultivariateNormal(mean[number, :count, dim], spread)
            total -= float(normal.log_prob(episode.query.y[number, :count, dim]))
        assert float(found[number]) == pytest.approx(total / count, rel=1e-10)


def test_without_a_factor_the_joint_density_is_the_product_of_its_parts() -> None:
    likelihood, episode = JointGaussian(rank=2), collate([task(1, 4, values=3)])
    outputs = torch.randn(1, 4, 6, dtype=torch.float64)
    alone = Gaussian().task_nll(outputs, episode.query, episode.context)
    both = torch.nn.functional.pad(outputs, (0, 6))
    close(likelihood.task_nll(both, episode.query, episode.context), alone)


def test_each_query_by_itself_has_the_variance_of_the_diagonal() -> None:
    likelihood = JointGaussian(rank=2)
    outputs = torch.randn(2, 3, 8, dtype=torch.float64)
    mean, deviation = likelihood.distribution(outputs)
    diagonal = likelihood.covariance(outputs).diagonal(dim1=-2, dim2=-1).transpose(1, 2)
    close(deviation.square(), diagonal)
    close(predicted_values(likelihood, outputs), mean)


def test_a_value_that_does_not_exist_does_not_count() -> None:
    likelihood, one = JointGaussian(rank=2), collate([task(1, 4, values=1)])
    outputs = torch.randn(1, 4, 8, dtype=torch.float64)
    two = collate([task(1, 4, values=2)])
    query = two.query._replace(y=torch.cat([one.query.y, one.query.y], -1))
    context = two.context._replace(classes=torch.tensor([[True, False]]))
    first = torch.cat([outputs[..., [0, 2]], outputs[..., 4:6]], -1)
    close(
        likelihood.task_nll(outputs, query, context),
        likelihood.task_nll(first, one.query, one.context),
    )


def test_in_single_precision_a_joint_density_is_right_where_the_noise_is_least() -> None:
    likelihood, episode = JointGaussian(rank=4), collate([task(1, 40)])
    outputs = torch.randn(1, 40, 6, dtype=torch.float64)
    outputs[..., 1] = -9
    exact = likelihood.task_nll(outputs, episode.query, episode.context)
    single = episode.query._replace(y=episode.query.y.float())
    close(
        likelihood.task_nll(outputs.float(), single, episode.context).double(),
        exact,
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize("rank", [0, 3])
def test_draws_have_the_mean_and_the_covariance_that_was_said(
    rank: int, generator: torch.Generator
) -> None:
    likelihood = JointGaussian(rank=rank) if rank else Gaussian()
    outputs = torch.randn(1, 4, likelihood.width(1), dtype=torch.float64)
    values = drawn(likelihood, outputs, count=100_000, generator=generator)[:, 0, :, 0]
    mean, deviation = likelihood.distribution(outputs)
    covariance = torch.diag(deviation[0, :, 0] ** 2)
    if isinstance(likelihood, JointGaussian):
        covariance = likelihood.covariance(outputs)[0, 0]
    close(values.mean(0), mean[0, :, 0], rtol=0, atol=0.03)
    close(values.T.cov(), covariance, rtol=0.02, atol=0.05)


# What a query sees


def test_training_in_one_stream_is_the_loss_of_adapting_and_predicting(episode: Episode) -> None:
    for options in ({}, {"rank": 2}, {"relative": True}):
        learner = shaken(TransformerNeuralProcess(RawEncoder(2), values=1, **SMALL, **options))
        assert isinstance(learner, Learner)
        state = learner.adapt(episode.support, episode.context)
        outputs = learner.predict(state, episode.query.x, episode.context)
        loss = learner.likelihood.nll(outputs, episode.query, episode.context)
        close(learner.outer_loss(episode), loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("relative", [True, False])
def test_only_differences_of_places_count_where_they_are_relative(
    relative: bool, episode: Episode
) -> None:
    options = {**SMALL, "relative": relative}
    learner = shaken(TransformerNeuralProcess(RawEncoder(2), values=1, **options))
    assert isinstance(learner, Learner)
    support, query, context = episode
    shift = torch.tensor([3.0, -1.5], dtype=torch.float64)
    here = learner.predict(learner.adapt(support, context), query.x, context)
    moved = learner.adapt(support._replace(x=support.x + shift), context)
    there = learner.predict(moved, query.x + shift, context)
    assert torch.allclose(here, there, rtol=1e-8, atol=1e-8) == relative
    # What lies in another direction is another task all the same.
    turned = learner.adapt(support._replace(x=support.x.flip(-1)), context)
    assert not torch.allclose(learner.predict(turned, query.x.flip(-1), context), here)


def test_pairs_are_turned_by_what_was_written() -> None:
    reader = TransformerNeuralProcess(RawEncoder(2), values=1, relative=True, **SMALL).reader
    x = torch.randn(1, 3, 2)
    turn = reader.turn(x)
    assert turn is not None
    angle = (reader.speeds[1, 0] * x[0, 2]).sum()
    close(turn.cos[0, 1, 2, 0], angle.cos())
    close(turn.sin[0, 1, 2, 0], angle.sin())


def test_nearness_is_what_was_written() -> None:
    reader = TransformerNeuralProcess(RawEncoder(2), values=1, **SMALL).double().reader
    x, z = (torch.randn(1, count, 2, dtype=torch.float64) for count in (3, 4))
    seen = torch.ones(1, 1, 4, dtype=torch.bool)
    seen[..., 3] = False
    scores = reader.scores(x, z, seen)
    apart = (x[:, :, None] - z[:, None]) * reader.metric
    expected = -reader.log_rates.exp()[:, None, None] * (apart**2).sum(-1)[:, None]
    close(scores[..., :3], expected[..., :3])
    assert (scores[..., 3] == -math.inf).all()


def test_moving_every_place_alike_moves_no_score() -> None:
    reader = TransformerNeuralProcess(RawEncoder(1), values=1, **SMALL).double().reader
    x, z = (torch.randn(1, count, 1, dtype=torch.float64) for count in (3, 4))
    seen = torch.ones(1, 1, 1, dtype=torch.bool)
    close(reader.scores(x + 7, z + 7, seen), reader.scores(x, z, seen))


def test_without_support_every_task_has_the_same_answer(episode: Episode) -> None:
    makers = (TransformerNeuralProcess, AutoregressiveNeuralProcess, ConditionalNeuralProcess)
    for maker in makers:
        learner = shaken(maker(RawEncoder(2), values=1, width=8, layers=2))
        assert isinstance(learner, Learner)
        x = episode.query.x[:1].expand(2, -1, -1)
        state = learner.adapt(without_support(episode.support), episode.context)
        outputs = learner.predict(state, x, episode.context)
        assert outputs.isfinite().all()
        close(outputs[0], outputs[1])
        nothing = Examples(
            torch.zeros(2, 0, 2).double(),
            torch.zeros(2, 0, 1).double(),
            torch.zeros(2, 0, dtype=torch.bool),
        )
        close(learner.predict(learner.adapt(nothing, episode.context), x, episode.context), outputs)


def test_a_conditional_process_is_the_formula_of_its_paper() -> None:
    learner = shaken(ConditionalNeuralProcess(RawEncoder(2), values=1, width=8, layers=1))
    assert isinstance(learner, ConditionalNeuralProcess)
    one = task(5, 3)
    said = learner.say(torch.cat([one.support_x, one.support_y], -1)).mean(0)
    expected = learner.answer(torch.cat([one.query_x, said.expand(3, -1)], -1))
    close(outputs_of(learner, collate([one]))[0], expected)


# In turn


def test_the_loss_in_turn_is_the_density_of_answers_that_become_examples(episode: Episode) -> None:
    learner = turns()
    state = learner.adapt(episode.support, episode.context)
    logs = density_in_turn(learner, state, episode.query, episode.context)
    assert (logs[0, 3:] == 0).all()
    mean = logs.sum(1) / episode.query.mask.sum(1)
    close(-mean.mean(), learner.outer_loss(episode), rtol=1e-10, atol=1e-12)


def test_examples_that_come_later_change_nothing_of_the_earlier(episode: Episode) -> None:
    learner = turns()
    first = learner.adapt(episode.support, episode.context)
    second = learner.adapt(episode.query, episode.context, first)
    count = episode.support.mask.shape[1]
    close(second.keys[..., :count, :], first.keys)
    assert second.turns.unique().tolist() == [0, 1]


def test_the_density_in_turn_of_a_gaussian_process_is_its_joint_density() -> None:
    learner, one = Exact(), task(0, 4, inputs=1)
    episode = collate([one])
    state = learner.adapt(episode.support, episode.context)
    logs = density_in_turn(learner, state, episode.query, episode.context)
    spread = learner.covariance(one.query_x, one.query_x) + learner.NOISE**2 * torch.eye(4).double()
    joint = MultivariateNormal(torch.zeros(4).double(), spread)
    close(logs.sum(), joint.log_prob(one.query_y[:, 0]))


def test_draws_in_turn_vary_together_as_the_functions_do(generator: torch.Generator) -> None:
    learner, tasks = Exact(), 20_000
    x = torch.tensor([[0.0], [0.5], [2.0]]).double().expand(tasks, -1, -1)
    nothing = Examples(x[:, :0], x[:, :0], torch.zeros(tasks, 0, dtype=torch.bool))
    context = Context(
        torch.ones(tasks, 1, dtype=torch.bool), torch.zeros(tasks, 0), torch.zeros(tasks, 1, 0)
    )
    state = learner.adapt(nothing, context)
    values = sampled_in_turn(learner, state, x, context, generator=generator)[..., 0]
    expected = learner.covariance(x[0], x[0]) + learner.NOISE**2 * torch.eye(3).double()
    close(values.T.cov(), expected, rtol=0, atol=0.04)


class Exact(Learner):
    """A Gaussian process that is known, as a learner: what answers in turn must come to."""

    NOISE = 0.3
    order_free, additive, inner_loop, state_type = True, True, False, Examples

    def __init__(self) -> None:
        super().__init__(RawEncoder(1), Gaussian(smallest_scale=0.0))

    @staticmethod
    def covariance(x: Tensor, z: Tensor) -> Tensor:
        return torch.exp(-0.5 * (x - z.transpose(-1, -2)) ** 2)

    def adapt(self, support: Examples, context: Context, state: Examples | None = None) -> Examples:
        if state is None:
            return support
        return Examples(*(torch.cat(parts, 1) for parts in zip(state, support, strict=True)))

    def predict(self, state: Examples, x: Tensor, context: Context) -> Tensor:
        noise = self.NOISE**2
        gram = self.covariance(state.x, state.x) + noise * torch.eye(state.x.shape[1]).double()
        across = self.covariance(state.x, x)
        solved = torch.linalg.solve(gram, across)
        mean = solved.transpose(1, 2) @ state.y
        variance = 1 + noise - (across * solved).sum(1)[..., None]
        return torch.cat([mean, torch.expm1(variance.sqrt()).log()], -1)


# Bad input


@pytest.mark.parametrize(
    ("maker", "options", "message"),
    [
        (TransformerNeuralProcess, {}, "values must be at least 1; found 0"),
        (TransformerNeuralProcess, {"values": 1, "rank": -1}, "rank must be 0 or more; found -1"),
        (
            TransformerNeuralProcess,
            {"values": 1, "layers": 0},
            "layers must be at least 1; found 0",
        ),
        (
            AutoregressiveNeuralProcess,
            {"values": 1, "waves": -1},
            "waves must be at least 0; found -1",
        ),
        (ConditionalNeuralProcess, {"values": 1, "width": 0}, "found a width of 0"),
    ],
)
def test_a_bad_option_is_named(maker: type[Learner], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        maker(RawEncoder(2), **options)


def test_another_number_of_values_is_named(episode: Episode) -> None:
    learner = TransformerNeuralProcess(RawEncoder(2), values=2, **SMALL).double()
    with pytest.raises(ValueError, match="predicts 2 values, but the tasks have 1"):
        learner.adapt(episode.support, episode.context)


def test_nothing_is_drawn_where_nothing_is_uncertain(
    episode: Episode, generator: torch.Generator
) -> None:
    learner = ProtoNet(RawEncoder(2))
    with pytest.raises(TypeError, match="Categorical"):
        sampled_in_turn(learner, None, episode.query.x, episode.context, generator=generator)


def test_a_normal_with_a_tiny_scale_keeps_its_floor() -> None:
    outputs = torch.tensor([[[0.5, -1e4]]], dtype=torch.float64)
    examples = Examples(
        outputs[..., :1], outputs[..., :1] + 0.01, torch.ones(1, 1, dtype=torch.bool)
    )
    context = collate([task(1, 1)]).context
    expected = -Normal(0.5, 0.01).log_prob(torch.tensor(0.51, dtype=torch.float64))
    close(Gaussian().task_nll(outputs, examples, context)[0], expected)
