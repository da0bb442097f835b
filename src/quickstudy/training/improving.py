"""Slow feedback: what people corrected becomes tasks, the weights take meta-steps on them, and a test decides."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.artifact import Artifact, load_artifact, save_artifact
from quickstudy.build import build_design, build_source
from quickstudy.config import RunConfig, parse_config
from quickstudy.corrections import Corrections, read_corrections
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import index_generator
from quickstudy.data.mixture import Mixed, Mixture
from quickstudy.data.source import DataError, TaskSource
from quickstudy.durable import ArtifactError
from quickstudy.episode import Examples, tree_map
from quickstudy.evaluation import Contest, answer_batch, answering, interval, t_quantile
from quickstudy.evaluation.measures import summary
from quickstudy.learners.base import Learner
from quickstudy.rejection import FACT
from quickstudy.training import Interrupted, train, training_tasks

__all__ = ["Improvement", "improve"]

STEPS = 300
SHARE = 0.5
RATE = 0.2
"""Of the rate that the artifact was trained with: its weights are good already."""

EPISODES = 600
"""Tasks of the original data, and of the held-out corrections, that the test is made on."""
TEST_SEED = 1
"""Other tasks than those that chose the artifact's weights."""

LARGEST_LOSS = 0.01
"""What may be lost on the original tasks and still be called none: so much accuracy, or this share of an error."""


class Improvement(NamedTuple):
    """What came of an attempt to improve an artifact."""

    accepted: bool
    artifact: Artifact | None
    """The new one; None where it was refused."""
    reason: str
    """Why, in a sentence with the figures."""
    figures: dict[str, Any]
    """Ready for JSON: ``parent, log_sha256, corrections, held_out, original, feedback`` and the settings. ``original``
    and ``feedback`` hold ``metric, before, after, gain {mean, ci95, low, high}``; above zero is for the better."""


def improve(
    artifact: Artifact | str | Path,
    feedback: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    steps: int = STEPS,
    share: float = SHARE,
    rate: float | None = None,
    episodes: int = EPISODES,
    seed: int = 0,
    progress: bool = True,
) -> Improvement:
    """Take meta-steps on logged feedback, and keep the new weights only if a paired test lets them.

    ``θ ← θ - α ∇_θ L(f(θ, S_t), Q_t)`` over tasks t, of which a share is made of corrected examples and the others are
    the original training tasks, against forgetting. A quarter of the corrections is held out
    (:func:`quickstudy.data.held_out.divide`). With d the gain of the new weights over the old ones on the same tasks,
    between ``low`` and ``high``, each of which a one-sided test at 95 % cannot pass, the new weights are accepted if

    - no loss is shown on the original validation classes, high ≥ 0, and a loss of a hundredth is ruled out,
      low > -0.01 (of accuracy; of an error, a hundredth of the old one); and
    - the held-out corrections are answered better, d > 0 in the mean over their classes, or over examples where their
      classes are not new. They are too few for a test to show it: of 15 classes, ten points are within chance.

    Args:
        artifact: what to improve, or its folder; it stays as it is.
        feedback: the log, as :mod:`quickstudy.feedback` writes it.
        out: the folder of the new artifact.
        data: the original training data, if they are not where the artifact's config says.
        steps: of the optimiser.
        share: chance of a training task to be made of corrections, 0 … 1.
        rate: highest learning rate; by default a fifth of what the artifact was trained with.
        episodes: tasks of each test.
        seed: decides what is held out and which tasks are drawn.
        progress: show a bar on standard error, if that is a terminal.

    Raises:
        DataError: the log or the data cannot be used, or the corrections are too few.
        ArtifactError: the artifact cannot be read, or ``out`` exists or cannot be written.
        Interrupted: Ctrl-C or SIGTERM came; nothing was written.
    """
    out = Path(out)
    if out.exists():
        raise ArtifactError(
            f"{out} exists already, which is never overwritten; choose another place."
        )
    if not 0 < share <= 1:
        raise ValueError(
            f"The share of corrected tasks must be above 0 and at most 1; found {share}."
        )
    old = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
    config = old.config if data is None else old.config.model_copy(update={"data": data})
    try:
        source = build_source(config.data)
    except DataError as error:
        if data is not None:
            raise
        raise DataError(
            f"The original tasks guard what the artifact has learned, and their data are not at hand ({error}) Name "
            "data in their place with --data, such as --data short_texts for a model of texts."
        ) from error
    found = read_corrections(old, feedback, source, seed=seed)
    rate = rate or RATE * config.training.rate
    run = _shortened(config, steps=steps, rate=rate, seed=seed)
    original = training_tasks(config, source, old.learner)
    mixed: TaskSource = found.tasks
    if share < 1:
        parts = [Mixed("original", 1 - share, original), Mixed("feedback", share, found.tasks)]
        mixed = Mixture(parts)
    with tempfile.TemporaryDirectory(prefix="quickstudy-improve-") as folder:
        try:
            new = train(run, folder, progress=progress, start=old.learner, source=mixed).learner
        except Interrupted as stopped:
            what = "The improvement was stopped, and nothing was written."
            raise Interrupted(what, stopped.signal) from None
    figures: dict[str, Any] = {
        "parent": old.id,
        "log_sha256": found.log_sha256,
        "corrections": found.count,
        "tasks": found.task_count,
        "held_out": found.held_out,
        "settings": {"steps": steps, "share": share, "rate": rate, "seed": seed},
        "original": _on_original(old.learner, new, source, config, episodes),
        "feedback": _on_corrections(old.learner, new, found, config, episodes),
    }
    accepted, reason = _verdict(figures)
    figures |= {"accepted": accepted, "reason": reason}
    if not accepted:
        return Improvement(False, None, reason, figures)
    facts = {key: value for key, value in old.facts.items() if key != FACT}
    scores = {"validation": _score(figures["original"], config)}
    kept = save_artifact(out, new, config, scores, facts=facts | {"improvement": figures})
    return Improvement(True, kept, reason, figures)


