"""What ``evaluate --stream`` says: scores by position in a stream, with memory and without."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from quickstudy.cli.console import percent, print_result, print_table, progress_bar
from quickstudy.cli.errors import WrongUse

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact
    from quickstudy.data.design import EpisodeDesign
    from quickstudy.data.source import Split, TaskSource
    from quickstudy.learners.base import Learner


def score_streams(
    model: Artifact,
    source: TaskSource,
    design: EpisodeDesign,
    *,
    positions: int,
    episodes: int,
    split: Split,
    seed: int,
    rival: Artifact | None = None,
    plainer: Mapping[str, Learner] = MappingProxyType({}),
) -> dict[str, Any]:
    """The scores of a model by position, behind a progress bar; ``episodes`` are shared out among streams.

    Args:
        model: that is scored.
        source: of the streams.
        design: of their tasks.
        positions: tasks in a stream.
        episodes: tasks in all.
        split: of the source.
        seed: with the split, decides which streams.
        rival: another model on the same streams.
        plainer: the model without one of its parts at a time, by name.

    Raises:
        WrongUse: the model has no memory, or the rival gives answers of another kind.
    """
    from quickstudy.evaluation.streams import evaluate_streams

    if not model.learner.has_memory:
        raise WrongUse(
            f"The model {model.path} has no memory: its learner {model.config.learner['name']} begins every task anew, "
            "so its scores are the same at every position. Train meta_transformer with --set "
            f"episode.stream={positions}."
        )
    others = dict(plainer)
    if rival is not None:
        own, other = model.learner.likelihood.metric, rival.learner.likelihood.metric
        if own != other:
            raise WrongUse(
                f"{model.path} is scored by its {own}, {rival.path} by its {other}; --against compares models with "
                "answers of one kind."
            )
        others["against"] = rival.learner
    with progress_bar(f"Scoring streams of {positions} tasks") as advance:
        return evaluate_streams(
            model.learner,
            source,
            design=design,
            positions=positions,
            streams=max(2, episodes // positions),
            habit=model.config.episode.habit,
            split=split,
            seed=seed,
            progress=advance,
            others=others,
        )


def print_streams(scores: dict[str, Any]) -> None:
    """A row for each position of the stream, and one for each other learner."""
    from quickstudy.cli.evaluate import plain
    from quickstudy.report.words import METHODS, some

    number = percent if scores["metric"] == "accuracy" else plain

    def cell(found: dict[str, float] | None) -> str:
        return "" if found is None else number(found["mean"], found["ci95"])

    heads = ["task", "with memory", "without", "difference"]
    exact = "exact_remembering" in scores["positions"][0]
    if exact:
        heads += ["exact, remembering", "exact, forgetting", "gap closed"]
    rows = []
    for each in scores["positions"]:
        row = [str(each["position"]), cell(each["with_memory"]), cell(each["without_memory"])]
        row.append(cell(each["difference"]))
        if exact:
            row += [cell(each["exact_remembering"]), cell(each["exact_forgetting"])]
            closed = each["gap_closed"]
            row.append("" if closed is None else percent(closed["mean"], closed["ci95"]))
        rows.append(row)
    way = f"{some(scores['way'])}-way " if scores["metric"] == "accuracy" else ""
    habit = f" of a habit of {scores['habit']}" if scores["habit"] else ""
    print_table(
        heads,
        rows,
        title=f"{scores['metric'].replace('_', ' ')} (95 % interval): {way}{some(scores['shot'])}-shot, "
        f"{scores['streams']} streams of {scores['stream']} tasks{habit}, {scores['split']} split",
    )
    first, last = (scores["positions"][at].get("others", {}) for at in (0, -1))
    names = METHODS | {"against": scores.get("against", "")}
    if last:
        print_table(
            ["on the same streams", "task 1", f"task {scores['stream']}", "this model with memory"],
            [
                [names[name], cell(first[name]), cell(each), cell(each["difference"])]
                for name, each in last.items()
            ],
            title=f"The last column is the difference of this model with its memory at task {scores['stream']}",
        )
    said = []
    for name in ("with_memory", "without_memory"):
        found = scores["last_against_first"][name]
        change = f"{100 * found['relative']:+.0f} %"
        said.append(
            f"{name.replace('_', ' ')} by {number(found['difference'], found['ci95'])} ({change})"
        )
    print_result(
        f"\nFrom the first task to task {scores['stream']}, the score changes {', and '.join(said)}."
    )
