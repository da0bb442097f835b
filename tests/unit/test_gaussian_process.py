"""Random functions: drawn as they should be, and answered by one who knows their prior."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ExpSineSquared, Matern

from quickstudy.build import build_source
from quickstudy.data import predictive
from quickstudy.data.adaptive_sampling import adaptive_sample
from quickstudy.data.covariance import KERNELS
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.exact import mixture_interval
from quickstudy.data.gaussian_process import GaussianProcess
from quickstudy.data.source import DataError
from quickstudy.episode import Episode, Examples, concatenate, tree_map, without_support

PROTOCOL = EpisodeDesign(1, (3, 46), 46)


def precise(episode: Episode) -> Episode:
    """The same tasks in double precision."""
    return tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, episode)


def drawn(
    world: GaussianProcess, design: EpisodeDesign = PROTOCOL, *, tasks: int = 20, seed: int = 0
):
    return world.draw_known(design, tasks=tasks, generator=torch.Generator().manual_seed(seed))


def log_likelihood(found, episode: Episode) -> torch.Tensor:
    """The mean over the queries of each task, (task,)."""
    kept = episode.query.mask
    return torch.where(kept, found.log_density.double(), 0).sum(1) / kept.sum(1)


def covered(found, episode: Episode) -> float:
    """The share of the values that intervals of 95 % hold."""
    inside = (found.mean - episode.query.y).abs() < 1.959964 * found.deviation
    return float(inside[..., 0][episode.query.mask].double().mean())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_posterior_is_that_of_scikit_learn(kernel: str) -> None:
    world = GaussianProcess(kernel=kernel)
    episode, known = drawn(world, EpisodeDesign(1, (3, 12), 30), tasks=6)
    episode = precise(episode)
    found = world.oracle(episode, known)
    for task in range(6):
        length, scale, period = (float(each[task]) for each in known[1:])
        shape = {
            "rbf": RBF(length, "fixed"),
            "matern": Matern(length, "fixed", nu=2.5),
            "periodic": ExpSineSquared(length, period, "fixed", "fixed"),
        }[kernel]
        regressor = GaussianProcessRegressor(scale**2 * shape, alpha=0.02**2, optimizer=None)
        kept = episode.support.mask[task]
        regressor.fit(
            episode.support.x[task, kept].numpy(), episode.support.y[task, kept, 0].numpy()
        )
        mean, deviation = regressor.predict(episode.query.x[task].numpy(), return_std=True)
        deviation = np.sqrt(deviation**2 + 0.02**2)
        np.testing.assert_allclose(found.mean[task, :, 0], mean, atol=1e-8)
        np.testing.assert_allclose(found.deviation[task, :, 0], deviation, atol=1e-8)
        y = episode.query.y[task, :, 0].numpy()
        density = -0.5 * ((y - mean) / deviation) ** 2 - np.log(deviation * math.sqrt(2 * math.pi))
        np.testing.assert_allclose(found.log_density[task], density, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", ["rbf", "matern"])
def test_twice_the_nodes_change_no_density_by_a_thousandth(kernel: str, monkeypatch) -> None:
    world = GaussianProcess(kernel=kernel)
    episode, _ = drawn(world, tasks=40)
    found = world.exact(precise(episode))
    monkeypatch.setattr(predictive, "LENGTH_NODES", 96)
    monkeypatch.setattr(predictive, "SCALE_NODES", 48)
    finer = world.exact(precise(episode))
    assert float((found.log_density - finer.log_density).abs().max()) < 1e-3


def test_what_periods_are_likely_is_found() -> None:
    """The settings that were sampled hold the truth's weight, and agree with a fine grid where that is affordable."""
    world = GaussianProcess(kernel="periodic")
    episode, known = drawn(world, EpisodeDesign(1, 30, 20), tasks=4)
    components = predictive.periodic(episode, noise=0.02)
    truth = world._components(episode, known)
    best = truth.log_weight.max(1).values
    # Occam's factor: a setting's own likelihood is above the mean over the prior, but the best one is found.
    evidence = components.log_weight.logsumexp(1)
    assert ((evidence < best) & (evidence > best - 25)).all()
    few, _ = drawn(world, EpisodeDesign(1, 2, 20), tasks=1)
    sampled = world.exact(few)
    grid = torch.rand(60_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    period, length, scale = 0.1 + 0.4 * grid[:, 0], 0.1 + 0.5 * grid[:, 1], 0.1 + 0.9 * grid[:, 2]
    x, y = few.support.x[0, :, 0].double(), few.support.y[0, :, 0].double()
    at, value = few.query.x[0, 0, 0].double(), few.query.y[0, 0, 0].double()

    def k(distance):
        return scale**2 * torch.exp(-2 * torch.sin(math.pi * distance / period) ** 2 / length**2)

    a, b, c, prior = k(x[0] - x[1]), k(x[0] - at), k(x[1] - at), scale**2 + 0.02**2
    size = prior**2 - a**2
    fit = (prior * (y[0] ** 2 + y[1] ** 2) - 2 * a * y[0] * y[1]) / size
    weight = (-0.5 * fit - 0.5 * size.log()).softmax(0)
    mean = (b * (prior * y[0] - a * y[1]) + c * (prior * y[1] - a * y[0])) / size
    variance = prior - (prior * (b**2 + c**2) - 2 * a * b * c) / size
    density = (-0.5 * (value - mean) ** 2 / variance).exp() / (2 * math.pi * variance).sqrt()
    expected = float((weight * density).sum().log())
    assert float(sampled.log_density[0, 0]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("kernel", ["rbf", "matern"])
def test_intervals_hold_what_they_say_and_nobody_knows_better(kernel: str) -> None:
    world = GaussianProcess(kernel=kernel)
    episode, known = drawn(world, EpisodeDesign(1, (3, 46), 10), tasks=150, seed=2)
    exact, oracle = world.exact(episode), world.oracle(episode, known)
    assert covered(exact, episode) == pytest.approx(0.95, abs=0.02)
    assert covered(oracle, episode) == pytest.approx(0.95, abs=0.02)
    gain = log_likelihood(oracle, episode) - log_likelihood(exact, episode)
    assert float(gain.mean()) > 0
    # Someone who believes in another covariance does worse.
    other = GaussianProcess(kernel="matern" if kernel == "rbf" else "rbf")
    lost = log_likelihood(exact, episode) - log_likelihood(other.exact(episode), episode)
    assert float(lost.mean()) > 3 * float(lost.std()) / math.sqrt(150)


def test_who_knows_all_covariances_beats_who_believes_in_one() -> None:
    world = GaussianProcess(kernel="mixture")
    episode, known = drawn(world, EpisodeDesign(1, 25, 10), tasks=9)
    assert set(known.kernel.tolist()) == {0, 1, 2}
    best = log_likelihood(world.exact(episode), episode).mean()
    for kernel in KERNELS:
        alone = GaussianProcess(kernel=kernel)
        assert float(log_likelihood(alone.exact(episode), episode).mean()) < float(best)


def test_examples_are_counted_as_in_the_protocol() -> None:
    source = build_source("gaussian_process,kernel=mixture,most_examples=49")
    episode = Episodes(source, "train", PROTOCOL, tasks=3000)[0]
    support, query = episode.support.mask.sum(1), episode.query.mask.sum(1)
    assert (int(support.min()), int(support.max())) == (3, 46)
    assert int(query.min()) == 3
    assert int((support + query).max()) == 49
    few = support == 3
    assert float(query[few].double().mean()) == pytest.approx((3 + 46) / 2, abs=6)
    assert (float(episode.support.x.min()), float(episode.support.x.max())) == pytest.approx(
        (-2, 2), abs=0.01
    )


def test_the_prior_answers_without_support() -> None:
    world = GaussianProcess(kernel="mixture")
    episode, _ = drawn(world, EpisodeDesign(1, 3, 4), tasks=2)
    found = world.exact(episode._replace(support=without_support(episode.support)))
    assert float(found.mean.abs().max()) < 1e-6
    expected = math.sqrt((1 - 0.1**3) / 2.7 + 0.02**2)
    assert found.deviation.flatten().tolist() == pytest.approx([expected] * 8, abs=0.01)


def test_hidden_examples_say_nothing() -> None:
    world = GaussianProcess(kernel="mixture")
    episode, _ = drawn(world, EpisodeDesign(1, (3, 6), 4), tasks=3)
    support = episode.support
    cut = support._replace(x=support.x.clone(), y=support.y.clone())
    cut.x[~support.mask], cut.y[~support.mask] = 1.5, 99.0
    for one, other in zip(
        world.exact(episode), world.exact(episode._replace(support=cut)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_bad_options_are_explained() -> None:
    with pytest.raises(ValueError, match=r"at least 0\.001; found 0"):
        GaussianProcess(noise=0.0)
    with pytest.raises(DataError, match="leave room for 3 queries"):
        Episodes(GaussianProcess(most_examples=47), "train", PROTOCOL)[0]


@pytest.mark.parametrize("width", [0.5, 0.05, 0.005])
def test_a_narrow_ridge_is_found(width: float) -> None:
    """One axis has a narrow peak; the volume and the mean are known."""
    centre, widths = torch.tensor([0.3, -0.2, 0.6]), torch.tensor([width, 0.4, 0.3])

    def peak(z):
        return -0.5 * ((z - centre) / widths).square().sum(1)

    point, weight = adaptive_sample(peak, [-3.0] * 3, [3.0] * 3)
    volume = float(weight.exp().sum() / (widths * math.sqrt(2 * math.pi)).prod())
    assert volume == pytest.approx(1, abs=0.05)
    mean = (weight.softmax(0)[:, None] * point).sum(0)
    assert ((mean - centre).abs() < 0.1 * widths).all()


def in_turn(world: GaussianProcess, episode: Episode) -> torch.Tensor:
    """The joint log density by the chain rule, (task,): each query answered by who has seen those before it."""
    total = 0
    for count in range(episode.query.y.shape[1]):
        seen, one = (
            Examples(*(each[:, which] for each in episode.query))
            for which in (slice(count), slice(count, count + 1))
        )
        support = concatenate(episode.support, seen)
        told = world.exact(Episode(support, one, episode.context))
        total = total + torch.where(one.mask, told.log_density, 0)[:, 0]
    return total / episode.query.mask.sum(1)


@pytest.mark.parametrize(
    ("kernel", "tolerance"), [("rbf", 1e-6), ("matern", 1e-6), ("periodic", 0.01)]
)
def test_all_queries_together_are_one_after_the_other(
    kernel: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of periodic functions with more points than usual, for their answers are sampled."""
    more = partial(adaptive_sample, rounds=(16384, 8192, 8192, 8192, 32768))
    monkeypatch.setattr(predictive, "adaptive_sample", more)
    world = GaussianProcess(kernel=kernel)
    episode = precise(drawn(world, EpisodeDesign(1, (2, 5), 4), tasks=2)[0])
    episode.query.mask[1, 3] = False
    torch.testing.assert_close(
        world.exact_joint(episode), in_turn(world, episode), rtol=0, atol=tolerance
    )


def test_together_more_is_known_than_one_by_one() -> None:
    world = GaussianProcess(kernel="rbf")
    episode, _ = drawn(world, EpisodeDesign(1, 3, 12), tasks=20)
    gained = world.exact_joint(episode) - log_likelihood(world.exact(episode), episode)
    assert float(gained.mean()) > 0.5


def test_intervals_of_a_mixture_hold_their_share() -> None:
    world = GaussianProcess(kernel="rbf")
    episode, _ = drawn(world, EpisodeDesign(1, 2, 8), tasks=30)
    for level in (0.5, 0.95):
        low, high = world.exact_interval(episode, level)
        inside = ((low <= episode.query.y) & (episode.query.y <= high)).double().mean((1, 2))
        assert abs(float(inside.mean()) - level) < 3 * float(inside.std()) / math.sqrt(30)


def test_quantiles_of_a_mixture_are_those_of_its_draws() -> None:
    log_weight = torch.tensor([[0.3, 0.7]], dtype=torch.float64).log()
    mean = torch.tensor([[[-1.0], [2.0]]], dtype=torch.float64)
    variance = torch.tensor([[[0.25], [4.0]]], dtype=torch.float64)
    generator = np.random.default_rng(0)
    which = generator.random(400_000) < 0.7
    values = np.where(which, 2.0, -1.0) + np.where(which, 2.0, 0.5) * generator.normal(size=400_000)
    for level in (0.5, 0.95):
        ends = [float(end) for end in mixture_interval(log_weight, mean, variance, level)]
        wanted = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        np.testing.assert_allclose(ends, wanted, atol=0.03)
