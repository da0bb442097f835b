"""Queries that are of no class of their task: how well they are told apart, and a threshold from held-out classes.

Tasks are drawn with more classes than they will have; the support of those beyond is taken away and their queries are
asked all the same. Where a data set brings examples of no class, these are asked instead. A threshold is learned from
such tasks of the validation or training split. Those of the test split only judge it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.source import DataError, Pool, PoolSource, Split, TaskSource
from quickstudy.data.strangers import WithStrangers
from quickstudy.episode import Episode, Examples
from quickstudy.evaluation.contest import Contest
from quickstudy.evaluation.intervals import interval
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Categorical
from quickstudy.rejection import SCORES, Embedded, Rejection, ScoreName, output_scores

LEFT_OUT = 5
"""Most classes of a task that are asked for and not learned."""


def leave_out(episode: Episode, classes: int) -> tuple[Episode, Tensor]:
    """Take the support of each task's last classes away.

    Args:
        episode: of tasks that tell classes apart, which are numbered in random order.
        classes: how many of each task.

    Returns:
        The episode, in which those classes do not exist, and bool (task, query): which queries are of a class that
        does. The labels of the others are meaningless.

    >>> from quickstudy.episode import Task, collate
    >>> x, y = torch.zeros(3, 1), torch.arange(3)
    >>> left, known = leave_out(collate([Task(x, y, x, y, way=3)]), 1)
    >>> left.support.mask.tolist(), left.context.classes.tolist(), known.tolist()
    ([[True, True, False]], [[True, True]], [[True, True, False]])
    """
    ways = episode.context.classes.sum(1) - classes
    most = int(ways.max())

    def within(examples: Examples) -> Tensor:
        return examples.mask & (examples.y < ways[:, None])

    context = episode.context
    exists = torch.arange(most, device=ways.device) < ways[:, None]
    kept, known = within(episode.support), within(episode.query)
    # A label beyond the classes that exist would be out of range.
    support = episode.support._replace(y=torch.where(kept, episode.support.y, 0), mask=kept)
    query = episode.query._replace(y=torch.where(known, episode.query.y, 0))
    names = context.names[:, :most]
    return Episode(support, query, context._replace(classes=exists, names=names)), known


@dataclass
class Asked:
    """What a learner said of the queries of many tasks."""

    scores: dict[ScoreName, Tensor]
    """Of each score, (task, query)"""
    known: Tensor
    """bool (task, query), which are of a class of their task."""
    right: Tensor
    """bool (task, query), which are answered rightly, were none refused."""
    asked: Tensor
    """bool (task, query), False for padding."""
    variances: Tensor
    """Within classes, of each feature of an embedding, (width,)"""
    out_of_scope: bool = False
    """Whether the others are examples of no class that the data set brings, and not of classes left out."""


def ask(
    learner: Learner,
    source: TaskSource,
    *,
    split: Split,
    design: EpisodeDesign,
    episodes: int,
    seed: int = 0,
    variances: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Asked:
    """Ask a learner for classes that it has seen examples of, and for others.

    Args:
        learner: of classes.
        source: where tasks are drawn from.
        split: of the source.
        design: of the tasks as the learner meets them; as many classes again, at most :data:`LEFT_OUT` and as many as
            there are, are asked for beside these, or the examples of no class that the data set brings.
        episodes: how many tasks.
        seed: with the split, decides which tasks.
        variances: within training classes; by default those within the classes of these tasks.
        device: where to compute.

    Raises:
        DataError: the split has no class beside those of a task, or cannot fill the design; the learner predicts
            numbers.
    """
    if not isinstance(learner.likelihood, Categorical) or not isinstance(source, PoolSource):
        raise DataError(
            "Only a learner of classes can say that a query is of none; this one, or this source, is of numbers, or of "
            "many labels for an example, which may have none."
        )
    source.prepare(learner.encoder)
    out_of_scope = source.with_strangers(split) is not None
    if out_of_scope:
        source, beside = WithStrangers(source), 1
    else:
        beside = _left_out(source.pool(split), split, design)
    low, way = span(design.way)
    wider = EpisodeDesign(
        (low + beside, way + beside), design.shot, design.queries, design.within_group
    )
    contest = Contest(source, split=split, seed=seed, device=device)
    contest.enter("learner", learner)
    # Tasks of the entered learner hold embeddings; one that adapts its encoder reads the examples themselves.
    reader = contest.contestants["learner"].module
    assert isinstance(reader, Learner)
    parts: dict[str, list[Tensor]] = {name: [] for name in ("known", "right", "asked", *SCORES)}
    spread, free, embedded = torch.zeros(()), torch.zeros(()), []
    for each in contest.rounds(wider, episodes):
        contestant, drawn = each["learner"]
        episode, known = leave_out(drawn, beside)
        outputs = contestant.answer(episode)
        chosen = Categorical.mask(outputs, episode.context).argmax(-1)
        way = episode.context.classes.shape[1]
        learned = Embedded.of(reader.encode(episode.support.x), episode.support, way)
        queries = reader.encode(episode.query.x)
        embedded.append((learned, queries))
        within, number = Embedded.of(queries, episode.query._replace(mask=known), way).within()
        spread, free = spread + within.sum(0).cpu(), free + number.sum().cpu()
        right = known & (chosen == episode.query.y)
        found: dict[str, Tensor] = {"known": known, "right": right, "asked": episode.query.mask}
        for name, value in (found | {**output_scores(outputs, episode.context)}).items():
            parts[name].append(value.cpu())
    if variances is None:
        # With one query of each class there is nothing to see of their spread; every feature counts alike.
        variances = spread / free if free > 0 else torch.ones_like(spread)
    parts["mahalanobis"] = [
        learned.distances(queries, variances.to(queries.device)).cpu()
        for learned, queries in embedded
    ]
    whole = {name: torch.cat(each) for name, each in parts.items()}
    scores = {name: whole[name] for name in SCORES}
    return Asked(scores, whole["known"], whole["right"], whole["asked"], variances, out_of_scope)


def _left_out(pool: Pool, split: Split, design: EpisodeDesign) -> int:
    """How many classes beside those of a task are asked for.

    Raises:
        DataError: there is none.
    """
    way = span(design.way)[1]
    need = span(design.shot)[1] + design.queries
    enough = pool.enough(span(design.shot)[1], design.queries)
    available = int(enough.sum())
    if design.within_group and available:
        available = int(pool.groups[enough].bincount().max())
    beside = min(LEFT_OUT, way, available - way)
    if beside < 1:
        where = " in its largest group" if design.within_group else ""
        raise DataError(
            f"Tasks of {way} classes leave no class out: the {split} split has {available} with {need} examples or "
            f"more{where}, and at least {way + 1} are needed. Choose a smaller way, or add classes."
        )
    return beside


def fit_rejection(
    learner: Learner,
    source: TaskSource,
    *,
    design: EpisodeDesign,
    episodes: int,
    seed: int = 0,
    share_kept: float = 0.95,
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
    if not 0 < share_kept < 1:
        raise ValueError(f"The share kept must lie between 0 and 1; found {share_kept}.")
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
        variances=tuple(asked.variances.tolist()) if chosen == "mahalanobis" else (),
    )


def threshold_of(asked: Asked, name: ScoreName, share_kept: float) -> float:
    """The smallest score that so large a share of the queries of known classes does not exceed.

    Of n scores it is number ``⌈(n + 1) share⌉``, so that a further query of such tasks keeps to it as often as was said
    (Vovk et al. 2005, Algorithmic Learning in a Random World), or the largest, where n is small.
    """
    scores = asked.scores[name][asked.known].sort().values
    place = min(len(scores), -int(-(len(scores) + 1) * share_kept // 1))
    return float(scores[place - 1])


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
    found: dict[str, Any] = {
        name: dict(zip(("mean", "ci95"), interval(values), strict=True))
        for name, values in tasks.items()
    }
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
