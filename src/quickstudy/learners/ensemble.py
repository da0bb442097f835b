"""Several answers of one learner to one query, from views that should not matter, and their mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.episode import Inputs


def varied(x: Inputs, member: int) -> Inputs:
    """Rows of numbers as a member of an ensemble sees them: columns in another order and with other signs.

    Args:
        x: float (task, example, column).
        member: 0 sees them as they are.

    Raises:
        ValueError: the examples are no rows of numbers.

    >>> varied(torch.tensor([[[1.0, 2.0, 3.0]]]), 1).abs().sort().values.tolist()
    [[[1.0, 2.0, 3.0]]]
    """
    if not member:
        return x
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 3:
        raise ValueError(
            "An ensemble over features needs examples that are rows of numbers; choose ensemble_over=codes."
        )
    generator = torch.Generator().manual_seed(member)
    order = torch.randperm(x.shape[2], generator=generator).to(x.device)
    signs = (2 * torch.randint(2, (x.shape[2],), generator=generator) - 1).to(x)
    return x[..., order] * signs


def pooled(logits: list[Tensor]) -> Tensor:
    """Logits of the mean of several answers' probabilities; one answer alone is left as it is.

    >>> pooled([torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0])]).softmax(-1).tolist()
    [0.5, 0.5]
    """
    if len(logits) == 1:
        return logits[0]
    each = torch.stack([answer.log_softmax(-1) for answer in logits])
    return each.logsumexp(0) - math.log(len(logits))
