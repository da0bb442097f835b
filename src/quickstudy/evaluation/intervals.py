"""Intervals over tasks."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from torch import Tensor


@lru_cache
def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The two-sided quantile of Student's t distribution.

    ``P(|T| ≤ q) = confidence``; with ``T = √ν · tan θ`` the density of θ is proportional to
    ``cos(θ)^(ν - 1)``, which is integrated on a grid.

    >>> round(t_quantile(9), 3), round(t_quantile(599), 3)
    (2.262, 1.964)
    """
    reach = min(math.pi / 2, 12 / math.sqrt(degrees))
    theta = np.linspace(0, reach, 20_001)
    density = np.cos(theta) ** (degrees - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(math.sqrt(degrees) * np.tan(np.interp(confidence, mass / mass[-1], theta)))


def interval(scores: Tensor) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval over tasks.

    ``mean ± t_{0.975, n - 1} · s / √n``, with s the standard deviation over the n tasks. It says how well the mean over
    all tasks of the source is known for this learner; it says nothing of how training with another seed would vary.

    Args:
        scores: (task,).

    Raises:
        ValueError: fewer than two tasks.

    >>> import torch
    >>> [round(number, 4) for number in interval(torch.tensor([0.5, 0.7, 0.6]))]
    [0.6, 0.2484]
    """
    count = len(scores)
    if count < 2:
        raise ValueError(f"An interval over tasks needs at least 2 episodes; found {count}.")
    values = scores.double()
    error = float(values.std()) / math.sqrt(count)
    return float(values.mean()), t_quantile(count - 1) * error
