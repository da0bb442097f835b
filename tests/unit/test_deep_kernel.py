"""Deep kernels: covariances and fits against other ways to the same numbers, and worlds with exact answers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from test_neural_process import task
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.func import jacrev

from quickstudy.data.covariance import KERNELS, correlation
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.gaussian_process import GaussianProcess
from quickstudy.episode import Context, Episode, Examples, collate, tree_map, without_support
from quickstudy.learners.covariances import NOISE, RATE, SCALE, SETTINGS, Pairs, covariance, slopes
from quickstudy.learners.deep_kernel import TRUST, WIDER, DeepKernel
from quickstudy.learners.laplace import Fit, Known, Prior, explained, fitted, foretold
from quickstudy.nn.encoders import RawEncoder, VectorEncoder

close = torch.testing.assert_close

COVARIANCES = 3
ROUGH = torch.tensor([[False, True, False]])


@pytest.fixture
def settings() -> Tensor:
    """Of one task, some that fade, are rough, and turn, with little noise."""
    return torch.tensor(
        [[[2.0, 0.3, 1.5, 0.8, 0.1], [1.2, 0.2, 0.7, 0.9, 0.2], [0.3, 1.7, 0.6, 0.7, 0.15]]],
        dtype=torch.float64,
    ).log()


def pairs_of(x: Tensor, z: Tensor) -> Pairs:
    """Of places on a line, (example,) and (other,)."""
    along = (x[:, None] - z)[None, None]
    return Pairs(along.square(), along, torch.ones_like(along, dtype=torch.bool))


@pytest.fixture
def known() -> Known:
    """Six examples of two values each."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64) ** 3
    y = torch.stack([(3 * x).sin(), (2 * x).cos() - 0.5], 1)[None]
    mask = torch.ones(1, 6, dtype=torch.bool)
    return Known(pairs_of(x, x), y, mask, torch.full((1,), 2.0, dtype=torch.float64))


@pytest.fixture
def prior(settings: Tensor) -> Prior:
    spread = torch.linspace(-1.5, -0.3, 15, dtype=torch.float64).view(1, 3, 5)
    share = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    return Prior(settings, spread, share, ROUGH)


# Covariances


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_covariances_of_random_functions_are_among_them(kernel: str) -> None:
    x, z = (torch.randn(count, dtype=torch.float64) for count in (4, 5))
    length, scale, period = (torch.tensor(value, dtype=torch.float64) for value in (0.4, 0.7, 0.3))
    turns = kernel == "periodic"
    shape = [1e-9, 1 / length, 1 / period] if turns else [1 / length, 1e-9, 1.0]
    settings = torch.tensor([[[*shape, scale, 0.1]]], dtype=torch.float64).log()
    found = covariance(settings, torch.tensor([[kernel == "matern"]]), pairs_of(x, z))
    expected = scale.square() * correlation(kernel, (x[:, None] - z).abs(), length, period)
    close(found[0, 0], expected)


def test_slopes_are_derivatives(settings: Tensor) -> None:
    x, z = (torch.randn(count, dtype=torch.float64) for count in (4, 5))
    pairs = pairs_of(x, z)

    def one(settings: Tensor, rough: Tensor) -> Tensor:
        return covariance(settings[None, None], rough[None, None], pairs)[0, 0]

    for number in range(COVARIANCES):
        exact = jacrev(one)(settings[0, number], ROUGH[0, number])
        found = slopes(settings, ROUGH, pairs)[0, number]
        close(found, exact.movedim(-1, 0)[: len(found)])


def test_slopes_are_zero_and_not_nan_where_two_places_are_one(settings: Tensor) -> None:
    settings.requires_grad_()
    place = torch.zeros(1, dtype=torch.float64)
    found = slopes(settings, ROUGH, pairs_of(place, place))
    assert bool((found == 0).all())
    (gradient,) = torch.autograd.grad(found.sum(), settings)
    assert bool(gradient.isfinite().all())


# Fits


