"""One against the rest: what learners know of tasks whose examples may have any number of labels."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from quickstudy.episode import Examples
from quickstudy.likelihood import Bernoulli, Categorical, Labels

SURE = 10.0
"""Log-odds of a label that all examples have, and minus those of one that none has: one in 22,000 is otherwise."""


def likelihood_of(labels: Labels, label_smoothing: float) -> Categorical | Bernoulli:
    """The likelihood of a learner's outputs.

    Raises:
        ValueError: neither one nor many; many labels are to be smoothed.
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels must be one or many; found {labels!r}.")
    if labels == "one":
        return Categorical(label_smoothing=label_smoothing)
    if label_smoothing:
        raise ValueError(
            f"Only the labels of one class are smoothed; found label_smoothing={label_smoothing} with labels=many."
        )
    return Bernoulli()


def one_sided(logits: Tensor, have: Tensor, lack: Tensor) -> Tensor:
    """Logits, with what is known of labels that no example has, or all have; zero where there is no example at all.

    Args:
        logits: (task, …, label).
        have: how many examples have each label, broadcast to the logits.
        lack: how many have it not, likewise.

    >>> one_sided(torch.full((1, 3), 0.5), torch.tensor([[0, 1, 2]]), torch.tensor([[2, 1, 0]])).tolist()
    [[-10.0, 0.5, 10.0]]
    """
    logits = torch.where(lack <= 0, SURE, torch.where(have <= 0, -SURE, logits))
    return torch.where(have + lack > 0, logits, 0)


def label_sums(features: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
    """Sum and number of all examples, and behind them those of the examples that have each label.

    ``s_0 = Σ_i z_i``, ``s_l = Σ_i y_il z_i``; what has not a label is the difference, so adding sums is learning more,
    and examples from before a label came up count as not having it.

    Args:
        features: (task, example, width).
        examples: y 0 and 1, (task, example, label); the mask may say for how many an example counts.

    Returns:
        Sums (task, 1 + label, width) and counts (task, 1 + label).
    """
    share = examples.mask[..., None].to(features.dtype)
    member = torch.cat([share, examples.y.to(features.dtype) * share], -1)
    return member.transpose(1, 2) @ features, member.sum(1)
