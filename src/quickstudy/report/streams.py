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


def along_streams(
    artifact: Artifact,
    source: TaskSource,
    scores: Mapping[str, Any],
    *,
    streams: int,
    device: torch.device | str = "cpu",
) -> list[str]:
    """The section with the score by position, of a model with a memory that was trained on streams; else nothing.

    Args:
        artifact: what the report is about.
        source: where its tasks come from.
        scores: an evaluation, which decides split, seed and the shape of the tasks.
        streams: how many to draw.
        device: where to compute.
    """
    episode, learner = artifact.config.episode, artifact.learner
    if episode.stream < 2 or not learner.has_memory:
        return []
    found = evaluate_streams(
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
    return [by_position(found)]


def by_position(found: Mapping[str, Any]) -> str:
    """The section with the chart, from what :func:`quickstudy.evaluation.streams.evaluate_streams` found."""
    metric, positions = found["metric"], found["positions"]
    names = [name for name in LINES if name in positions[0]]
    rows = {each["position"]: {name: each[name] for name in names} for each in positions}
    chart = figures.shot_chart(rows, names, metric, label="task of the stream", size=figures.WIDE)
    legend = "".join(
        f'<li style="--swatch:var(--{figures.series(i)})">{words.method(name)}</li>'
        for i, name in enumerate(names)
    )
    change = found["last_against_first"]["with_memory"]
    caption = (
        f"{escape(metric.replace('_', ' ').capitalize())} on {found['streams']} streams of {found['stream']} tasks; "
        f"bars are 95 % intervals over streams. With memory, the last task differs from the first by "
        f"{words.number(change['difference'], metric)} {words.half_width(change['ci95'], metric)}."
    )
    return page.section(
        "Task after task",
        "What the memory of earlier tasks is worth: the same tasks, answered with it and without.",
        f'<div class="cards"><figure class="card"><h3>By position in the stream</h3><figcaption>{caption}</figcaption>'
        f'{chart}<ul class="legend">{legend}</ul></figure></div>',
    )