def test_the_evidence_is_the_density_of_a_normal(settings: Tensor, known: Known) -> None:
    found = explained(settings, ROUGH, known).log_evidence
    gram = covariance(settings, ROUGH, known.pairs)[0]
    gram = gram + torch.diag_embed(settings[0, :, NOISE, None].exp().square().expand(-1, 6))
    density = MultivariateNormal(torch.zeros(6, dtype=torch.float64), gram)
    close(found[0], sum(density.log_prob(value) for value in known.y[0].T))


def joint(settings: Tensor, prior: Prior, known: Known) -> Tensor:
    """log p(y | θ) + log p(θ) without its constant, of settings (1, covariance, 5)."""
    off = (settings - prior.center) / prior.log_spread.exp()
    return explained(settings, prior.rough, known).log_evidence - 0.5 * off.square().sum(2)


def test_a_fit_ends_where_nothing_rises_further(prior: Prior, known: Known) -> None:
    fit = fitted(prior, known, prior.center, steps=200)
    settings = fit.settings.requires_grad_()
    (slope,) = torch.autograd.grad(joint(settings, prior, known).sum(), settings)
    # Where it is smaller, what a step gains is lost in rounding.
    assert slope.abs().max().item() < 1e-5
    assert bool((joint(settings, prior, known) > joint(prior.center, prior, known)).all())


def test_doubt_is_the_inverse_of_fisher_information_and_prior(prior: Prior, known: Known) -> None:
    fit = fitted(prior, known, prior.center, steps=2)

    def gram(settings: Tensor, number: int) -> Tensor:
        rough = prior.rough[:, number : number + 1]
        noise = settings[NOISE].exp().square() * torch.eye(6, dtype=torch.float64)
        return covariance(settings[None, None], rough, known.pairs)[0, 0] + noise

    for number in range(COVARIANCES):
        settings = fit.settings[0, number]
        change = torch.linalg.solve(
            gram(settings, number), jacrev(gram)(settings, number).movedim(-1, 0)
        )
        # Of two values, which tell twice as much.
        fisher = 2 * 0.5 * torch.einsum("imn,jnm->ij", change, change)
        precision = fisher + prior.log_spread[0, number].mul(-2).exp().diag()
        close(fit.doubt[0, number], precision.inverse())
        size = prior.log_spread[0, number].sum() + 0.5 * precision.logdet()
        reached = joint(fit.settings, prior, known)[0, number]
        close(fit.log_weight[0, number], prior.log_share[0, number] + reached - size)


def test_a_gradient_past_the_fit_is_that_of_its_prior(prior: Prior, known: Known) -> None:
    center, log_spread = (each.clone().requires_grad_() for each in prior[:2])
    expected = Prior(center, log_spread, *prior[2:])
    fit = fitted(expected, known, prior.center + 0.1, steps=3, through=False)
    slopes = torch.autograd.grad(fit.log_weight.sum(), (center, log_spread))
    off = (fit.settings - prior.center).detach() / prior.log_spread.exp()
    close(slopes[0], off / prior.log_spread.exp())
    left = fit.doubt.diagonal(dim1=2, dim2=3).detach() / prior.log_spread.exp().square()
    close(slopes[1], off.square() + left - 1)


def test_with_settings_known_the_answer_is_that_of_the_world() -> None:
    world = GaussianProcess(kernel="mixture")
    episode, drawn = world.draw_known(
        EpisodeDesign(1, 9, 4), tasks=12, generator=torch.Generator().manual_seed(0)
    )
    episode = tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, episode)
    exact = world.oracle(episode, drawn)
    turns = drawn.kernel == KERNELS.index("periodic")
    least = torch.full_like(drawn.length, 1e-9)
    trend, circle = (torch.where(which, 1 / drawn.length, least) for which in (~turns, turns))
    noise = torch.full_like(least, world.noise)
    settings = torch.stack([trend, circle, 1 / drawn.period, drawn.scale, noise], 1).log()[:, None]
    rough = (drawn.kernel == KERNELS.index("matern"))[:, None]

    def pairs(others: Tensor) -> Pairs:
        along = (episode.support.x - others.mT)[:, None]
        return Pairs(along.square(), along, torch.ones_like(along, dtype=torch.bool))

    known = Known(pairs(episode.support.x), episode.support.y, episode.support.mask, least + 1)
    sure = Fit(settings, torch.zeros(12, 1, 5, 5, dtype=torch.float64), least[:, None])
    mean, variance = foretold(sure, rough, known, pairs(episode.query.x))
    close(mean[:, 0], exact.mean, rtol=1e-6, atol=1e-6)
    close(variance[:, 0].sqrt(), exact.deviation, rtol=1e-5, atol=1e-6)


