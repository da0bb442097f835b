"""Whether a learner is right as often as it is sure, and what it takes for what."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Calibration(NamedTuple):
    """How often answers of each degree of confidence are right."""

    confidence: Tensor
    """(bin,), the mean confidence; zero for an empty bin."""
    accuracy: Tensor
    """(bin,), the share of right answers; zero for an empty bin."""
    answers: Tensor
    """int64 (bin,), how many answers there were."""

    @property
    def error(self) -> float:
        """The expected calibration error, ``Σ_b n_b / n · |accuracy_b - confidence_b|`` (Guo et al. 2017).

        >>> calibrate(torch.tensor([0.9, 0.9]), torch.tensor([True, False])).error
        0.4
        """
        share = self.answers.double() / self.answers.sum().clamp(min=1)
        gap = (self.accuracy - self.confidence).abs()
        return round(float((share * gap).sum()), 6)


def calibrate(confidence: Tensor, right: Tensor, *, bins: int = 10) -> Calibration:
    """Sort answers by confidence into bins of equal width.

    Args:
        confidence: (answer,), the probability of the class that was answered, in 0 … 1.
        right: bool (answer,).
        bins: how many.
    """
    place = (confidence.double() * bins).long().clamp(max=bins - 1)
    member = F.one_hot(place, bins).double()
    count = member.sum(0)
    total = count.clamp(min=1)
    return Calibration(
        confidence=confidence.double() @ member / total,
        accuracy=right.double() @ member / total,
        answers=count.long(),
    )


def confusion(truth: Tensor, answer: Tensor, way: int) -> Tensor:
    """How often each class was taken for each, int64 (true class, answered class).

    >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), way=2).tolist()
    [[1, 0], [1, 1]]
    """
    return torch.bincount(truth * way + answer, minlength=way * way).unflatten(0, (way, way))
