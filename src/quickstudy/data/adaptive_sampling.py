"""Integrals over a few unknowns whose likely values are few and far between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = (4096, 1024, 1024, 1024, 2048)
"""Points of each round; the last ones are the answer."""
CELLS = 128
"""Of each axis, equally likely to hold a point."""
FLOOR = 0.1
"""Share of the points that are spread evenly, so that no place is lost."""
SMOOTHING = 4
"""Neighbours to either side over which a point's weight is spread."""
SHARE = 0.05
"""Of the points of a round, those that must count at least, while cells are moved."""
STEEPEST = 0.5
"""Largest power of the weights that cells follow: what answers come from is wider than what they are about."""


def adaptive_sample(
    log_density: Callable[[Tensor], Tensor],
    low: Sequence[float],
    high: Sequence[float],
    *,
    rounds: Sequence[int] = ROUNDS,
) -> tuple[Tensor, Tensor]:
    """Points in a box and their weights: ``∫ h(z) p(z) dz ≈ Σ_i exp(w_i) h(z_i)``.

    In rounds, cells are moved along each axis to where the last points found weight, so a peak that is a thousandth of
    an axis wide is met by many. They follow a power of the weights, at most one half, and less while a few points hold
    them all. The points are those of a lattice, so an answer is the same each time.

    Lepage 1978, A New Algorithm for Adaptive Multidimensional Integration.

    Differs from the paper: the power is that of each weight, and it is found, not given; a lattice, in place of random
    points; the last round alone is the answer.

    Args:
        log_density: log p of points (point, axis), (point,); p need not integrate to 1.
        low: corner of the box.
        high: the opposite corner.
        rounds: points of each round.

    Returns:
        Points float64 (point, axis), and log weights (point,).

    >>> point, weight = adaptive_sample(lambda z: -0.5 * (z[:, 0] / 0.01).square(), [-1.0], [1.0])
    >>> round(float(weight.exp().sum()) / (0.01 * math.sqrt(2 * math.pi)), 2)
    1.0
    """
    box = torch.tensor([low, high], dtype=torch.float64)
    steps = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64)
    edges = box[0, :, None] + (box[1] - box[0])[:, None] * steps
    for last, count in zip([*[False] * (len(rounds) - 1), True], rounds, strict=True):
        point, log_volume = _placed(edges, _lattice(count, len(low)))
        weight = log_density(point) + log_volume - math.log(count)
        if not last:
            edges = torch.stack(
                [
                    _moved(*axis)
                    for axis in zip(box.T, point.T, [_flattened(weight)] * len(low), strict=True)
                ]
            )
    return point, weight


def _lattice(count: int, axes: int) -> Tensor:
    """Points that fill the unit cube evenly, float64 (point, axis).

    The first axis has one point in each part; the others are multiples of powers of the root of ``r^(d + 1) = r + 1``,
    the golden ratio's kin (Roberts 2018, The Unreasonable Effectiveness of Quasirandom Sequences).
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / axes) if axes > 1 else (1 + math.sqrt(5)) / 2
    number = torch.arange(count, dtype=torch.float64)
    others = [(0.5 + (number + 1) / root**k) % 1 for k in range(1, axes)]
    return torch.stack([(number + 0.5) / count, *others], dim=1)


def _placed(edges: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the unit cube in their cells, and the log of the volume that each stands for.

    Args:
        edges: (axis, cell + 1)
        unit: (point, axis)
    """
    place = (unit.T * CELLS).long().clamp(max=CELLS - 1)
    start, end = edges.gather(1, place), edges.gather(1, place + 1)
    width = end - start
    return (start + (unit.T * CELLS - place) * width).T, (width * CELLS).log().sum(0)


def _flattened(weight: Tensor) -> Tensor:
    """exp(β w) with the largest β of at most ``STEEPEST`` with which enough points count, (Σ v)² / Σ v² of them."""
    weight = weight - weight.max()
    low, high, power = 0.0, 2 * STEEPEST, STEEPEST
    for _ in range(20):
        flat = (power * weight).exp()
        if flat.sum() ** 2 < SHARE * len(flat) * flat.square().sum():
            high = power
        elif power == STEEPEST:
            return flat
        else:
            low = power
        power = (low + high) / 2
    return (low * weight).exp()


def _moved(ends: Tensor, at: Tensor, weight: Tensor) -> Tensor:
    """Edges of cells of one axis that hold equal weight, (cell + 1,)."""
    at, order = at.sort()
    middle = torch.cat([ends[:1], (at[1:] + at[:-1]) / 2, ends[1:]])
    reach = 2 * SMOOTHING + 1
    mass = F.avg_pool1d(weight[order][None], reach, 1, SMOOTHING)[0]
    share = F.pad(mass.cumsum(0) / mass.sum(), (1, 0))
    even = (middle - ends[0]) / (ends[1] - ends[0])
    share = (1 - FLOOR) * share + FLOOR * even
    level = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64)
    after = torch.searchsorted(share, level).clamp(1, len(share) - 1)
    rise = (level - share[after - 1]) / (share[after] - share[after - 1])
    edges = middle[after - 1] + rise.clamp(0, 1) * (middle[after] - middle[after - 1])
    edges[0], edges[-1] = ends
    return edges
