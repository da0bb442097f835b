"""How a model fares along streams of tasks: its score at each position, with its memory and without."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from quickstudy.data.source import TaskSource
from quickstudy.evaluation.streams import evaluate_streams
from quickstudy.report import figures, page, words
from quickstudy.report.drawn import design_of

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact

LINES = ("with_memory", "without_memory", "exact_remembering", "exact_forgetting")
AT_ONCE = 4
"""Others in one chart; there are no more colours."""


def scored_along(
    artifact: Artifact,
    source: TaskSource,
    scores: Mapping[str, Any],
    *,
    streams: int,
    device: torch.device | str = "cpu",
) -> dict[str, Any] | None:
    """The scores by position of a model with a memory that was trained on streams; of others nothing.

    Args:
        artifact: what the report is about.
        source: where its tasks come from.
        scores: an evaluation, which decides split, seed and the shape of the tasks.
        streams: how many to draw.
        device: where to compute.
    """
    episode, learner = artifact.config.episode, artifact.learner
    if episode.stream < 2 or not learner.has_memory:
        return None
    return evaluate_streams(
        learner,
        source,
        design=design_of(scores),
        positions=max(episode.stream, artifact.config.validation_stream),
        streams=streams,
        habit=episode.habit,
        split=scores["split"],
        seed=int(scores["seed"]),
        device=device,
    )


def by_position(found: Mapping[str, Any]) -> str:
    """The section with the charts, from what :func:`quickstudy.evaluation.streams.evaluate_streams` found."""
    metric, positions = found["metric"], found["positions"]
    own = {each["position"]: each for each in positions}
    change = found["last_against_first"]["with_memory"]
    caption = (
        f"{escape(metric.replace('_', ' ').capitalize())} on {found['streams']} streams of {found['stream']} tasks; "
        f"bars are 95 % intervals over streams. With memory, the last task differs from the first by "
        f"{words.number(change['difference'], metric)} {words.half_width(change['ci95'], metric)}."
    )
    names = [name for name in LINES if name in positions[0]]
    cards = _card("By position in the stream", caption, own, names, metric)
    with_others = {at: each | each.get("others", {}) for at, each in own.items()}
    others = list(positions[0].get("others", {}))
    for start in range(0, len(others), AT_ONCE):
        some = others[start : start + AT_ONCE]
        caption = "The same streams, answered by others beside this model with its memory."
        if "against" in some and "against" in found:
            caption += f" The other model is {escape(found['against'])}."
        cards += _card("Beside others", caption, with_others, ["with_memory", *some], metric)
    return page.section(
        "Task after task",
        "What the memory of earlier tasks is worth: the same tasks, answered with it and without.",
        f'<div class="cards">{cards}</div>',
    )


def _card(
    title: str, caption: str, rows: Mapping[int, Mapping[str, Any]], names: list[str], metric: str
) -> str:
    """A chart with a line for each name."""
    chart = figures.shot_chart(rows, names, metric, label="task of the stream", size=figures.WIDE)
    legend = "".join(
        f'<li style="--swatch:var(--{figures.series(i)})">{words.method(name)}</li>'
        for i, name in enumerate(names)
    )
    return (
        f'<figure class="card"><h3>{title}</h3><figcaption>{caption}</figcaption>'
        f'{chart}<ul class="legend">{legend}</ul></figure>'
    )
