"""Families of curves: they are those of the paper, and the exact answer is that of brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from quickstudy.data.curves import FAMILIES
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.families import Families
from quickstudy.episode import Episode, without_support
from quickstudy.evaluation.rules import ridge_of_support, support_mean

NAMES = ["sinusoid", "line", "quadratic", "absolute", "tanh"]


def drawn(world: Families, shot: int = 5, *, queries: int = 20, tasks: int = 100) -> Episode:
    return Episodes(world, "test", EpisodeDesign(1, shot, queries), tasks=tasks)[0]


def points(name: str, tasks: int = 400) -> tuple[Tensor, Tensor]:
    """x and y of functions of one family without noise, float64 (task, example)."""
    query = drawn(Families(noise=0.0, families=name), 1, queries=200, tasks=tasks).query
    return query.x[..., 0].double(), query.y[..., 0].double()


def is_even(found: Tensor, low: float, high: float) -> bool:
    """Whether numbers are evenly distributed: Kolmogorov and Smirnov, 0.1 %."""
    share = (found.sort().values - low) / (high - low)
    assert float((share - 0.5).abs().max()) < 0.501
    gap = (share - torch.linspace(0, 1, len(found), dtype=share.dtype)).abs().max()
    return float(gap) < 1.95 / math.sqrt(len(found)) + 1 / len(found)


def fitted(columns: list[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of least squares (task, column), and the largest error of each task."""
    rows = torch.stack(columns, -1)
    weights = torch.linalg.lstsq(rows, y[..., None]).solution
    return weights[..., 0], (rows @ weights - y[..., None]).abs().amax((1, 2))


def test_sine_waves_lines_and_parabolas_are_those_of_the_paper() -> None:
    x, y = points("sinusoid")
    weights, error = fitted([x.sin(), x.cos()], y)
    assert float(error.max()) < 1e-4
    assert is_even(weights.norm(dim=1), 0.1, 5)
    assert is_even(torch.atan2(-weights[:, 1], weights[:, 0]), 0, math.pi)

    x, y = points("line")
    weights, error = fitted([x, torch.ones_like(x)], y)
    assert float(error.max()) < 1e-4
    assert is_even(weights[:, 0], -3, 3)
    assert is_even(weights[:, 1], -3, 3)

    x, y = points("quadratic")
    weights, error = fitted([x * x, x, torch.ones_like(x)], y)
    assert float(error.max()) < 1e-4
    curvature, centre = weights[:, 0], -weights[:, 1] / (2 * weights[:, 0])
    assert is_even(curvature.abs(), 0.02, 0.15)
    assert 0.4 < float((curvature > 0).double().mean()) < 0.6
    assert is_even(centre, -3, 3)
    assert is_even(weights[:, 2] - curvature * centre**2, -3, 3)


def test_absolute_values_and_hyperbolic_tangents_are_those_of_the_paper() -> None:
    x, y = points("absolute")
    sides = []
    for side in (x < -3.1, x > 3.1):
        weight = side.double()
        weights, _ = fitted([x * weight, weight], y * weight)
        sides.append(weights)
    slope = sides[1][:, 0]
    torch.testing.assert_close(sides[0][:, 0], -slope, rtol=1e-3, atol=1e-3)
    centre = (sides[0][:, 1] - sides[1][:, 1]) / (2 * slope)
    steep = slope.abs() > 0.1  # a flat one does not show where it bends
    assert is_even(slope, -3, 3)
    assert is_even(centre[steep], -3, 3)
    assert is_even((sides[0][:, 1] + sides[1][:, 1])[steep] / 2, -3, 3)

    x, y = points("tanh", tasks=40)
    grid = torch.linspace(-3, 3, 241, dtype=torch.float64)
    tried = [fitted([torch.tanh(x - c), torch.ones_like(x)], y) for c in grid]
    error, best = torch.stack([each for _, each in tried]).min(0)
    assert float(error.max()) < 0.05
    weights = torch.stack([each for each, _ in tried])[best, torch.arange(40)]
    assert is_even(weights[:, 0], -3, 3)
    assert is_even(weights[:, 1][weights[:, 0].abs() > 0.1], -3, 3)


def test_each_family_is_drawn_as_often_and_values_have_noise() -> None:
    world = Families(noise=0.5)
    design = EpisodeDesign(1, 5, 15)
    generator = torch.Generator().manual_seed(0)
    episode, family = world.draw_known(design, tasks=4000, generator=generator)
    assert [each.name for each in world.families] == NAMES
    assert family.bincount().tolist() == pytest.approx([800] * 5, abs=100)
    lines = family == NAMES.index("line")
    x, y = (each[lines, :, 0].double() for each in (episode.query.x, episode.query.y))
    weights, _ = fitted([x, torch.ones_like(x)], y)
    rest = y - weights[:, :1] * x - weights[:, 1:]
    assert float(rest.square().sum(1).mean() / 13) == pytest.approx(0.25, rel=0.1)


