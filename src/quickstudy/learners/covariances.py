"""Covariances of random functions, with the derivatives that fitting them to examples takes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SETTINGS = ("trend", "circle", "rate", "scale", "noise")
"""What a covariance is set by, each by its logarithm, in this order."""
TREND, CIRCLE, RATE, SCALE, NOISE = range(len(SETTINGS))
SHAPES = slice(TREND, SCALE)
"""Of the settings, those that say how alike two places are."""


class Pairs(NamedTuple):
    """Where the examples of a task lie from others."""

    square: Tensor
    """Squared distances, (task, 1, example, other)"""
    along: Tensor
    """Differences along a direction, (task, 1 or covariance, example, other)"""
    both: Tensor
    """Neither is padding, bool (task, 1, example, other)"""


def _reach(settings: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """r² of pairs by their distance alone, twice the square of the circle, and by what angle they are turned."""
    trend, circle, rate = settings[..., SHAPES].exp()[..., None, None].unbind(2)
    return trend.square() * pairs.square, 2 * circle.square(), 2 * math.pi * rate * pairs.along


def _faded(square: Tensor) -> tuple[Tensor, Tensor]:
    """√5 r, whose slope at zero stays finite, and ``exp(-√5 r)``."""
    root = (5 * square + torch.finfo(square.dtype).tiny).sqrt()
    return root, (-root).exp()


def _alike(square: Tensor, rough: Tensor) -> Tensor:
    """κ(r²)."""
    smooth = (-square / 2).exp()
    if not rough.any():
        return smooth
    root, faded = _faded(square)
    return torch.where(rough[..., None, None], (1 + root + root.square() / 3) * faded, smooth)


def covariance(settings: Tensor, rough: Tensor, pairs: Pairs) -> Tensor:
    """How much the values of a random function vary together in two places.

    ``s² κ(r²)``, ``r² = a² |x - x'|² + 4 b² sin²(π w u·(x - x'))``: a, the trend, says how fast the function forgets,
    w, the rate, how many turns it takes for each unit along u, b, the circle, how much it changes within a turn; s is
    its scale. κ(r²) is ``exp(-r²/2)``, or, where rough, Matérn's for 5/2, ``(1 + √5 r + 5 r²/3) exp(-√5 r)``.

    Args:
        settings: logarithms of a, b, w, s and the noise, (task, covariance, 5).
        rough: bool (task or 1, covariance).
        pairs: of places.

    Returns:
        (task, covariance, example, other); zero where one is padding.

    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, equations 4.9, 4.17 and 4.31.

    >>> place = torch.tensor([[[[0.0, 1.0]]]])
    >>> pairs = Pairs(place.square(), place, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    >>> settings = torch.tensor([[[1.0, 1.0, 1.0, 2.0, 1.0]]]).log()
    >>> covariance(settings, torch.tensor([[False]]), pairs).round(decimals=4)
    tensor([[[[4.0000, 2.4261]]]])
    """
    far, circle, angle = _reach(settings, pairs)
    scale = settings[..., SCALE, None, None].exp().square()
    alike = _alike(far + circle * (1 - angle.cos()), rough)
    return torch.where(pairs.both, scale * alike, 0)


def slopes(settings: Tensor, rough: Tensor, pairs: Pairs) -> Tensor:
    """The derivatives of :func:`covariance` by the logarithms of trend, circle and rate.

    Returns:
        (task, covariance, 3, example, other).

    >>> place = torch.tensor([[[[0.0, 1.0]]]])
    >>> pairs = Pairs(place.square(), place, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    >>> settings = torch.tensor([[[1.0, 1.0, 1.0, 2.0, 1.0]]]).log()
    >>> round(slopes(settings, torch.tensor([[False]]), pairs)[0, 0, 0, 0, 1].item(), 4)
    -2.4261
    """
    far, circle, angle = _reach(settings, pairs)
    turned, turning = circle * (1 - angle.cos()), circle * angle * angle.sin()
    square = far + turned
    slope = -(-square / 2).exp() / 2
    if rough.any():
        root, faded = _faded(square)
        slope = torch.where(rough[..., None, None], -5 / 6 * (1 + root) * faded, slope)
    scale = settings[..., SCALE, None, None].exp().square()
    slope = torch.where(pairs.both, scale * slope, 0)
    return slope[:, :, None] * torch.stack([2 * far.expand_as(square), 2 * turned, turning], 2)
