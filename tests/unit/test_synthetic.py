"""Worlds: their tasks are what they say, their exact answers are exact, and nobody does better."""

from __future__ import annotations

import math

import pytest
import torch
from test_source import same
from torch import Tensor

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError, World
from quickstudy.data.synthetic import Linear, Sinusoid, linear_posterior
from quickstudy.episode import Episode, without_support
from quickstudy.evaluation.rules import ridge_of_support, support_mean

WORLDS = {
    "sinusoid": Sinusoid(),
    "noisy sinusoid": Sinusoid(noise=0.3),
    "linear": Linear(dims=3),
    "noisy linear": Linear(dims=3, noise=0.5),
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


def drawn(world: World, shot: int | tuple[int, int] = 5, *, queries: int = 40, tasks: int = 400):
    return Episodes(world, "test", EpisodeDesign(1, shot, queries), tasks=tasks)[0]


def error(answers: Tensor, episode: Episode) -> float:
    return float((answers - episode.query.y).square().mean())


def test_an_index_is_an_episode_of_its_split_and_seed(world: World) -> None:
    def one(split: str, seed: int, index: int) -> Episode:
        design = EpisodeDesign(1, (2, 4), 3)
        return Episodes(world, split, design, tasks=2, length=9, seed=seed)[index]  # type: ignore[arg-type]

    assert same(one("train", 0, 4), one("train", 0, 4))
    for other in (one("train", 0, 5), one("train", 1, 4), one("validation", 0, 4)):
        assert not same(one("train", 0, 4), other)
    with pytest.raises(IndexError):
        one("train", 0, 9)


def test_episodes_have_the_shape_of_their_design(world: World) -> None:
    episode = drawn(world, (1, 4), queries=7, tasks=300)
    assert episode.support.x.shape == (300, 4, world.inputs)
    assert episode.query.x.shape == (300, 7, world.inputs)
    assert episode.support.y.shape == (300, 4, 1)
    shots = episode.support.mask.sum(1)
    assert torch.equal(episode.support.mask, torch.arange(4) < shots[:, None])
    assert set(shots.tolist()) == {1, 2, 3, 4}
    assert episode.query.mask.all()
    assert episode.context.classes.shape == (300, 1)
    assert episode.context.names.shape == (300, 1, 0)


def test_waves_are_those_of_the_paper() -> None:
    episode = drawn(Sinusoid(), 50, queries=450, tasks=4000)
    x = torch.cat([episode.support.x, episode.query.x], 1)[..., 0]
    y = torch.cat([episode.support.y, episode.query.y], 1)[..., 0]
    assert (float(x.min()), float(x.max())) == pytest.approx((-5, 5), abs=0.01)
    waves = torch.stack([x.sin(), x.cos()], dim=-1).double()
    weights = torch.linalg.lstsq(waves, y.double()[..., None]).solution[..., 0]
    amplitude = weights.norm(dim=1)
    phase = torch.atan2(-weights[:, 1], weights[:, 0])
    for found, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi)):
        assert low - 1e-4 < float(found.min()) < float(found.max()) < high + 1e-4
        uniform = (found.sort().values - low) / (high - low)
        gap = (uniform - torch.linspace(0, 1, len(found))).abs().max()
        assert float(gap) < 1.95 / math.sqrt(len(found))  # Kolmogorov and Smirnov, 0.1 %


def test_linear_functions_are_those_of_the_paper() -> None:
    episode = drawn(Linear(dims=3, noise=0.5), 200, queries=1, tasks=2000)
    rows, y = episode.support.x.double(), episode.support.y.double()
    weights = torch.linalg.lstsq(rows, y).solution[..., 0]
    assert float(weights.mean()) == pytest.approx(0, abs=0.05)
    assert float(weights.std()) == pytest.approx(1, abs=0.05)
    assert float((y - rows @ weights[..., None]).std()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("world", "enough"), [(Sinusoid(), 2), (Linear(dims=3), 3)])
def test_enough_examples_without_noise_say_everything(world: World, enough: int) -> None:
    few, many = drawn(world, enough - 1), drawn(world, enough + 3)
    assert error(world.exact(many).mean, many) < 1e-6
    assert error(world.exact(few).mean, few) > 0.1


def test_nobody_beats_the_exact_answer(world: World) -> None:
    for shot in (1, 2, 5, (1, 9)):
        episode = drawn(world, shot, tasks=60)
        answer = world.exact(episode).mean
        best = error(answer, episode)
        assert best < error(support_mean(episode), episode)
        assert best < error(ridge_of_support(episode), episode)
        for change in (0.9, 1.1):
            assert best <= error(change * answer, episode)


def test_the_exact_answer_of_linear_functions_is_ridge_with_the_noise_as_penalty() -> None:
    world = Linear(dims=3, noise=0.5)
    episode = drawn(world, 4, tasks=5)
    for task in range(5):
        rows, y = episode.support.x[task].double(), episode.support.y[task].double()
        weights = torch.linalg.solve(rows.T @ rows + 0.25 * torch.eye(3), rows.T @ y)
        expected = episode.query.x[task].double() @ weights
        torch.testing.assert_close(world.exact(episode).mean[task].double(), expected)


def test_the_posterior_mean_is_that_of_a_grid() -> None:
    """One weight, whose posterior is added up over a fine grid."""
    features, y = torch.tensor([[[0.5], [-2.0]]]), torch.tensor([[[0.9], [-1.0]]])
    mean, deviation = linear_posterior(
        features,
        y,
        torch.ones(1, 2, dtype=torch.bool),
        torch.ones(1, 1, 1),
        mean=torch.tensor([1.5]),
        covariance=torch.tensor([[0.3]]),
        noise=0.4,
    )
    grid = torch.linspace(-5, 5, 200_001, dtype=torch.float64)
    fit = (y[0].double() - features[0].double() * grid).square().sum(0) / 0.4**2
    weight = (-0.5 * (fit + (grid - 1.5).square() / 0.3)).softmax(0)
    centre = (weight * grid).sum()
    spread = (weight * (grid - centre).square()).sum() + 0.4**2
    assert float(mean) == pytest.approx(float(centre), abs=1e-5)
    assert float(deviation) == pytest.approx(math.sqrt(float(spread)), abs=1e-5)