def test_what_is_not_known_of_the_settings_widens_an_answer(prior: Prior, known: Known) -> None:
    towards = pairs_of(
        torch.linspace(-1, 1, 6, dtype=torch.float64) ** 3,
        torch.tensor([0.3, 2.0], dtype=torch.float64),
    )
    doubt = torch.randn(1, COVARIANCES, 5, 8, dtype=torch.float64)
    doubt = doubt @ doubt.mT / 8
    weight = torch.zeros(1, COVARIANCES, dtype=torch.float64)

    def mean_of(settings: Tensor) -> Tensor:
        fit = Fit(settings[None], torch.zeros_like(doubt), weight)
        return foretold(fit, ROUGH, known, towards)[0][0]

    jacobian = jacrev(mean_of)(prior.center[0])
    own = torch.stack([jacobian[number, ..., number, :] for number in range(COVARIANCES)])
    _, plain = foretold(Fit(prior.center, torch.zeros_like(doubt), weight), ROUGH, known, towards)
    _, wide = foretold(Fit(prior.center, doubt, weight), ROUGH, known, towards)
    close((wide - plain)[0], torch.einsum("cqvi,cij,cqvj->cqv", own, doubt[0], own))


# The learner


def functions(kernel: str, *, tasks: int, shot: int = 12) -> tuple[GaussianProcess, Episode]:
    world = GaussianProcess(kernel=kernel)  # type: ignore[arg-type]
    drawn = Episodes(world, "test", EpisodeDesign(1, shot, 10), length=tasks, seed=3)
    return world, tree_map(lambda *parts: torch.cat(parts), *(drawn[i] for i in range(tasks)))


def told(learner: DeepKernel) -> DeepKernel:
    """A learner that expects what the functions of the world are drawn with."""
    bank = learner.covariances
    expected = {"length": (3.3, 0.5), "scale": (0.5, 0.6), "noise": (0.02, 0.01)}
    with torch.no_grad():
        for row, column, name in (
            (slice(2), 0, "length"),
            (slice(2, None), 1, "length"),
            (slice(None), -2, "scale"),
            (slice(None), -1, "noise"),
        ):
            middle, spread = expected[name]
            bank.center[row, column] = math.log(middle)
            bank.log_spread[row, column] = math.log(spread)
    return learner


def log_likelihood(learner: DeepKernel, episode: Episode) -> Tensor:
    with torch.no_grad():
        state = learner.adapt(episode.support, episode.context)
        outputs = learner.predict(state, episode.query.x, episode.context)
    return -learner.likelihood.task_nll(outputs, episode.query, episode.context)


@pytest.mark.parametrize("kernel", ["rbf", "matern"])
def test_who_expects_what_is_drawn_answers_nearly_as_well_as_possible(kernel: str) -> None:
    world, episode = functions(kernel, tasks=60)
    learner = told(DeepKernel(RawEncoder(1), values=1, steps=5))
    best = world.exact(episode).log_density.mean(1)
    missed = best - log_likelihood(learner, episode)
    assert missed.mean().item() < 0.1


def test_the_period_of_a_function_is_found() -> None:
    _, episode = functions("periodic", tasks=8, shot=30)
    options = {"rates": 200, "slowest": 2.0, "fastest": 10.0, "steps": 5}
    learner = told(DeepKernel(RawEncoder(1), values=1, **options))  # type: ignore[arg-type]
    blind = told(DeepKernel(RawEncoder(1), values=1, steps=5))
    gained = log_likelihood(learner, episode) - log_likelihood(blind, episode)
    assert gained.median().item() > 1


