"""How alike a random function is in two places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kernel = Literal["rbf", "matern", "periodic"]
"""Of the covariances that tasks are drawn with."""
KERNELS: tuple[Kernel, ...] = ("rbf", "matern", "periodic")
LENGTHS = (0.1, 0.6)
SCALES = (0.1, 1.0)
PERIODS = (0.1, 0.5)


class Drawing(NamedTuple):
    """What a batch of random functions was drawn with."""

    kernel: Tensor
    """int64 (task,), in the order of ``KERNELS``."""
    length: Tensor
    """(task,)"""
    scale: Tensor
    """(task,)"""
    period: Tensor
    """(task,), which only a periodic function has."""


def correlation(kernel: Kernel, distance: Tensor, length: Tensor, period: Tensor) -> Tensor:
    """The covariance over scale².

    With r the distance and d = r / length: ``exp(-d² / 2)`` (rbf), ``(1 + √5 d + 5 d² / 3) exp(-√5 d)`` (matern), or
    ``exp(-2 sin²(π r / period) / length²)`` (periodic).

    Args:
        kernel: which one.
        distance: not negative; of any shape that goes with the others'.
        length: how far a value is felt.
        period: after which a periodic function repeats itself.

    >>> one, two = torch.ones(1), torch.full((1,), 2.0)
    >>> [round(correlation(kernel, one, one, two).item(), 4) for kernel in KERNELS]
    [0.6065, 0.524, 0.1353]
    """
    if kernel == "periodic":
        return torch.exp(-2 * (torch.sin(math.pi * distance / period) / length).square())
    d = distance / length
    if kernel == "rbf":
        return torch.exp(-0.5 * d.square())
    return (1 + math.sqrt(5) * d + 5 / 3 * d.square()) * torch.exp(-math.sqrt(5) * d)


def drawing(kernels: Sequence[Kernel], tasks: int, generator: torch.Generator) -> Drawing:
    """What some functions are drawn with, float64.

    Each kernel as often; length ~ U[0.1, 0.6], scale ~ U[0.1, 1], period ~ U[0.1, 0.5].
    """
    kernel = torch.tensor([KERNELS.index(each) for each in kernels])
    chosen = kernel[torch.randint(len(kernels), (tasks,), generator=generator)]
    unit = torch.rand(3, tasks, generator=generator, dtype=torch.float64)
    ranges = torch.tensor([LENGTHS, SCALES, PERIODS], dtype=torch.float64)
    length, scale, period = ranges[:, :1] + (ranges[:, 1:] - ranges[:, :1]) * unit
    return Drawing(chosen, length, scale, period)


def distances(x: Tensor, z: Tensor) -> Tensor:
    """|x - z| of all pairs, (task, example, 1) and (task, query, 1) to float64 (task, example, query)."""
    return (x.double() - z.double().mT).abs()
