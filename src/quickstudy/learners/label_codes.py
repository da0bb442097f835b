"""Codes that stand for the classes of a task, and which class is dealt which."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KEY_PERIODS = 32
"""How often the key of a class runs through 0 … 1 along one unit of its projection. Large enough to look random,
small enough that rounding in single precision rarely changes the order of two classes."""


def simplex(count: int, width: int) -> Tensor:
    """``count`` unit vectors at equal angles, ``c_i · c_j = -1 / (count - 1)``, as far apart as can be.

    The corners of a regular simplex, turned by a fixed rotation so that every feature takes part.

    Args:
        count: number of vectors.
        width: their features, at least ``count - 1``.

    Returns:
        (count, width), the same on every call.

    Raises:
        ValueError: fewer than 2 vectors, or too few features for so many of them.

    >>> codes = simplex(3, 4)
    >>> (codes @ codes.T).round(decimals=3).tolist()
    [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    if count < 2:
        raise ValueError(f"A bank holds at least 2 label codes; found {count}.")
    if width < count - 1:
        raise ValueError(
            f"A bank of {count} label codes needs a width of at least {count - 1}; found a width of {width}. "
            "Make the width larger or the bank smaller."
        )
    corners = torch.eye(count, dtype=torch.float64) - 1 / count
    # The corners lie in a space of count - 1 dimensions, whose basis the singular vectors give.
    flat = torch.linalg.svd(corners)[2][: count - 1]
    generator = torch.Generator().manual_seed(count)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    codes = F.normalize(corners @ flat.T, dim=-1) @ turn[: count - 1]
    return codes.to(torch.get_default_dtype())


@torch.no_grad()
def deal(means: Tensor, counts: Tensor, direction: Tensor, bank: int, *, hand: int = 0) -> Tensor:
    """Which code each class gets: a run of the bank, in the order of the classes' keys.

    The key of a class is pseudo-random and computed from the mean of its examples, so renumbering the classes
    permutes the codes and changes nothing else. More classes than the bank has codes are split into groups of equal
    size, neighbours along ``direction`` together, and each group is dealt the bank as if it were alone.

    Args:
        means: of the classes' examples, (task, way, width).
        counts: of examples, (task, way); a class without any counts for nothing.
        direction: (width,), onto which means are projected.
        bank: number of codes.
        hand: another number deals the codes in another order.

    Returns:
        int64 (task, way), ``group · bank + code``.

    >>> means, direction = torch.randn(1, 5, 4), torch.randn(4)
    >>> sorted((deal(means, torch.ones(1, 5), direction, bank=3) // 3).flatten().tolist())
    [0, 0, 0, 1, 1]
    """
    seen = counts > 0
    place = (means * direction).sum(-1)
    key = (place * (KEY_PERIODS * (1 + hand))).remainder(1)
    classes = seen.sum(1, keepdim=True)
    groups = (classes + bank - 1).div(bank, rounding_mode="floor").clamp(min=1)
    size = (classes + groups - 1).div(groups, rounding_mode="floor").clamp(min=1)
    along = place.masked_fill(~seen, torch.inf).argsort(1).argsort(1)
    group = torch.minimum(along.div(size, rounding_mode="floor"), groups - 1)
    together = (group[:, :, None] == group[:, None]) & seen[:, None]
    start = torch.where(together, key[:, None], 0).sum(2).remainder(1) * bank
    # Keys lie in 0 … 1, so the groups stand one behind the other.
    rank = (key.masked_fill(~seen, 2) + 4 * group).argsort(1).argsort(1) - group * size
    return (rank + start.long()) % bank + group * bank
