"""How alike a random function is in two places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kernel = Literal["rbf", "matern"]
"""Of the covariances that tasks are drawn with."""
KERNELS: tuple[Kernel, ...] = ("rbf", "matern")
LENGTHS = (0.1, 0.6)
SCALES = (0.1, 1.0)


class Drawing(NamedTuple):
    """What a batch of random functions was drawn with."""

    kernel: Tensor
    """int64 (task,), in the order of ``KERNELS``."""
    length: Tensor
    """(task,)"""
    scale: Tensor
    """(task,)"""


def correlation(kernel: Kernel, distance: Tensor, length: Tensor) -> Tensor:
    """The covariance over scale².

    With d the distance over the length, ``exp(-d² / 2)`` (rbf) or ``(1 + √5 d + 5 d² / 3) exp(-√5 d)`` (matern).

    Args:
        kernel: which one.
        distance: not negative; of any shape that goes with the others'.
        length: how far a value is felt.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> [round(correlation(kernel, one, one).item(), 4) for kernel in KERNELS]
    [0.6065, 0.524]
    """
    d = distance / length
    if kernel == "rbf":
        return torch.exp(-0.5 * d.square())
    return (1 + math.sqrt(5) * d + 5 / 3 * d.square()) * torch.exp(-math.sqrt(5) * d)


def drawing(kernels: Sequence[Kernel], tasks: int, generator: torch.Generator) -> Drawing:
    """Hyper-parameters of some functions, float64: each kernel as often, length ~ U[0.1, 0.6], scale ~ U[0.1, 1]."""
    kernel = torch.tensor([KERNELS.index(each) for each in kernels])
    chosen = kernel[torch.randint(len(kernels), (tasks,), generator=generator)]
    unit = torch.rand(2, tasks, generator=generator, dtype=torch.float64)
    between = [
        low + (high - low) * u for (low, high), u in zip((LENGTHS, SCALES), unit, strict=True)
    ]
    return Drawing(chosen, *between)


def distances(x: Tensor, z: Tensor) -> Tensor:
    """|x - z| of all pairs, (task, example, 1) and (task, query, 1) to float64 (task, example, query)."""
    return (x.double() - z.double().mT).abs()