def test_all_covariances_or_those_that_count_give_nearly_the_same() -> None:
    _, episode = functions("periodic", tasks=4, shot=30)
    options = {"rates": 100, "slowest": 2.0, "fastest": 10.0}
    every = told(DeepKernel(RawEncoder(1), values=1, kept=400, **options))  # type: ignore[arg-type]
    some = told(DeepKernel(RawEncoder(1), values=1, kept=30, **options))  # type: ignore[arg-type]
    states = [
        learner.adapt(episode.support, episode.context).covariances for learner in (every, some)
    ]
    assert [state.shape[1] for state in states] == [102, 30]
    differ = (log_likelihood(some, episode) - log_likelihood(every, episode)).abs()
    # A rate far from all that are tried may be found by luck alone.
    assert differ.median().item() < 0.01


def test_how_far_answers_are_trusted_is_chosen_on_validation_tasks() -> None:
    _, episode = functions("periodic", tasks=20, shot=6)
    options = {"rates": 60, "slowest": 2.0, "fastest": 10.0, "kept": 8}
    learner = told(DeepKernel(RawEncoder(1), values=1, **options))  # type: ignore[arg-type]
    found = {}
    for choice in itertools.product(TRUST, WIDER):
        learner.trust.fill_(choice[0])
        learner.width.fill_(choice[1])
        found[choice] = log_likelihood(learner, episode).mean().item()
    with torch.no_grad():
        assert learner.settle([episode])
    best = max(found, key=lambda choice: found[choice])
    assert best[0] < 1
    assert (learner.trust.item(), learner.width.item()) == pytest.approx(best)


def test_two_examples_of_one_place_without_noise() -> None:
    learner = DeepKernel(RawEncoder(1), values=1)
    with torch.no_grad():
        learner.covariances.center[:, -1] = -40
    x = torch.tensor([[[0.5], [0.5], [1.0]]])
    support = Examples(x, torch.tensor([[[1.0], [1.0], [0.0]]]), torch.ones(1, 3, dtype=torch.bool))
    one = torch.ones(1, 1, dtype=torch.bool)
    context = Context(one, torch.zeros(1, 0), torch.zeros(1, 1, 0))
    outputs = learner.predict(learner.adapt(support, context), x, context)
    mean, deviation = learner.likelihood.distribution(outputs)
    close(mean, support.y, rtol=0, atol=1e-2)
    assert bool(deviation.isfinite().all())


def test_without_examples_the_answer_is_the_prior() -> None:
    learner = told(DeepKernel(RawEncoder(2), values=1, rates=5))
    episode = collate([task(3, 4)])
    support = without_support(episode.support)
    state = learner.adapt(support, episode.context)
    mean, deviation = learner.likelihood.distribution(
        learner.predict(state, episode.query.x, episode.context)
    )
    close(mean, torch.zeros_like(mean))
    close(deviation, deviation[:, :1].expand_as(deviation))
    assert deviation[0, 0, 0].item() == pytest.approx(0.5, rel=0.5)


def test_features_of_many_numbers_turn_along_directions() -> None:
    torch.manual_seed(0)
    learner = DeepKernel(VectorEncoder(3, width=4, layers=1), values=1, rates=4).double()
    episode = collate([task(5, 3, inputs=3)])
    learner.meta_loss(episode).backward()
    assert learner.directions is not None
    assert learner.directions.grad is not None
    assert bool((learner.directions.grad[2:].abs().sum(1) > 0).any())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "values must be at least 1"),
        ({"values": 1, "rates": -1}, "rates must be at least 0; found -1"),
        ({"values": 1, "kept": 0}, "kept must be at least 1"),
        ({"values": 1, "slowest": 3.0, "fastest": 2.0}, "found slowest=3.0 and fastest=2.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DeepKernel(RawEncoder(1), **options)  # type: ignore[arg-type]


def test_every_setting_has_its_place() -> None:
    assert [SETTINGS[place] for place in (RATE, SCALE, NOISE)] == ["rate", "scale", "noise"]