def brute_force(
    names: list[str], x: Tensor, y: Tensor, asked: Tensor, told: Tensor, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and log density of queries, adding up curves on a grid as the paper writes them."""

    def axis(low: float, high: float, place: int, cells: int = 60) -> Tensor:
        middle = low + (high - low) * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        return middle.reshape([-1 if at == place else 1 for at in range(3)])

    first, second, third = (axis(-3, 3, place) for place in range(3))
    size = axis(0.02, 0.15, 0)
    amplitude, phase = axis(0.1, 5, 0, 300), axis(0, math.pi, 1, 300)
    slope, offset = axis(-3, 3, 0, 300), axis(-3, 3, 1, 300)
    curves = {
        "sinusoid": [lambda u: amplitude * torch.sin(u - phase)],
        "line": [lambda u: slope * u + offset],
        "quadratic": [lambda u, s=s: s * size * (u - second) ** 2 + third for s in (-1, 1)],
        "absolute": [lambda u: first * (u - second).abs() + third],
        "tanh": [lambda u: first * torch.tanh(u - second) + third],
    }
    shares, said = [], []
    for name in names:
        for curve in curves[name]:
            fit = sum((b - curve(a)).square() for a, b in zip(x, y, strict=True))
            evidence = (-0.5 * fit / noise**2).flatten()
            whole = torch.full((), math.log(len(evidence) * len(curves[name])))
            shares.append(evidence - whole)
            said.append(torch.stack([curve(a).expand_as(fit).flatten() for a in asked]))
    weight, values = torch.cat(shares).softmax(0), torch.cat(said, 1)
    mean = values @ weight
    variance = values.square() @ weight - mean.square() + noise**2
    near = torch.exp(-0.5 * ((told[:, None] - values) / noise).square()) @ weight
    return mean, variance.sqrt(), near.log() - math.log(noise * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("names", [[name] for name in NAMES] + [NAMES])
@pytest.mark.parametrize("shot", [1, 4])
def test_the_exact_answer_is_that_of_a_fine_grid(names: list[str], shot: int) -> None:
    world = Families(noise=1.0, families="+".join(names))
    episode = drawn(world, shot, queries=4, tasks=2)
    found = world.exact(episode)
    assert found.log_density is not None
    for task in range(2):
        numbers = [
            each[task, :, 0].double()
            for part in (episode.support, episode.query)
            for each in (part.x, part.y)
        ]
        mean, deviation, log_density = brute_force(names, *numbers, noise=1.0)
        for mine, theirs, atol in (
            (found.mean[task, :, 0], mean, 0.02),
            (found.deviation[task, :, 0], deviation, 0.02),
            (found.log_density[task], log_density, 0.01),
        ):
            torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=atol)


def test_nobody_beats_the_exact_answer_and_its_intervals_hold() -> None:
    world = Families()
    episode = drawn(world, tasks=40)
    found = world.exact(episode)

    def error(answers: Tensor) -> float:
        return float((answers - episode.query.y).square().mean())

    best = error(found.mean)
    assert best < 0.5 * min(error(support_mean(episode)), error(ridge_of_support(episode)))
    assert best < min(error(0.9 * found.mean), error(1.1 * found.mean))
    inside = (found.mean - episode.query.y).abs() < 1.959964 * found.deviation
    assert float(inside.double().mean()) == pytest.approx(0.95, abs=0.02)


def test_without_noise_enough_points_say_everything_and_there_is_no_density() -> None:
    world = Families(noise=0.0)
    episode = drawn(world, 12, tasks=10)
    found = world.exact(episode)
    assert found.log_density is None
    assert float((found.mean - episode.query.y).abs().median()) < 1e-3
    assert float((found.mean - episode.query.y).square().mean()) < 0.02


def test_without_support_the_prior_answers() -> None:
    episode = drawn(Families(), tasks=2)
    unknown = episode._replace(support=without_support(episode.support))
    expected = -5.1 / math.pi * episode.query.x.cos() / 5
    found = Families().exact(unknown)
    torch.testing.assert_close(found.mean, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("families", ["", "cubic", "line+line", "line+"])
def test_families_that_do_not_exist_are_refused(families: str) -> None:
    with pytest.raises(ValueError, match="sinusoid, line, quadratic, absolute, tanh"):
        Families(families=families)
    assert set(FAMILIES) == set(NAMES)
