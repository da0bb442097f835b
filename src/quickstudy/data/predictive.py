"""What Gaussian processes say of the queries of a task, for each setting of what is not known of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quickstudy.data.adaptive_sampling import adaptive_sample
from quickstudy.data.covariance import (
    KERNELS,
    LENGTHS,
    PERIODS,
    SCALES,
    Drawing,
    Kernel,
    correlation,
    distances,
)
from quickstudy.episode import Episode

LENGTH_NODES, SCALE_NODES = 48, 24
"""Of the quadrature; twice as many change no log density by as much as a thousandth."""
NEGLIGIBLE = 16.0
"""Nats below the most likely setting at which one is left out."""


class Components(NamedTuple):
    """What each setting says of the queries."""

    log_weight: Tensor
    """(task, component), the log of its share of ``p(support values)``; all in all, of these values' density."""
    mean: Tensor
    """(task, component, query)"""
    variance: Tensor
    """(task, component, query), of values with their noise."""


def told_by(kernel: Kernel, episode: Episode, known: Drawing | None, *, noise: float) -> Components:
    """What functions of one covariance say of the queries.

    Args:
        kernel: their covariance.
        episode: the tasks.
        known: what each task was drawn with, where that is known; tasks of another covariance have no weight then.
        noise: standard deviation of the values about the function.
    """
    if known is not None:
        right = (known.kernel == KERNELS.index(kernel)).double().log()
        settings = Settings(*(each[:, None] for each in (known.length, known.scale, known.period)))
        return posterior(kernel, settings, right[:, None, None], episode, noise=noise)
    if kernel == "periodic":
        return periodic(episode, noise=noise)
    length, length_weight = quadrature(*LENGTHS, LENGTH_NODES)
    scale, scale_weight = quadrature(*SCALES, SCALE_NODES)
    settings = Settings(*(each.expand(episode.tasks, -1) for each in (length, scale, length)))
    log_prior = (length_weight[:, None] * scale_weight).log()
    return posterior(kernel, settings, log_prior, episode, noise=noise)


class Settings(NamedTuple):
    """Hyper-parameters to be tried on each task: every length, with its period, with every scale."""

    length: Tensor
    """(task, length)"""
    scale: Tensor
    """(task, scale)"""
    period: Tensor
    """(task, length), which only a periodic function has."""


