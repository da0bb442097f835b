"""What is measured of an answer: its score, and, where it says how sure it is, its log-likelihood and its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.exact import Exact
from quickstudy.episode import Episode
from quickstudy.evaluation.intervals import interval
from quickstudy.evaluation.labels import label_measures
from quickstudy.likelihood import (
    Bernoulli,
    Categorical,
    Gaussian,
    JointGaussian,
    Likelihood,
    per_task_mean,
)

Z = 1.959964
"""Half the width of a 95 % interval of a normal distribution, in standard deviations."""

Measures = Mapping[str, Tensor]
"""Name to a number for each task, (task,): ``score``, and for those who say how sure they are ``log_likelihood`` and
``coverage``; of many labels also :data:`LABEL_MEASURES`."""

LABEL_MEASURES = ("macro_f1", "exact_match", "average_precision")
"""What is measured beside micro F1 where an example may have any number of labels."""


def measured(
    answer: Tensor | Exact, likelihood: Likelihood, episode: Episode, *, of_classes: bool = False
) -> Measures:
    """All measures of one answer to a batch of tasks.

    Args:
        answer: outputs (task, query, …), or what one who knows the world says.
        likelihood: what outputs mean, and how the mean of an exact answer is scored.
        episode: the tasks.
        of_classes: measure the log-likelihood of classes too, as where somebody knows how likely they are.
    """
    query, context = episode.query, episode.context
    if isinstance(answer, Exact):
        episode = episode.to(answer.mean.device)
        query, context = episode.query, episode.context
        found = {"score": likelihood.task_score(answer.mean.double(), query, context)}
        if answer.log_density is not None:
            found["log_likelihood"] = per_task_mean(answer.log_density.double(), query.mask)
            found["coverage"] = _coverage(answer.mean, answer.deviation, episode)
        return found
    episode = episode.to(answer.device)
    query, context = episode.query, episode.context
    # In double precision, a third of the queries is a third.
    outputs = answer.double()
    found = {"score": likelihood.task_score(outputs, query, context)}
    if isinstance(likelihood, Gaussian | JointGaussian):
        found["log_likelihood"] = -likelihood.task_nll(outputs, query, context)
        found["coverage"] = _coverage(*likelihood.distribution(outputs), episode)
    if isinstance(likelihood, Bernoulli):
        found |= label_measures(outputs, query, context)
    if of_classes:
        # Without the smoothing of labels that a learner may have been trained with.
        found["log_likelihood"] = -Categorical().task_nll(outputs, query, context)
    return found


def _coverage(mean: Tensor, deviation: Tensor, episode: Episode) -> Tensor:
    """The share of a task's values that ``mean ± 1.96 deviation`` holds, (task,)."""
    exists = episode.context.classes[:, None]
    inside = ((episode.query.y - mean).abs() <= Z * deviation) & exists
    share = inside.sum(-1).double() / exists.sum(-1).clamp(min=1)
    return per_task_mean(share, episode.query.mask)


def summary(scores: Tensor) -> dict[str, float]:
    """Mean and interval of scores (task,), by name."""
    mean, ci95 = interval(scores)
    return {"mean": mean, "ci95": ci95}


def summaries(measures: Measures) -> dict[str, Any]:
    """Mean and interval of the score, and below their names those of the other measures."""
    others = {name: summary(each) for name, each in measures.items() if name != "score"}
    return {**summary(measures["score"]), **others}


def below_exact(own: Measures, exact: Measures) -> dict[str, float] | None:
    """By how many nats per query one falls short of the Bayes-optimal answer, task by task; None where nobody knows.

    Both must be about each query by itself, or both about all queries together.
    """
    if not {"log_likelihood"} <= own.keys() & exact.keys():
        return None
    return summary(exact["log_likelihood"] - own["log_likelihood"])


def joined(parts: list[Measures]) -> Measures:
    """The measures of several batches of tasks as one."""
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
