"""Reports: one HTML file that says how well an artifact learns, shows it at work, and how to make it again."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quickstudy.data.design import sized
from quickstudy.data.known import ClassWorld
from quickstudy.data.source import PoolSource, Split, TaskSource, World
from quickstudy.evaluation import Contest, calibration, contest_of, scores_by_shot
from quickstudy.machine import hardware, versions
from quickstudy.report import attention, page, words
from quickstudy.report.curves import learning_curves
from quickstudy.report.drawn import design_of, draw_task
from quickstudy.report.functions import draw_function, drawn_function, likelihoods_by_shot
from quickstudy.report.streams import by_position, scored_along

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact

__all__ = ["write_report"]


def write_report(
    path: str | Path,
    *,
    artifact: Artifact,
    evaluations: Sequence[Mapping[str, Any]] = (),
    streams: Mapping[str, Any] | None = None,
    run: str | Path | None = None,
    source: TaskSource | None = None,
    contest: Contest | None = None,
    episodes: int = 100,
    device: torch.device | str = "cpu",
) -> None:
    """Write one self-contained HTML file; nothing in it is loaded from elsewhere and nothing runs.

    Args:
        path: the file to write, whole or not at all.
        artifact: what the report is about.
        evaluations: results of :func:`quickstudy.evaluation.evaluate`; the first one decides which tasks the pictures
            and charts are made of.
        streams: a result of :func:`quickstudy.evaluation.streams.evaluate_streams`; without evaluations the report is
            of these alone. A model that was trained on streams is scored on some anyhow.
        run: the folder of the training run, whose ``metrics.csv`` gives the learning curve.
        source: where the tasks come from; by default the data that the artifact was trained on.
        contest: of the same artifact, source, split and seed as the first evaluation, so that no example is encoded
            again; by default a new one.
        episodes: tasks for each point of the charts.
        device: where to compute.

    Raises:
        ValueError: neither an evaluation nor streams were given.
        OSError: the file cannot be written; an older one in its place survives.
    """
    from quickstudy.build import build_source
    from quickstudy.config import config_to_yaml
    from quickstudy.durable import write_file

    if not evaluations and streams is None:
        raise ValueError("A report needs at least one evaluation, or streams; none was given.")
    evaluations = [each for one in evaluations for each in (one, *one.get("sources", {}).values())]
    config, learner = artifact.config, artifact.learner
    sections, lead = [], ""
    if evaluations:
        first = evaluations[0]
        lead = words.headline(first)
        source = source or build_source(config.data)
        sections.append(page.score_cards(evaluations))
        sections += _at_work(artifact, source, first, contest, episodes, device)
        if streams is None:
            streams = scored_along(
                artifact, source, first, streams=max(2, episodes // 3), device=device
            )
    if streams is not None:
        sections.append(by_position(streams))
        lead = lead or words.streams_headline(streams)
    if run is not None:
        curves = learning_curves(Path(run) / "metrics.csv")
        sections.append(page.learning(curves, learner.likelihood.metric))
    seeds = {f"evaluation {words.design_name(each)}": str(each["seed"]) for each in evaluations}
    if streams is not None:
        seeds["streams"] = str(streams["seed"])
    groups = {
        "Seeds": {"training": str(config.training.seed), **seeds},
        "Versions": versions(),
        "This machine": hardware(),
    }
    sections.append(page.run_facts(groups, config_to_yaml(config)))
    write_file(
        Path(path),
        page.page(
            title=f"{config.learner['name']} on {config.data}",
            eyebrow="quickstudy report",
            lead=lead,
            sections=sections,
            footer=f"<p>Artifact {html.escape(artifact.id)}, {_parameters(artifact):,} parameters.</p>",
        ).encode(),
    )


def _parameters(artifact: Artifact) -> int:
    return sum(parameter.numel() for parameter in artifact.learner.parameters())


def _at_work(
    artifact: Artifact,
    source: TaskSource,
    scores: Mapping[str, Any],
    contest: Contest | None,
    episodes: int,
    device: torch.device | str,
) -> list[str]:
    """The sections that show a learner at work on tasks like those of an evaluation."""
    from quickstudy.build import build_encoder

    if source.sources:
        sections = []
        for name, each in scores.get("sources", {}).items():
            sections.append(page.section(name, "The tasks of this source by themselves.", ""))
            sections += _at_work(artifact, source.sources[name], each, None, episodes, device)
        return sections
    split: Split = scores["split"]
    seed, design = int(scores["seed"]), design_of(scores)
    if contest is None:
        contest = contest_of(
            artifact.learner,
            source,
            split=split,
            seed=seed,
            untrained=lambda: build_encoder(artifact.config.encoder),
            device=device,
        )
    by_shot = scores_by_shot(contest, design, episodes=episodes)
    if isinstance(source, World):
        function = draw_function(
            artifact.learner, source, design, split=split, seed=seed, device=device
        )
        shots = page.errors_by_shot(by_shot, episodes, artifact.learner.likelihood.metric)
        shots += likelihoods_by_shot(by_shot, episodes)
        return [
            page.section(
                "More examples, and one task",
                "What a few more examples are worth, and what the model makes of one task.",
                f'<div class="cards">{shots}{drawn_function(function, seed)}{attention.of_function(function)}</div>',
            )
        ]
    if isinstance(source, ClassWorld):
        found = calibration(contest, design, episodes=episodes)
        way, nats = sized(scores["way"], "way"), likelihoods_by_shot(by_shot, episodes)
        return [page.shots_and_calibration(by_shot, found, way, episodes, more=nats)]
    if not isinstance(source, PoolSource):
        return []  # invented tasks without an exact answer: there is nothing to hold a drawing against
    found = calibration(contest, design, episodes=episodes)
    drawn = draw_task(artifact.learner, source, design, split=split, seed=seed, device=device)
    way = sized(scores["way"], "way") + (" within a group" if design.within_group else "")
    return [
        page.shots_and_calibration(by_shot, found, way, episodes),
        page.drawn_task(drawn, source.kind, seed),
        attention.of_classes(drawn),
        page.confusions(drawn, source.kind),
    ]
