"""The answers of one who knows a world: distributions of the queries' values."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

BISECTIONS = 30
"""Of the search for a quantile; each halves its error."""


class Exact(NamedTuple):
    """The posterior predictive distribution of each query's values, by itself."""

    mean: Tensor
    """(task, query, values); no other answer has a smaller expected squared error."""
    deviation: Tensor
    """(task, query, values), of the values as they are drawn, so their noise is part of it."""
    log_density: Tensor | None
    """(task, query), ``log p(y_query | support)`` in nats, which no learner's mean exceeds; None in a world without
    noise, whose values have no density once enough is known of them."""


def normal(mean: Tensor, deviation: Tensor, y: Tensor, *, dense: bool = True) -> Exact:
    """N(mean, deviation²), the values of a query independent of one another.

    Args:
        mean: (task, query, values).
        deviation: (task, query, values).
        y: the queries' values, whose precision the answer has.
        dense: whether there is a density.

    >>> zero, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    >>> round(normal(zero, one, zero).log_density.item(), 4)
    -0.9189
    """
    log_density = normal_log_density(y.double(), mean, deviation.square()).sum(-1)
    kept = log_density.to(y.dtype) if dense else None
    return Exact(mean.to(y.dtype), deviation.to(y.dtype), kept)


def mixture(log_weight: Tensor, mean: Tensor, variance: Tensor, y: Tensor) -> Exact:
    """A mixture of normal distributions, ``p(y) = Σ_c w_c N(y; μ_c, v_c)``, of one value for each query.

    Args:
        log_weight: (task, component), up to a constant for each task.
        mean: (task, component, query).
        variance: (task, component, query).
        y: (task, query, 1), the queries' values, whose precision the answer has.

    >>> at, y = torch.tensor([[[-1.0], [1.0]]]), torch.zeros(1, 1, 1)
    >>> found = mixture(torch.zeros(1, 2), at, torch.ones(1, 2, 1), y)
    >>> found.mean.item(), round(found.deviation.item() ** 2, 4), round(found.log_density.item(), 4)
    (0.0, 2.0, -1.4189)
    """
    log_weight = log_weight.log_softmax(1)[..., None]
    weight = log_weight.exp()
    centre = (weight * mean).sum(1)
    spread = (weight * (variance + (mean - centre[:, None]).square())).sum(1)
    told = normal_log_density(y.double()[..., 0][:, None], mean, variance)
    log_density = torch.logsumexp(log_weight + told, dim=1)
    return Exact(
        centre[..., None].to(y.dtype),
        spread.sqrt()[..., None].to(y.dtype),
        log_density.to(y.dtype),
    )


def mixture_interval(
    log_weight: Tensor, mean: Tensor, variance: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """The interval that holds a share ``level`` of a mixture of normal distributions, as much below it as above.

    Its ends are quantiles, the roots of ``Σ_c w_c Φ((y - μ_c) / √v_c) = (1 ∓ level) / 2``, by bisection.

    Args:
        log_weight: (task, component), up to a constant for each task.
        mean: (task, component, query).
        variance: (task, component, query).
        level: in 0 … 1.

    Returns:
        Lower and upper end, each (task, query).

    >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2, 1)
    >>> [round(end.item(), 4) for end in mixture_interval(zero, 0 * one, one, 0.95)]
    [-1.96, 1.96]
    """
    weight, deviation = log_weight.softmax(1)[..., None], variance.sqrt()
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        reach = math.sqrt(2) * torch.erfinv(torch.tensor(2 * share - 1, dtype=mean.dtype))
        # The quantile of a mixture lies between the least and the greatest of its components.
        each = mean + reach * deviation
        low, high = each.amin(1), each.amax(1)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = (weight * torch.special.ndtr((middle[:, None] - mean) / deviation)).sum(1)
            low = torch.where(below < share, middle, low)
            high = torch.where(below < share, high, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1]


def normal_log_density(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """``log N(y; μ, v)``, number by number."""
    return -0.5 * ((y - mean).square() / variance + variance.log() + math.log(2 * math.pi))
