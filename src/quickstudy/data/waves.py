"""Noisy sine waves, answered by one who adds up what every amplitude and phase would say."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.data.adaptive_sampling import adaptive_sample
from quickstudy.data.exact import Exact
from quickstudy.data.predictive import quadrature
from quickstudy.episode import Episode

AMPLITUDES, PHASES = (0.1, 5.0), (0.0, math.pi)
ROUNDS = (512, 256, 256, 512)
"""Phases that are tried."""
NODES = 32
"""Amplitudes of each phase, between ``REACH`` standard deviations below and above the likeliest one."""
REACH = 7.0
NEGLIGIBLE = 16.0
"""Nats below the most likely phase at which one is left out."""

_ROOT = 0.5 * math.log(2 * math.pi)


def wave_posterior(episode: Episode, *, noise: float) -> Exact:
    """The Bayes-optimal answer to ``y = A sin(x - φ) + ε``, A ~ U[0.1, 5], φ ~ U[0, π], ε ~ N(0, noise²).

    Of each phase, y is linear in A, so A has a normal posterior between its bounds, whose evidence is in closed form;
    phases are those of :func:`adaptive_sample`. The density of a query's value is the evidence of the support and the
    query over that of the support.
    """
    parts = [_one(episode, task, noise) for task in range(episode.tasks)]
    mean, deviation, log_density = (torch.stack(each) for each in zip(*parts, strict=True))
    y = episode.query.y
    return Exact(
        *(each.to(y.dtype) for each in (mean[..., None], deviation[..., None], log_density))
    )


def _one(episode: Episode, task: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and log density of one task, each (query,)."""
    kept = episode.support.mask[task]
    x, y = (each[task, kept, 0].double() for each in (episode.support.x, episode.support.y))
    asked, told = (each[task, :, 0].double() for each in (episode.query.x, episode.query.y))

    def sums(phase: Tensor) -> tuple[Tensor, Tensor]:
        wave = torch.sin(x - phase)
        return wave.square().sum(-1) / noise**2, (wave * y).sum(-1) / noise**2

    def log_joint(point: Tensor) -> Tensor:
        return log_evidence(*sums(point)) - math.log(PHASES[1] - PHASES[0])

    point, weight = adaptive_sample(log_joint, PHASES[:1], PHASES[1:], rounds=ROUNDS)
    likely = weight > weight.max() - NEGLIGIBLE
    point, weight = point[likely], weight[likely].log_softmax(0)
    square, cross = sums(point)
    wave = torch.sin(asked - point)
    more = log_evidence(
        square[:, None] + wave.square() / noise**2, cross[:, None] + wave * told / noise**2
    )
    gained = more - log_evidence(square, cross)[:, None] - 0.5 * (told / noise).square()
    log_density = torch.logsumexp(weight[:, None] + gained, 0) - math.log(noise) - _ROOT
    share, amplitude = _amplitudes(square, cross)
    share = share * weight.exp()[:, None]
    first, second = (share * amplitude).sum(1), (share * amplitude.square()).sum(1)
    mean = first @ wave
    variance = second @ wave.square() - mean.square()
    return mean, (variance.clamp(min=0) + noise**2).sqrt(), log_density


def log_evidence(square: Tensor, cross: Tensor) -> Tensor:
    """``log ∫ exp(-½ a A² + b A) dA / (A_max - A_min)`` over the amplitudes, of any shape.

    It is the likelihood of values given a phase, but for ``-½ Σ y² / σ²`` and constants, with ``a = Σ s² / σ²`` and
    ``b = Σ s y / σ²``, s the sines.

    >>> zero = torch.zeros(1, dtype=torch.float64)
    >>> round(log_evidence(zero, zero).item(), 6)
    0.0
    """
    low, high = AMPLITUDES
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


def _amplitudes(square: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes of each phase and their shares of its posterior, each (phase, node)."""
    node, weight = quadrature(0, 1, NODES)
    low, high = AMPLITUDES
    deviation = square.clamp(min=1e-9).rsqrt()
    centre = (cross / square.clamp(min=1e-9)).clamp(low, high)
    start = (centre - REACH * deviation).clamp(low, high)
    end = (centre + REACH * deviation).clamp(low, high)
    amplitude = start[:, None] + (end - start)[:, None] * node
    exponent = -0.5 * square[:, None] * amplitude.square() + cross[:, None] * amplitude
    return (exponent + weight.log()).softmax(1), amplitude
