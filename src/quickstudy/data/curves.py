"""Families of curves, and what one says of a task who adds up what every curve of every family would say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.data.adaptive_sampling import adaptive_sample
from quickstudy.data.exact import Exact
from quickstudy.data.predictive import quadrature
from quickstudy.episode import Episode

ROUNDS = ((512, 256, 256, 512), (2048, 1024, 1024, 2048))
"""Points that are tried of a family with one unknown beside its factor, and with two."""
NODES = 32
"""Factors of each point, between ``REACH`` standard deviations below and above the likeliest one."""
REACH = 7.0
NEGLIGIBLE = 16.0
"""Nats below the most likely point at which one is left out."""

_ROOT = 0.5 * math.log(2 * math.pi)


class Family(NamedTuple):
    """Curves ``y = θ g(x; z) + h(x; z)``, whose factor θ and unknowns z are evenly distributed in a box."""

    name: str
    factor: tuple[float, float]
    """The range of θ."""
    low: tuple[float, ...]
    """Corner of the box of z."""
    high: tuple[float, ...]
    shape: Callable[[Tensor, list[Tensor]], tuple[Tensor, Tensor]]
    """g and h of x, each of z's unknowns by itself; all shapes go together."""


def _sinusoid(x: Tensor, z: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.sin(x - z[0]), torch.zeros_like(x)


def _line(x: Tensor, z: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.ones_like(x), z[0] * x


def _quadratic(x: Tensor, z: list[Tensor]) -> tuple[Tensor, Tensor]:
    centre, size = z
    # Even in ±[0.02, 0.15], as the unknown is in [-1, 1].
    curvature = size.sign() * (0.02 + 0.13 * size.abs())
    return torch.ones_like(x), curvature * (x - centre).square()


def _absolute(x: Tensor, z: list[Tensor]) -> tuple[Tensor, Tensor]:
    centre, slope = z
    return torch.ones_like(x), slope * (x - centre).abs()


def _tanh(x: Tensor, z: list[Tensor]) -> tuple[Tensor, Tensor]:
    centre, slope = z
    return torch.ones_like(x), slope * torch.tanh(x - centre)


SINUSOID = Family("sinusoid", (0.1, 5.0), (0.0,), (math.pi,), _sinusoid)
"""``A sin(x - φ)``, A ~ U[0.1, 5], φ ~ U[0, π]: Finn et al. 2017, section 5.1."""

FAMILIES = {
    family.name: family
    for family in (
        SINUSOID,
        Family("line", (-3.0, 3.0), (-3.0,), (3.0,), _line),
        Family("quadratic", (-3.0, 3.0), (-3.0, -1.0), (3.0, 1.0), _quadratic),
        Family("absolute", (-3.0, 3.0), (-3.0, -3.0), (3.0, 3.0), _absolute),
        Family("tanh", (-3.0, 3.0), (-3.0, -3.0), (3.0, 3.0), _tanh),
    )
}
"""``A sin(x - φ)``, ``a x + b``, ``±a (x - c)² + b``, ``a |x - c| + b`` and ``a tanh(x - c) + b``."""


def curve_posterior(
    episode: Episode, families: Sequence[Family], *, noise: float, dense: bool = True
) -> Exact:
    """The Bayes-optimal answer to ``y = f(x) + ε``, f a curve of one of the families, each as likely, ε ~ N(0, noise²).

    Of each z, y is linear in θ, so θ has a normal posterior between its bounds, whose evidence is in closed form;
    values of z are those of :func:`adaptive_sample`. The density of a query's value is the evidence of the support and
    the query over that of the support.

    Args:
        episode: of one number to an example and one value.
        families: where curves come from.
        noise: standard deviation of ε.
        dense: whether there is a density.
    """
    parts = [_one(episode, task, families, noise) for task in range(episode.tasks)]
    mean, deviation, log_density = (torch.stack(each) for each in zip(*parts, strict=True))
    y = episode.query.y
    known = log_density.to(y.dtype) if dense else None
    return Exact(mean[..., None].to(y.dtype), deviation[..., None].to(y.dtype), known)


def _one(
    episode: Episode, task: int, families: Sequence[Family], noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and log density of one task, each (query,)."""
    kept = episode.support.mask[task]
    x, y = (each[task, kept, 0].double() for each in (episode.support.x, episode.support.y))
    asked, told = (each[task, :, 0].double() for each in (episode.query.x, episode.query.y))
    found = [_said(family, x, y, asked, told, noise) for family in families]
    weight, first, second, gained = (torch.cat(each) for each in zip(*found, strict=True))
    weight = weight.log_softmax(0)
    likely = weight > weight.max() - NEGLIGIBLE
    share = weight[likely].exp()
    mean = share @ first[likely] / share.sum()
    variance = share @ second[likely] / share.sum() - mean.square()
    log_density = torch.logsumexp(weight[:, None] + gained, 0) - math.log(noise) - _ROOT
    return mean, (variance.clamp(min=0) + noise**2).sqrt(), log_density


def _said(
    family: Family, x: Tensor, y: Tensor, asked: Tensor, told: Tensor, noise: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What each likely z of a family says.

    Returns:
        Log weight (point,), mean of the queries' values and of their squares without noise, and log density of the
        queries' values but for a constant, each (point, query).
    """

    def sums(z: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        g, h, _ = torch.broadcast_tensors(*family.shape(x, z), z[0])
        rest = y - h
        products = (g.square(), g * rest, rest.square())
        square, cross, misfit = (each.sum(-1) / noise**2 for each in products)
        return square, cross, misfit

    def log_joint(point: Tensor) -> Tensor:
        square, cross, misfit = sums(list(point.T[..., None]))
        volume = math.prod(b - a for a, b in zip(family.low, family.high, strict=True))
        return log_evidence(square, cross, *family.factor) - 0.5 * misfit - math.log(volume)

    rounds = ROUNDS[len(family.low) - 1]
    point, weight = adaptive_sample(log_joint, family.low, family.high, rounds=rounds)
    likely = weight > weight.max() - NEGLIGIBLE
    point, weight = point[likely], weight[likely]
    z = list(point.T[..., None])
    square, cross, _ = sums(z)
    g, h = (each.expand(len(point), -1) for each in family.shape(asked, z))
    rest = (told - h) / noise
    more = log_evidence(
        square[:, None] + (g / noise).square(), cross[:, None] + g / noise * rest, *family.factor
    )
    gained = more - log_evidence(square, cross, *family.factor)[:, None] - 0.5 * rest.square()
    share, factor = _factors(square, cross, *family.factor)
    once, twice = ((share * factor**power).sum(1)[:, None] for power in (1, 2))
    first = once * g + h
    second = twice * g.square() + 2 * once * g * h + h.square()
    return weight, first, second, gained


def log_evidence(square: Tensor, cross: Tensor, low: float, high: float) -> Tensor:
    """``log ∫ exp(-½ a θ² + b θ) dθ / (high - low)`` from ``low`` to ``high``, of any shape.

    It is the likelihood of values given z, but for ``-½ Σ (y - h)² / σ²`` and constants, with ``a = Σ g² / σ²`` and
    ``b = Σ g (y - h) / σ²``.

    >>> zero = torch.zeros(1, dtype=torch.float64)
    >>> round(log_evidence(zero, zero, 0.1, 5.0).item(), 6)
    0.0
    """
    # Far from nought and from one another, so that their difference is not lost: at worst one in a million.
    square = square.clamp(min=1e-9)
    deviation = square.rsqrt()
    centre = cross / square
    below, above = (low - centre) / deviation, (high - centre) / deviation
    flipped = below > 0
    below, above = torch.where(flipped, -above, below), torch.where(flipped, -below, above)
    larger, smaller = (torch.special.log_ndtr(each) for each in (above, below))
    between = larger + torch.log(-torch.expm1(smaller - larger))
    return 0.5 * cross * centre + deviation.log() + _ROOT + between - math.log(high - low)


def _factors(square: Tensor, cross: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Factors of each point and their shares of its posterior, each (point, node)."""
    node, weight = quadrature(0, 1, NODES)
    deviation = square.clamp(min=1e-9).rsqrt()
    centre = (cross / square.clamp(min=1e-9)).clamp(low, high)
    start = (centre - REACH * deviation).clamp(low, high)
    end = (centre + REACH * deviation).clamp(low, high)
    factor = start[:, None] + (end - start)[:, None] * node
    exponent = -0.5 * square[:, None] * factor.square() + cross[:, None] * factor
    return (exponent + weight.log()).softmax(1), factor