@pytest.mark.parametrize("shot", [1, 2, 6])
def test_noisy_waves_are_answered_as_by_a_fine_grid(shot: int) -> None:
    """Every amplitude and phase, by brute force."""
    noise, cells = 0.4, 800
    episode = drawn(Sinusoid(noise=noise), shot, queries=2, tasks=3)
    found = Sinusoid(noise=noise).exact(episode)
    place = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    amplitude, phase = 0.1 + 4.9 * place[:, None], math.pi * place
    for task in range(3):
        x, y = (each[task, :, 0].double() for each in (episode.support.x, episode.support.y))
        fit = sum(
            (b - amplitude * torch.sin(a - phase)).square() for a, b in zip(x, y, strict=True)
        )
        weight = (-0.5 * fit / noise**2).flatten().softmax(0).reshape(cells, cells)
        for query in range(2):
            wave = amplitude * torch.sin(episode.query.x[task, query, 0].double() - phase)
            mean = (weight * wave).sum()
            variance = (weight * (wave - mean).square()).sum() + noise**2
            z = (episode.query.y[task, query, 0].double() - wave) / noise
            density = (weight * torch.exp(-0.5 * z.square())).sum() / (
                noise * math.sqrt(2 * math.pi)
            )
            assert float(found.mean[task, query]) == pytest.approx(float(mean), abs=2e-3)
            assert float(found.deviation[task, query]) == pytest.approx(
                float(variance.sqrt()), abs=2e-3
            )
            assert found.log_density is not None
            assert float(found.log_density[task, query]) == pytest.approx(
                float(density.log()), abs=5e-3
            )


@pytest.mark.parametrize("world", [Sinusoid(noise=0.2), Linear(dims=3, noise=0.5)])
def test_intervals_hold_95_of_100_values(world: World) -> None:
    episode = drawn(world, (2, 9), queries=10, tasks=300)
    found = world.exact(episode)
    inside = (found.mean - episode.query.y).abs() < 1.959964 * found.deviation
    assert float(inside.double().mean()) == pytest.approx(0.95, abs=0.015)
    assert found.log_density is not None
    assert found.log_density.shape == (300, 10)


def test_only_noise_gives_a_density() -> None:
    for world in (Sinusoid(), Linear(dims=3)):
        assert world.exact(drawn(world, tasks=2)).log_density is None


def test_hidden_examples_say_nothing(world: World) -> None:
    episode = drawn(world, (1, 5), tasks=6)
    spoilt = torch.where(episode.support.mask[..., None], episode.support.y, 99.0)
    other = episode._replace(support=episode.support._replace(y=spoilt))
    for rule in (lambda one: world.exact(one).mean, support_mean, ridge_of_support):
        torch.testing.assert_close(rule(other), rule(episode))
    for task in range(6):
        shot = int(episode.support.mask[task].sum())
        alone = episode._replace(
            support=type(episode.support)(
                *(part[task : task + 1, :shot] for part in episode.support)
            ),
            query=type(episode.query)(*(part[task : task + 1] for part in episode.query)),
        )
        for rule in (lambda one: world.exact(one).mean, support_mean, ridge_of_support):
            torch.testing.assert_close(rule(alone)[0], rule(episode)[task])


@pytest.mark.parametrize("world", [Sinusoid(), Sinusoid(noise=0.3)])
def test_without_support_the_prior_answers(world: Sinusoid) -> None:
    episode = drawn(world, tasks=3)
    unknown = episode._replace(support=without_support(episode.support))
    expected = -5.1 / math.pi * episode.query.x.cos()
    torch.testing.assert_close(world.exact(unknown).mean, expected, rtol=1e-4, atol=1e-4)
    assert (support_mean(unknown) == 0).all()
    assert (ridge_of_support(unknown) == 0).all()


def test_ridge_knows_where_values_lie() -> None:
    """Shifting all values shifts all answers; a line without noise is nearly found."""
    x = torch.linspace(-40, 40, 9)[None, :, None]
    line = Episode(
        support=drawn(Linear(dims=1), 9, tasks=1).support._replace(x=x, y=2 * x + 7),
        query=drawn(Linear(dims=1), 9, queries=9, tasks=1).query._replace(x=x, y=2 * x + 7),
        context=drawn(Linear(dims=1), 9, tasks=1).context,
    )
    torch.testing.assert_close(ridge_of_support(line), line.query.y, rtol=0, atol=0.1)
    assert float(support_mean(line)[0, 0, 0]) == pytest.approx(7)


@pytest.mark.parametrize(
    "design", [EpisodeDesign(2, 5, 5), EpisodeDesign((1, 2), 5, 5), EpisodeDesign(1, 5, 5, True)]
)
def test_designs_that_no_function_has_are_refused(design: EpisodeDesign) -> None:
    with pytest.raises(DataError, match="number of values that a task predicts, 1"):
        Episodes(Sinusoid(), "train", design)


@pytest.mark.parametrize("noise", [-0.1, math.inf, math.nan])
def test_noise_is_a_standard_deviation(noise: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Sinusoid(noise=noise)
    with pytest.raises(ValueError, match="0 or more"):
        Linear(noise=noise)
    with pytest.raises(ValueError, match="at least 1"):
        Linear(dims=0)
