"""Covariances fitted to the examples of a task, and what the random functions that have them say of its queries."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.learners.covariances import NOISE, SCALE, Pairs, covariance, slopes

LONGEST_STEP = 0.5
"""Of a fit: the largest change of a setting's logarithm in one step."""
SHORTER = (1.0, 0.3, 0.1)
"""Shares of a step that are tried, of which the best is taken."""
LEAST_NOISE = 1e-4
"""As a share of the scale, whatever a fit says: with less, two examples of one place could not be told from one."""


class Prior(NamedTuple):
    """Of the settings of some covariances, before any example: log-normal, each by itself."""

    center: Tensor
    """Means of the logarithms, (task, covariance, 5)"""
    log_spread: Tensor
    """Logs of their standard deviations, (task, covariance, 5)"""
    log_share: Tensor
    """Log of how likely each covariance is, (task, covariance)"""
    rough: Tensor
    """bool (task, covariance)"""


class Known(NamedTuple):
    """The examples of a task, zero where there are none."""

    pairs: Pairs
    y: Tensor
    """(task, example, value)"""
    mask: Tensor
    """bool (task, example)"""
    values: Tensor
    """How many there are of an example, (task,)"""


class Explained(NamedTuple):
    """What covariances make of the examples of a task."""

    log_evidence: Tensor
    """log N(y; 0, K + σ² I), (task, covariance)"""
    root: Tensor
    """Of K + σ² I, lower triangle, (task, covariance, example, example)"""
    solved: Tensor
    """α = (K + σ² I)⁻¹ y, (task, covariance, example, value)"""


class Fit(NamedTuple):
    """Covariances about the settings that explain a task best."""

    settings: Tensor
    """Logarithms, (task, covariance, 5)"""
    doubt: Tensor
    """Covariance of the logarithms given the examples, (task, covariance, 5, 5)"""
    log_weight: Tensor
    """Log of a covariance's probability given the examples, up to a constant, (task, covariance)"""


def explained(settings: Tensor, rough: Tensor, known: Known) -> Explained:
    """How well each setting explains the examples.

    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1.
    """
    mask, y = known.mask[:, None], known.y[:, None]
    noise = (2 * settings[..., NOISE, None]).exp()
    gram = covariance(settings, rough, known.pairs)
    gram = gram + torch.diag_embed(torch.where(mask, noise, 1))
    root = torch.linalg.cholesky(gram)
    solved = torch.cholesky_solve(y.expand(-1, root.shape[1], -1, -1), root)
    fit = -0.5 * (y * solved).sum((2, 3))
    size = root.diagonal(dim1=2, dim2=3).log().sum(2)
    constant = 0.5 * math.log(2 * math.pi) * known.mask.sum(1)[:, None]
    return Explained(fit - known.values[:, None] * (size + constant), root, solved)


def fitted(prior: Prior, known: Known, start: Tensor, *, steps: int, through: bool = True) -> Fit:
    """The settings at which ``log p(y | θ) + log p(θ)`` is highest, by Fisher scoring, and Laplace's view from there.

        θ ← θ + t (F + V⁻¹)⁻¹ ∇ [log p(y | θ) + log p(θ)],   F_ij = ½ tr(K⁻¹ ∂_i K K⁻¹ ∂_j K),

    for as many steps, each as long as is best of some lengths t and none at all. Then, with P the precision
    ``F + V⁻¹``, settings are N(θ, P⁻¹), and the log weight is ``log π + log p(y | θ) + log p(θ) - ½ log |P|``.

    Args:
        prior: of the covariances.
        known: the examples.
        start: settings, (task, covariance, 5).
        steps: how many.
        through: whether gradients go through the steps; or else θ is a constant, as where ``log p(y | θ) + log p(θ)``
            is highest its small changes make no difference to it, and only what it is made of has a gradient.

    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, equations 5.9 and 3.32.
    """
    settings = start
    if not through:
        with torch.no_grad():
            settings, *_ = _climbed(prior, known, settings, steps)
        steps = 0
    settings, best, found = _climbed(prior, known, settings, steps)
    _, precision = _slope_and_precision(settings, prior, known, found)
    size = torch.linalg.cholesky(precision).diagonal(dim1=2, dim2=3).log().sum(2)
    log_weight = prior.log_share + best - prior.log_spread.sum(2) - size
    return Fit(settings, torch.linalg.inv(precision), log_weight)


