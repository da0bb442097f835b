"""Scores of learners on tasks they have not met: intervals over tasks, beside baselines on the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from quickstudy.data.design import EpisodeDesign, check_design, folds_in, span
from quickstudy.data.draw import Episodes
from quickstudy.data.known import DensityWorld
from quickstudy.data.source import DataError, PoolSource, Prior, Split, TaskSource
from quickstudy.evaluation.ablations import ablations
from quickstudy.evaluation.calibration import Calibration, calibrate, confusion
from quickstudy.evaluation.contest import (
    Contest,
    Progress,
    answer_batch,
    answering,
    is_inductive,
    score_tasks,
)
from quickstudy.evaluation.entrants import contest_of, starting_encoder, untrained_copy
from quickstudy.evaluation.intervals import interval, t_quantile
from quickstudy.evaluation.measures import LABEL_MEASURES, below_exact, summaries, summary
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Categorical, JointGaussian
from quickstudy.nn.encoders import Encoder

__all__ = [
    "Calibration", "Contest", "ablations", "answer_batch", "answering", "calibrate", "calibration", "confusion",
    "contest_of", "evaluate", "interval", "is_inductive", "score_tasks", "scores_by_shot", "starting_encoder",
    "t_quantile", "untrained_copy",
]  # fmt: skip


PROBED = 5
"""Most queries of a class by which it is found out whether queries inform one another."""


def evaluate(
    learner: Learner,
    source: TaskSource,
    *,
    split: Split = "test",
    design: EpisodeDesign,
    episodes: int,
    seed: int = 0,
    against: Learner | None = None,
    against_name: str = "",
    baselines: bool = True,
    untrained: Callable[[], Encoder] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    contest: Contest | None = None,
    ablate: bool = False,
) -> dict[str, Any]:
    """Score a learner on tasks drawn from one split.

    Every score is a mean over tasks with the half-width of its 95 % interval over tasks (:func:`interval`). All
    methods answer the same tasks: task i depends on ``seed``, ``split`` and i only.

    Args:
        learner: what is scored.
        source: where tasks are drawn from.
        split: of the source.
        design: way, shot and queries of the tasks.
        episodes: how many tasks, at least 2; of a data set that comes with its tasks, no more than it has.
        seed: with the split, decides which tasks.
        against: another learner, compared task by task.
        against_name: what to call it.
        baselines: also score the nearest class mean on raw inputs (token counts for text), on the encoder before any
            meta-training, and a linear head fitted to the trained encoder's features of the support; where values are
            predicted, the mean of the support's values, ridge regression on raw inputs, and the world's exact answer.
        untrained: builds the encoder as it was before meta-training; by default a copy with fresh random weights.
        device: where to compute.
        progress: called with the tasks done and their number.
        ablate: also score the learner without one of its parts at a time (:func:`ablations`).
        contest: what :func:`contest_of` made of the same arguments for an earlier design, so that no example is
            encoded again; it says itself who else takes part.

    Returns:
        A dictionary ready for JSON: ``metric, mean, ci95, episodes, way, shot, queries, split, seed, within_group,
        unlabelled, inductive, before_adaptation {mean, ci95}, baselines {name: {mean, ci95}}, paired {against,
        difference, ci95}`` (or None); where it was asked for, ``ablations {name: {mean, ci95, difference {mean,
        ci95}}}``, the difference being that of the whole learner from it on the same tasks. Of a learner that says how
        sure it is of numbers, moreover ``log_likelihood {mean, ci95}``, in nats for each query; ``coverage {mean,
        ci95}``, the share of values that its 95 % intervals hold; and ``below_exact {mean, ci95}``, by how many nats
        it falls short of the Bayes-optimal answer on the same tasks, None where that is unknown. Whoever else says how
        sure they are has log_likelihood and coverage beside mean and ci95. Where an example may have any number of
        labels, all have ``macro_f1``, ``exact_match`` and ``average_precision``, each with mean and ci95; ``support``
        is ``folds`` where the shot counts these. Beside a learner whose likelihood is of all queries together, the
        exact answer's is so too, where the world knows it. In a world that knows how likely classes are,
        log_likelihood and below_exact are of classes.

    Where tasks bring examples without a label, ``ablations`` has the learner ``without_unlabelled`` too.

    Raises:
        DataError: the split cannot fill the design; or tasks have no examples, and the learner reads no names of
            classes or these have none.
        ValueError: fewer than 2 episodes, or a contest of another split or seed.
    """
    if episodes < 2:
        raise ValueError(f"An interval over tasks needs at least 2 episodes; found {episodes}.")
    if contest is None:
        contest = contest_of(
            learner,
            source,
            split=split,
            seed=seed,
            against=against,
            baselines=baselines,
            untrained=untrained,
            device=device,
            ablate=ablate,
            unlabelled=design.unlabelled > 0,
        )
    elif (contest.split, contest.seed) != (split, seed):
        raise ValueError(
            f"The contest is of split {contest.split!r} and seed {contest.seed}, but {split!r} and {seed} were asked "
            "for; make another one."
        )
    players = [
        contest.contestants[name] for name in ("learner", "against") if name in contest.contestants
    ]
    if not span(design.shot)[1] and not all(each.bare for each in players):
        raise DataError(
            "Without examples a task is known by the names of its classes alone, and a learner reads none, or this "
            "data set has none; ask for a shot of at least 1, or train the learner meta_transformer with names=true."
        )
    tasks = contest.read_by(learner.encoder)
    few = replace(design, queries=min(design.queries, PROBED))
    probe = Episodes(tasks, split, few, tasks=2, seed=seed)[0]
    found = contest.measures(design, episodes, progress)
    own, before = found.pop("learner"), found.pop("before_adaptation")
    mean, ci95 = interval(own["score"])
    episodes = len(own["score"])
    without = {name: found.pop(name) for name in contest.ablations}
    paired: dict[str, Any] | None = None
    if "against" in found:
        other = found.pop("against")
        difference, half = interval(own["score"] - other["score"])
        paired = {"against": against_name, "difference": difference, "ci95": half}
        if "log_likelihood" in own and "log_likelihood" in other:
            paired["log_likelihood"] = summary(own["log_likelihood"] - other["log_likelihood"])
    sureness: dict[str, Any] = {}
    if "log_likelihood" in own:
        together = isinstance(learner.likelihood, JointGaussian)
        known = not together or isinstance(source, DensityWorld)
        short = below_exact(own, found.get("exact", {})) if known else None
        names = [name for name in ("log_likelihood", "coverage") if name in own]
        sureness = {name: summary(own[name]) for name in names} | {"below_exact": short}
    parts: dict[str, Any] = {name: summary(own[name]) for name in LABEL_MEASURES if name in own}
    if folds_in(tasks.pool(split)) if isinstance(tasks, PoolSource) else 0:
        parts["support"] = "folds"
    if without:
        parts["ablations"] = {
            name: {**summaries(each), "difference": summary(own["score"] - each["score"])}
            for name, each in without.items()
        }
    return {
        "metric": learner.likelihood.metric,
        "mean": mean,
        "ci95": ci95,
        "episodes": episodes,
        "way": design.way,
        "shot": design.shot,
        "queries": design.queries,
        "split": split,
        "seed": seed,
        "within_group": design.within_group,
        "unlabelled": design.unlabelled,
        "inductive": is_inductive(learner, probe, device=device),
        "before_adaptation": summaries(before),
        "baselines": {name: summaries(each) for name, each in found.items()},
        "paired": paired,
        **parts,
        **sureness,
    }


def scores_by_shot(
    contest: Contest,
    design: EpisodeDesign,
    *,
    episodes: int,
    shots: Sequence[int] = (0, 1, 2, 5, 10),
    queries: int | None = None,
) -> dict[int, dict[str, dict[str, Any]]]:
    """Scores of each contestant for each shot that the data allow: shot → name → mean and ci95, and other measures.

    Args:
        contest: who is scored, and on what.
        design: way and group of the tasks.
        episodes: tasks for each shot.
        shots: support examples of a class; 0 only where the learner knows classes by their names.
        queries: most query examples of a class, the same for every shot; by default 5 of a class, and of a world as
            many as the design has.
    """
    found = {}
    source = contest.source
    most = queries or (design.queries if isinstance(source, Prior) else 5)
    learner = contest.contestants["learner"]
    named = not learner.likelihood.of_values and learner.bare
    for shot in shots:
        if not shot and not named:
            continue
        each = replace(design, shot=shot, queries=min(most, design.queries))
        try:
            check_design(source, contest.split, each)
        except DataError:
            continue
        measures = contest.measures(each, episodes)
        found[shot] = {name: summaries(measure) for name, measure in measures.items()}
    return found


def calibration(
    contest: Contest, design: EpisodeDesign, *, episodes: int, name: str = "learner", bins: int = 10
) -> Calibration:
    """The calibration of one contestant over the queries of many tasks.

    Raises:
        DataError: the split cannot fill the design.
    """
    confidences, rights = [], []
    alone = Contest(contest.source, split=contest.split, seed=contest.seed, device=contest.device)
    alone.contestants = {name: contest.contestants[name]}
    for each in alone.rounds(design, episodes):
        contestant, batch = each[name]
        likelihood = cast(Categorical, contestant.likelihood)
        outputs = contestant.answer(batch)
        confidence, answer = likelihood.probabilities(outputs, batch.context).max(-1)
        confidences.append(confidence[batch.query.mask].cpu())
        rights.append((answer == batch.query.y)[batch.query.mask].cpu())
    return calibrate(torch.cat(confidences), torch.cat(rights), bins=bins)
