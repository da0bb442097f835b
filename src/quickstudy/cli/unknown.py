"""``evaluate --unknown``: how well a model tells what is of no class, by a threshold learned from held-out classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quickstudy.cli.console import percent, print_table, say
from quickstudy.cli.fitting import fitting_source

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact
    from quickstudy.data.design import EpisodeDesign
    from quickstudy.data.source import Split, TaskSource


def teacher_of(model: Artifact, trained_on: str, judged_by: TaskSource) -> TaskSource:
    """The data whose classes teach a threshold: what the model was trained on, or else what it is judged by.

    Args:
        model: of classes.
        trained_on: the spec of its training data, which need not be at hand.
        judged_by: data that is.
    """
    from quickstudy.data.source import DataError

    try:
        return fitting_source(model, trained_on)
    except DataError as error:
        say(
            "Note: The threshold is learned from other classes of the data that it is judged by, because what the "
            f"model was trained on is not at hand. {error}"
        )
        return judged_by


def score_unknown(
    model: Artifact,
    source: TaskSource,
    design: EpisodeDesign,
    *,
    split: Split,
    seed: int,
    episodes: int,
    learn_from: TaskSource,
) -> dict[str, Any]:
    """Learn a threshold, keep it in the model, and judge it on tasks of a split.

    Args:
        model: of classes.
        source: that is judged by.
        design: of its tasks.
        split: of the source.
        seed: which tasks are drawn.
        episodes: how many.
        learn_from: the data whose validation classes teach the threshold (:func:`teacher_of`), or whose training
            classes do where the validation split itself is scored.
    """
    from quickstudy.artifact import keep_rejection
    from quickstudy.evaluation.unknown import evaluate_unknown, fit_rejection

    teacher: Split = "train" if split == "validation" else "validation"
    say(f"Learning which inputs are of no class, from tasks of the {teacher} split.")
    rejection = fit_rejection(
        model.learner, learn_from, design=design, episodes=episodes, seed=seed, split=teacher
    )
    keep_rejection(model, rejection)
    return evaluate_unknown(
        model.learner,
        source,
        rejection,
        split=split,
        design=design,
        episodes=episodes,
        seed=seed,
    )


def print_unknown(found: dict[str, Any]) -> None:
    """What :func:`score_unknown` found, for a person."""
    rows = [
        ["told apart from inputs of the classes (AUROC)", "auroc"],
        ["taken for a class, if 95 % of the others are kept", "fpr_at_95"],
        ["inputs of no class that are refused", "refused"],
        ["inputs of a class that are kept", "kept"],
        ["right answers to inputs of a class", "accuracy"],
        ["the same, were none refused", "accuracy_without"],
    ]
    print_table(
        [
            "inputs of no class",
            f"threshold on {found['score']}, learned from the {found['split']} split",
        ],
        [[words, percent(found[key]["mean"], found[key]["ci95"])] for words, key in rows],
    )
