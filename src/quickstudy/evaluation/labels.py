"""How well labels are found where an example may have any number of them."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.episode import Context, Episode, Examples
from quickstudy.likelihood import per_task_mean


def label_measures(outputs: Tensor, examples: Examples, context: Context) -> dict[str, Tensor]:
    """Measures of each task beside micro F1, (task,).

    ``macro_f1`` is the mean over labels of ``2 TP / (2 TP + FP + FN)``, those left out that nobody has and nobody was
    given; ``exact_match`` the share of queries that are given their labels and no other; both where a label is given if
    it is likelier than not. ``average_precision`` is the mean over labels that some query has of
    :func:`average_precision`.

    Args:
        outputs: log-odds, (task, query, label).
        examples: the queries, y 0 and 1 (task, query, label).
        context: which labels exist.
    """
    exists = examples.mask[..., None] & context.classes[:, None]
    given, wanted = (outputs > 0) & exists, (examples.y > 0) & exists
    right = 2 * (given & wanted).sum(1).to(outputs.dtype)
    total = given.sum(1) + wanted.sum(1)
    same = (given == wanted).all(2).to(outputs.dtype)
    return {
        "macro_f1": per_task_mean(right / total.clamp(min=1), total > 0),
        "exact_match": per_task_mean(same, examples.mask),
        "average_precision": per_task_mean(
            average_precision(outputs, wanted, exists), wanted.any(1)
        ),
    }


def average_precision(outputs: Tensor, wanted: Tensor, exists: Tensor) -> Tensor:
    """The mean over queries with a label of the precision among all queries that are at least as likely to have it.

    Zhu 2004, Recall, Precision and Average Precision. Queries of equal log-odds count together, as in scikit-learn.

    Args:
        outputs: log-odds, (task, query, label).
        wanted: which queries have which label, bool (task, query, label).
        exists: which of these there are, likewise.

    Returns:
        (task, label); zero for a label that no query has.

    >>> outputs = torch.tensor([[[3.0], [2.0], [1.0]]])
    >>> wanted = torch.tensor([[[True], [False], [True]]])
    >>> average_precision(outputs, wanted, torch.ones_like(wanted)).item()
    0.8333333730697632
    """
    first = -outputs.masked_fill(~exists, -torch.inf)
    falling, order = first.transpose(1, 2).contiguous().sort(-1)
    hits = wanted.transpose(1, 2).gather(-1, order).to(outputs.dtype)
    # How many are at least as likely: the place behind the last of equal log-odds.
    place = torch.searchsorted(falling, falling, right=True)
    found = hits.cumsum(-1).gather(-1, place - 1)
    precision = found / place.to(outputs.dtype)
    return (precision * hits).sum(-1) / hits.sum(-1).clamp(min=1)


def share_of_support(episode: Episode) -> Tensor:
    """For every query the log-odds of each label among the support's examples, (task, query, label).

    So a label is given to all queries, or to none: what most of the examples have.
    """
    support, queries = episode.support, episode.query.mask.shape[1]
    shares = torch.stack([per_task_mean(y, support.mask) for y in support.y.unbind(-1)], -1)
    return shares.logit(eps=1e-6)[:, None].expand(-1, queries, -1)