def _shortened(config: RunConfig, *, steps: int, rate: float, seed: int) -> RunConfig:
    """The run that improves: as the artifact was trained, but short, in one process and without choosing weights.

    There is one validation, behind the last step, so what is held out has no say before the test.
    """
    values = config.model_dump()
    values["training"] |= {
        "steps": steps, "rate": rate, "seed": seed, "minutes": None, "patience": 0,
        "warmup": min(config.training.warmup, steps // 10), "measure_tasks": False,
        "devices": 1, "nodes": 1, "strategy": "auto", "logger": "csv",
    }  # fmt: skip
    values["validation"] |= {"every": steps, "episodes": 2}
    return parse_config(values)


def _score(original: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """The score on the original validation tasks, as a training notes it."""
    part = config.validation
    return {
        "metric": original["metric"], **original["after"], "episodes": original["count"],
        "way": part.way, "shot": part.shot, "queries": part.queries,
        "within_group": part.within_group, "split": "validation", "inductive": True,
    }  # fmt: skip


def _on_original(
    old: Learner, new: Learner, source: TaskSource, config: RunConfig, episodes: int
) -> dict[str, Any]:
    """Both on the same tasks of the original validation classes."""
    contest = Contest(source, split="validation", seed=TEST_SEED)
    contest.enter("before", old)
    contest.enter("after", new)
    design = build_design(config.validation, source, "validation")
    scores = contest.scores(design, episodes)
    return _compared(scores["before"], scores["after"], old) | {"over": "tasks"}


def _on_corrections(
    old: Learner, new: Learner, found: Corrections, config: RunConfig, episodes: int
) -> dict[str, Any]:
    """Both on the same tasks of what was held out, each example or class counting once."""
    part, usual = found.tasks.drawn["validation"].pool, config.validation
    design = EpisodeDesign(usual.way or usual.most_way, usual.shot, usual.queries or 1)
    design = found.tasks.within("validation", design)
    learners = {"before": old, "after": new}
    sums = {name: torch.zeros(int(part.counts.sum()), dtype=torch.float64) for name in learners}
    times = torch.zeros_like(sums["before"])
    for index in range(episodes):
        generator = index_generator(TEST_SEED, "validation", index)
        episode, rows = found.tasks.asked("validation", design, tasks=1, generator=generator)
        there = rows[episode.query.mask]
        times.index_add_(0, there, torch.ones_like(there, dtype=torch.float64))
        for name, learner in learners.items():
            with answering(learner):
                each = _score_of_each(learner, answer_batch(learner, episode), episode)
            sums[name].index_add_(0, there, each[episode.query.mask].double())
    seen = times > 0
    means = {name: each[seen] / times[seen] for name, each in sums.items()}
    if found.new_classes:
        means = {name: _by_class(each, part.labels[seen]) for name, each in means.items()}
    over = "classes" if found.new_classes else "examples"
    return _compared(means["before"], means["after"], old) | {"over": over}


def _score_of_each(learner: Learner, outputs: Tensor, episode: Any) -> Tensor:
    """The metric of each query, (task, query): each is made a task of its own."""
    tasks, queries = episode.query.mask.shape
    alone = Examples(
        x=torch.zeros(tasks * queries, 1, 0),
        y=episode.query.y.flatten(0, 1)[:, None],
        mask=torch.ones(tasks * queries, 1, dtype=torch.bool),
    )
    context = tree_map(lambda leaf: leaf.repeat_interleave(queries, 0), episode.context)
    outputs = tree_map(lambda leaf: leaf.flatten(0, 1)[:, None], outputs)
    return learner.likelihood.task_score(outputs, alone, context).view(tasks, queries)


def _by_class(values: Tensor, labels: Tensor) -> Tensor:
    """The mean of each class."""
    return torch.stack([values[labels == label].mean() for label in labels.unique()])


def _compared(before: Tensor, after: Tensor, learner: Learner) -> dict[str, Any]:
    """What two learners reach on the same tasks, (task,), and by how much the second is better."""
    metric = learner.likelihood.metric
    better = after - before if metric == "accuracy" else before - after
    mean, ci95 = interval(better)
    one_sided = ci95 * t_quantile(len(better) - 1, 0.9) / t_quantile(len(better) - 1)
    pairs = {"before": before, "after": after}
    return {
        "metric": metric,
        "count": len(before),
        **{name: summary(each) for name, each in pairs.items()},
        "gain": {"mean": mean, "ci95": ci95, "low": mean - one_sided, "high": mean + one_sided},
    }


def _verdict(figures: dict[str, Any]) -> tuple[bool, str]:
    """Whether the new weights are accepted, and why."""
    original, feedback = figures["original"], figures["feedback"]
    low, high = original["gain"]["low"], original["gain"]["high"]
    scale = 1.0 if original["metric"] == "accuracy" else original["before"]["mean"]
    no_loss = high >= 0 and low > -LARGEST_LOSS * scale
    gain = feedback["gain"]["mean"] > 0
    faults = []
    if not no_loss:
        faults.append(
            "a loss on the original tasks is shown" if high < 0 else
            "a loss on the original tasks cannot be ruled out"
        )  # fmt: skip
    if not gain:
        faults.append("held-out corrections are not answered better")
    said = (
        f"original tasks {_told(original)} over {original['count']} tasks; held-out corrections {_told(feedback)} over "
        f"{feedback['count']} {feedback['over']}"
    )
    if faults:
        return False, f"The new weights are refused, since {' and '.join(faults)}: {said}."
    return True, f"The new weights are accepted: {said}."


def _told(part: dict[str, Any]) -> str:
    """A comparison in words."""
    before, after, gain = part["before"]["mean"], part["after"]["mean"], part["gain"]
    if part["metric"] == "accuracy":
        return (
            f"{100 * before:.1f} % → {100 * after:.1f} % right (gain {100 * gain['mean']:+.2f} ± "
            f"{100 * gain['ci95']:.2f} points)"
        )
    return f"error {before:.4g} → {after:.4g} (gain {gain['mean']:+.3g} ± {gain['ci95']:.2g})"