def quadrature(low: float, high: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre for the mean over an interval, float64.

    >>> node, weight = quadrature(0, 3, 4)
    >>> round(float((weight * node**2).sum()), 12)
    3.0
    """
    node, weight = np.polynomial.legendre.leggauss(nodes)
    return (
        low + (high - low) * torch.from_numpy(node + 1) / 2,
        torch.from_numpy(weight) / 2,
    )


def posterior(
    kernel: Kernel, settings: Settings, log_prior: Tensor, episode: Episode, *, noise: float
) -> Components:
    """What each setting says of the queries of each task.

    With ``K = U Λ Uᵀ`` the correlations of the support, which all scales share, and ``D = (s² Λ + σ²)⁻¹``,

        μ = s² k U D Uᵀ y,   v = s² + σ² - s⁴ k U D Uᵀ kᵀ,   log p(y) = ½ Σ log D - ½ yᵀ U D Uᵀ y - n/2 log 2π

    Args:
        kernel: covariance of the functions.
        settings: lengths and scales.
        log_prior: of each length and scale, (length, scale) or (task, length, scale).
        episode: the tasks.
        noise: σ.

    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, equations 2.23, 2.24 and 2.30.
    """
    support = episode.support
    kept = support.mask[:, None, :, None]
    length, period = settings.length[..., None, None], settings.period[..., None, None]
    within = correlation(kernel, distances(support.x, support.x)[:, None], length, period)
    values, vectors = torch.linalg.eigh(torch.where(kept & kept.mT, within, 0))
    between = distances(support.x, episode.query.x)[:, None]
    across = correlation(kernel, between, length, period)
    # (task, length, eigenvector, query)
    across = vectors.mT @ torch.where(kept, across, 0)
    y = vectors.mT @ torch.where(support.mask[..., None], support.y.double(), 0)[:, None]
    y = y[..., 0][:, :, None]
    square = settings.scale.square()[:, None, :, None]
    inverse = 1 / (square * values.clamp(min=0)[:, :, None] + noise**2)
    log_evidence = 0.5 * (inverse.log() - y.square() * inverse).sum(-1)
    mean = square * ((y * inverse) @ across)
    told = square.square() * (inverse @ across.square())
    variance = (square + noise**2 - told).clamp(min=noise**2)
    # Where an example is hidden, an eigenvalue is zero, and so is y.
    hidden = (~support.mask).sum(1)[:, None, None] * math.log(noise)
    seen = support.mask.sum(1)[:, None, None] * 0.5 * math.log(2 * math.pi)
    return Components(
        (log_prior + log_evidence + hidden - seen).flatten(1),
        mean.flatten(1, 2),
        variance.flatten(1, 2),
    )


def periodic(episode: Episode, *, noise: float) -> Components:
    """What periodic functions of all periods, lengths and scales say of the queries.

    The more examples, the fewer periods fit them, so the settings are those that :func:`adaptive_sample` finds, along
    1 / period, length and scale.
    """
    parts = []
    for task in range(episode.tasks):
        kept = episode.support.mask[task]
        x, y = (each[task, kept].double() for each in (episode.support.x, episode.support.y))
        parts.append(_periodic(x, y, episode.query.x[task].double(), noise))
    weights, means, variances = map(list, zip(*parts, strict=True))
    return Components(
        pad_sequence(weights, batch_first=True, padding_value=-math.inf),
        pad_sequence(means, batch_first=True),
        pad_sequence(variances, batch_first=True, padding_value=1.0),
    )


def _periodic(x: Tensor, y: Tensor, queries: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log weight (setting,), mean and variance (setting, query) for the settings that are likely."""
    within, across = distances(x[None], x[None]), distances(x[None], queries[None])

    def covariance(settings: Tensor, distance: Tensor) -> Tensor:
        rate, length, scale = settings.T[..., None, None]
        return scale.square() * correlation("periodic", distance, length, 1 / rate)

    def root(settings: Tensor) -> Tensor:
        gram = covariance(settings, within)
        gram.diagonal(dim1=1, dim2=2).add_(noise**2)
        return torch.linalg.cholesky(gram)

    def log_joint(settings: Tensor) -> Tensor:
        lower = root(settings)
        rest = torch.linalg.solve_triangular(lower, y.expand(len(settings), -1, -1), upper=False)
        size = lower.diagonal(dim1=1, dim2=2).log().sum(1)
        fit = -0.5 * rest.square().sum((1, 2)) - size - 0.5 * len(y) * math.log(2 * math.pi)
        return fit + log_prior - 2 * settings[:, 0].log()

    # A period that is uniform has a rate of density ~ 1 / rate².
    ranges = ((1 / PERIODS[1], 1 / PERIODS[0]), LENGTHS, SCALES)
    log_prior = -sum(math.log(high - low) for low, high in (PERIODS, LENGTHS, SCALES))
    low, high = zip(*ranges, strict=True)
    settings, weight = adaptive_sample(log_joint, low, high)
    likely = weight > weight.max() - NEGLIGIBLE
    settings, weight = settings[likely], weight[likely]
    cross = covariance(settings, across)
    both = torch.cat([y.expand(len(settings), -1, -1), cross], dim=2)
    solved = torch.linalg.solve_triangular(root(settings), both, upper=False)
    rest, told = solved[..., :1], solved[..., 1:]
    variance = settings[:, 2, None].square() + noise**2 - told.square().sum(1)
    return weight, (rest * told).sum(1), variance.clamp(min=noise**2)
