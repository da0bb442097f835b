"""How well queries that are of no class of their task are told apart, and a threshold from held-out classes.

A threshold is learned from tasks of the validation or training split. Those of the test split only judge it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import Split, TaskSource
from quickstudy.evaluation.asking import Asked, ask
from quickstudy.evaluation.measures import summary
from quickstudy.learners.base import Learner
from quickstudy.rejection import (
    SCORES,
    SHARE_KEPT,
    Rejection,
    ScoreName,
    check_share,
    threshold_that_keeps,
)


def fit_rejection(
    learner: Learner,
    source: TaskSource,
    *,
    design: EpisodeDesign,
    episodes: int,
    seed: int = 0,
    share_kept: float = SHARE_KEPT,
    score: ScoreName | None = None,
    split: Split = "validation",
    device: torch.device | str = "cpu",
) -> Rejection:
    """Learn when to answer that a query is of none of its task's classes.

    Args:
        learner: of classes.
        source: where tasks are drawn from.
        design: way, shot and queries of the tasks as the learner meets them.
        episodes: how many tasks.
        seed: with the split, decides which tasks.
        share_kept: of the queries that are of a class, what share is to be answered with one.
        score: which score; by default the one that tells the queries of these tasks apart best.
        split: ``validation``, or ``train``; classes of the test split say nothing of a threshold.
        device: where to compute.

    Raises:
        DataError: the split has no class beside those of a task, or cannot fill the design.
        ValueError: the test split, a share that is none, or a score that does not exist.
    """
    if split == "test":
        raise ValueError(
            "A threshold is learned from validation or training classes; found the split 'test', which only judges it."
        )
    check_share(share_kept)
    if score is not None and score not in SCORES:
        raise ValueError(f"The score must be one of {', '.join(SCORES)}; found {score!r}.")
    asked = ask(
        learner, source, split=split, design=design, episodes=episodes, seed=seed, device=device
    )
    best = max(SCORES, key=lambda name: area(asked, name).mean().item())
    chosen: ScoreName = best if score is None else score
    return Rejection(
        score=chosen,
        threshold=threshold_of(asked, chosen, share_kept),
        share_kept=share_kept,
        way=design.way,
        shot=design.shot,
        split=split,
        unlabelled=design.unlabelled,
        variances=tuple(asked.variances.tolist()) if chosen == "mahalanobis" else (),
    )


def threshold_of(asked: Asked, name: ScoreName, share_kept: float) -> float:
    """The smallest score that so large a share of the queries of known classes does not exceed."""
    return threshold_that_keeps(asked.scores[name][asked.known], share_kept)


def area(asked: Asked, name: ScoreName) -> Tensor:
    """The area under the ROC curve, as numbers (task,) whose mean it is and whose interval is its own.

    ``P(s⁺ > s⁻) + P(s⁺ = s⁻) / 2`` for s⁺ of a query of no class and s⁻ of one of a class, of whatever tasks, because
    one threshold serves all. Each number is ``A_t⁺ + A_t⁻ - A``, what the task's own queries of either kind add to it
    (DeLong et al. 1988, Comparing the Areas under Two or More Correlated ROC Curves, for queries that come in tasks:
    Obuchowski 1997, Nonparametric Analysis of Clustered ROC Curve Data). Every task counts alike.
    """
    scores = asked.scores[name]
    known, unknown = asked.known, asked.asked & ~asked.known
    above = _share_below(-scores, known, -scores, unknown)
    below = _share_below(scores, unknown, scores, known)
    return above + below - above.mean()


def _share_below(points: Tensor, own: Tensor, others: Tensor, among: Tensor) -> Tensor:
    """For each task, the mean over its own points of the share of all others that lie below, a tie counting half."""
    weight = (among.double() / among.sum(1, keepdim=True).clamp(min=1))[among]
    ordered, order = others[among].sort()
    mass = torch.cat([weight.new_zeros(1), weight[order].cumsum(0)]) / weight.sum()
    flat = points.flatten()
    less = mass[torch.searchsorted(ordered, flat)]
    most = mass[torch.searchsorted(ordered, flat, right=True)]
    return _task_mean(((less + most) / 2).view_as(points), own)


def _task_mean(values: Tensor, which: Tensor) -> Tensor:
    """The mean over some queries of each task, float64 (task,)."""
    return torch.where(which, values.double(), 0).sum(1) / which.sum(1).clamp(min=1)


def evaluate_unknown(
    learner: Learner,
    source: TaskSource,
    rejection: Rejection,
    *,
    split: Split = "test",
    design: EpisodeDesign,
    episodes: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Judge a threshold on tasks some of whose queries are of no class.

    Returns:
        A dictionary ready for JSON. ``auroc`` (:func:`area`), ``fpr_at_95`` (the share of queries of no class that
        would be answered with one, if the threshold kept 95 % of the others of these very tasks), and at the threshold
        that was learned: ``kept`` and ``accuracy`` among the queries that are of a class (refused ones count as
        wrong), ``refused`` among the others; each with ``mean`` and ``ci95`` over tasks. ``accuracy_without`` is the
        accuracy, were none refused; ``auroc_by_score`` compares the scores. ``asked`` says what the queries of no class
        were: ``out_of_scope``, examples that the data set brings, or ``left_out``, of classes left out.

    Raises:
        DataError: the split has no class beside those of a task, or cannot fill the design.
    """
    variances = torch.tensor(rejection.variances, dtype=torch.float64)
    asked = ask(
        learner,
        source,
        split=split,
        design=design,
        episodes=episodes,
        seed=seed,
        variances=variances if rejection.variances else None,
        device=device,
    )
    scores = asked.scores[rejection.score]
    unknown = asked.asked & ~asked.known
    kept = scores <= rejection.threshold
    at_95 = scores <= threshold_of(asked, rejection.score, 0.95)
    tasks = {
        "auroc": area(asked, rejection.score),
        "fpr_at_95": _task_mean(at_95, unknown),
        "kept": _task_mean(kept, asked.known),
        "refused": _task_mean(~kept, unknown),
        "accuracy": _task_mean(kept & asked.right, asked.known),
        "accuracy_without": _task_mean(asked.right, asked.known),
    }
    found: dict[str, Any] = {name: summary(values) for name, values in tasks.items()}
    # Without variances from training classes the distance would take them from the tasks that it is judged by.
    fair = [name for name in SCORES if name != "mahalanobis" or rejection.variances]
    others = {name: area(asked, name).mean().item() for name in fair}
    return {
        **rejection.as_json(),
        **found,
        "auroc_by_score": others,
        "asked": "out_of_scope" if asked.out_of_scope else "left_out",
        "episodes": episodes,
    }