def _climbed(
    prior: Prior, known: Known, start: Tensor, steps: int
) -> tuple[Tensor, Tensor, Explained]:
    """Settings, ``log p(y | θ) + log p(θ)`` but for a constant, and what they explain, after some steps."""
    spread = prior.log_spread.exp()

    def joint(settings: Tensor) -> tuple[Tensor, Explained]:
        found = explained(settings, prior.rough, known)
        off = (settings - prior.center) / spread
        return found.log_evidence - 0.5 * off.square().sum(2), found

    settings = _held(start)
    best, found = joint(settings)
    for _ in range(steps):
        upward, precision = _slope_and_precision(settings, prior, known, found)
        step = torch.linalg.solve(precision, upward).clamp(-LONGEST_STEP, LONGEST_STEP)
        here = settings
        for share in SHORTER:
            tried = _held(here + share * step)
            reached, seen = joint(tried)
            better = reached > best
            best = torch.where(better, reached, best)
            settings = torch.where(better[..., None], tried, settings)
            parts = zip(seen, found, strict=True)
            found = Explained(
                *(
                    torch.where(better[(...,) + (None,) * (new.ndim - 2)], new, old)
                    for new, old in parts
                )
            )
    return settings, best, found


def _held(settings: Tensor) -> Tensor:
    """The same with no less noise than is needed."""
    noise = settings[..., NOISE].maximum(settings[..., SCALE] + math.log(LEAST_NOISE))
    return torch.cat([settings[..., :NOISE], noise[..., None]], -1)


def _slope_and_precision(
    settings: Tensor, prior: Prior, known: Known, found: Explained
) -> tuple[Tensor, Tensor]:
    """∇ [log p(y | θ) + log p(θ)], (task, covariance, 5), and F + V⁻¹, (task, covariance, 5, 5)."""
    _, root, solved = found
    both = known.pairs.both
    noise = (2 * settings[..., NOISE, None, None]).exp()
    inverse = torch.where(both, torch.cholesky_inverse(root), 0)
    eye = torch.diag_embed(known.mask[:, None].to(inverse.dtype))
    bends = slopes(settings, prior.rough, known.pairs)
    # By the logs of scale and noise, K + σ² I changes by 2 K and 2 σ² I.
    rest = torch.stack([2 * (eye - noise * inverse), 2 * noise * inverse], 2)
    changes = torch.cat([inverse[:, :, None] @ bends, rest], 2)
    values = known.values[:, None, None]
    traces = changes.diagonal(dim1=3, dim2=4).sum(3)
    fits = (_bent(settings, bends, known, solved) * solved[:, :, None]).sum((3, 4))
    precision = prior.log_spread.mul(-2).exp()
    upward = 0.5 * (fits - values * traces) - precision * (settings - prior.center)
    flat = changes.flatten(3)
    fisher = 0.5 * values[..., None] * flat @ changes.mT.flatten(3).mT
    return upward, fisher + torch.diag_embed(precision)


def _bent(settings: Tensor, bends: Tensor, known: Known, solved: Tensor) -> Tensor:
    """∂_i (K + σ² I) α, (task, covariance, 5, example, value), with the slopes of K."""
    shapes = bends @ solved[:, :, None]
    noise = (2 * settings[..., NOISE, None, None]).exp() * solved
    scale = known.y[:, None] - noise
    return torch.cat([shapes, 2 * torch.stack([scale, noise], 2)], 2)


def foretold(fit: Fit, rough: Tensor, known: Known, towards: Pairs) -> tuple[Tensor, Tensor]:
    """Mean and variance of the queries, each (task, covariance, query, value), with what is not known of the settings.

    μ = kᵀ α,   v = s² + σ² - kᵀ (K + σ² I)⁻¹ k + (∂_θ μ)ᵀ P⁻¹ ∂_θ μ,   ∂_i μ = ∂_i kᵀ α - kᵀ (K + σ² I)⁻¹ ∂_i K α
    """
    settings = fit.settings
    _, root, solved = explained(settings, rough, known)
    across = covariance(settings, rough, towards)
    told = torch.cholesky_solve(across, root)
    mean = across.mT @ solved
    scale, noise = settings[..., SCALE:].mul(2).exp()[..., None].unbind(2)
    variance = (scale + noise - (across * told).sum(2)).maximum(noise)
    bends = slopes(settings, rough, known.pairs)
    moved = -told.mT[:, :, None] @ _bent(settings, bends, known, solved)
    shapes = slopes(settings, rough, towards).mT @ solved[:, :, None]
    by_scale = torch.stack([2 * mean, torch.zeros_like(mean)], 2)
    moved = moved + torch.cat([shapes, by_scale], 2)
    doubted = (moved.transpose(2, 4) @ fit.doubt[:, :, None] * moved.transpose(2, 4)).sum(4)
    return mean, variance[..., None] + doubted.transpose(2, 3)
