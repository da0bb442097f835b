"""What can be said of the values of a task without having learned anything from other tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.episode import Episode
from quickstudy.likelihood import per_task_mean

PENALTY = 1.0
"""λ of ridge regression, beside the sum of the squared errors: inputs and values of about one, a unit prior."""


def means(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of each column over the examples that exist, (task, 1, column); zero without any."""
    columns = [per_task_mean(column, mask) for column in values.unbind(-1)]
    return torch.stack(columns, dim=-1)[:, None]


def support_mean(episode: Episode) -> Tensor:
    """For every query the mean of the support's values, (task, query, values); zero without support."""
    support, queries = episode.support, episode.query.mask.shape[1]
    return means(support.y, support.mask).expand(-1, queries, -1)


def ridge_of_support(episode: Episode) -> Tensor:
    """Ridge regression of each task on its raw inputs, (task, query, values).

    ``min_{w, b} Σ_i (y_i - wᵀ x_i - b)² + λ ‖w‖²`` with λ = 1; in closed form, on centred examples, so b is free.
    """
    support = episode.support
    x, y, kept = support.x.double(), support.y.double(), support.mask[..., None]
    centre, level = means(x, support.mask), means(y, support.mask)
    rows, rest = torch.where(kept, x - centre, 0), torch.where(kept, y - level, 0)
    gram = rows.transpose(1, 2) @ rows
    penalty = PENALTY * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram + penalty, rows.transpose(1, 2) @ rest)
    return ((episode.query.x.double() - centre) @ weights + level).to(support.y.dtype)
