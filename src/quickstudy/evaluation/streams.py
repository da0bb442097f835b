"""Scores of a learner along streams of tasks, with the memory that each task leaves to the next and without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import Split, TaskSource, World
from quickstudy.data.streams import Streams
from quickstudy.episode import Stream, tree_map
from quickstudy.evaluation.contest import Contest, Progress, answering
from quickstudy.evaluation.intervals import interval
from quickstudy.evaluation.measures import Measures, joined, measured, summaries, summary
from quickstudy.learners.base import Learner
from quickstudy.learners.streams import stream_outputs
from quickstudy.likelihood import SquaredError

STREAMS_AT_ONCE = 16
"""Streams that are scored in one piece."""


def evaluate_streams(
    learner: Learner,
    source: TaskSource,
    *,
    design: EpisodeDesign,
    positions: int,
    streams: int,
    habit: int = 0,
    split: Split = "test",
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    others: Mapping[str, Learner] | None = None,
) -> dict[str, Any]:
    """Score a learner at each position of streams, with its memory and without it on the same tasks.

    Differences are paired over streams, and intervals are those of :func:`quickstudy.evaluation.interval` over streams.
    With L the learner's mean score with memory at a position, F and A the means of the exact answers of one who forgets
    every task and of one who remembers all, the share of the gap that memory closes is ``(F - L) / (F - A)``. Its
    interval is that of ``(F - L) - share (F - A)`` over streams, divided by ``F - A``.

    Args:
        learner: what is scored.
        source: where streams are drawn from.
        design: way, shot and queries of the tasks.
        positions: tasks in a stream.
        streams: how many streams, at least 2.
        habit: as in :class:`quickstudy.data.streams.Streams`.
        split: of the source.
        seed: with the split, decides which streams.
        device: where to compute.
        progress: called with the streams done and their number.
        others: learners that answer the same streams, by name, each with its own memory if it has one: such as another
            model, or :func:`quickstudy.evaluation.ablations` of this one. Their likelihood has the same metric.

    Returns:
        A dictionary ready for JSON: ``metric, stream, streams, habit, way, shot, queries, split, seed`` and
        ``positions``, for each of which ``position``, ``with_memory`` and ``without_memory`` (mean, ci95 and, of a
        learner that says how sure it is, log_likelihood and coverage), their ``difference`` {mean, ci95} and, of a
        world, ``exact_remembering``, ``exact_forgetting`` and ``gap_closed`` {mean, ci95}, which is None where no gap
        can be told. Where there are ``others``, each position has them too: {name: {mean, ci95, difference}}, the
        difference being that of this learner with its memory from the other. Also ``last_against_first``
        {with_memory, without_memory, and others by name}, each {difference, ci95, relative}.

    Raises:
        DataError: the source cannot fill the streams.
        ValueError: fewer than 2 streams or positions; the learner has no memory; or another has other scores.
    """
    if streams < 2 or positions < 2:
        raise ValueError(
            f"Scores by position need at least 2 streams of at least 2 tasks; found {streams} of {positions}."
        )
    if not learner.has_memory:
        raise ValueError(
            "The learner has no memory: it begins every task anew, so its scores are the same at every position of a "
            "stream. Train one that carries something from task to task, such as meta_transformer."
        )
    others = others or {}
    for name, other in others.items():
        if other.likelihood.metric != learner.likelihood.metric:
            raise ValueError(
                f"The learner is scored by its {learner.likelihood.metric}, {name} by its "
                f"{other.likelihood.metric}; only learners for the same kind of answers can be compared."
            )
    drawing = Contest(source, split=split, seed=seed, device=device)

    def drawn_for(reader: Learner) -> Streams:
        return Streams(
            drawing.fed_to(reader.encoder),
            split,
            design,
            positions=positions,
            habit=habit,
            length=streams,
            seed=seed,
        )

    entrants = {"with_memory": (learner, True), "without_memory": (learner, False)}
    entrants |= {name: (other, other.has_memory) for name, other in others.items()}
    draws = {id(each): drawn_for(each) for each in (learner, *others.values())}
    parts: list[dict[str, list[Measures]]] = []
    for start in range(0, streams, STREAMS_AT_ONCE):
        which = range(start, min(start + STREAMS_AT_ONCE, streams))
        batches = {
            key: tree_map(lambda *each: torch.cat(each), *(drawn[index] for index in which))
            for key, drawn in draws.items()
        }
        measures = {
            name: _measured(each, batches[id(each)], device, memory=memory)
            for name, (each, memory) in entrants.items()
        }
        parts.append(measures | _exact(source, batches[id(learner)]))
        if progress is not None:
            progress(which.stop, streams)
    found = {
        name: [joined([part[name][at] for part in parts]) for at in range(positions)]
        for name in parts[0]
    }
    return {
        "metric": learner.likelihood.metric,
        "stream": positions,
        "streams": streams,
        "habit": habit,
        "way": design.way,
        "shot": design.shot,
        "queries": design.queries,
        "split": split,
        "seed": seed,
        "positions": [
            {"position": at + 1}
            | _position({name: each[at] for name, each in found.items()}, tuple(others))
            for at in range(positions)
        ],
        "last_against_first": {
            name: _later(found[name][0]["score"], found[name][-1]["score"]) for name in entrants
        },
    }


def _measured(
    learner: Learner, stream: Stream, device: torch.device | str, *, memory: bool
) -> list[Measures]:
    """All that is measured of a learner in some streams, each (stream,), by position."""
    with answering(learner, device):
        return [
            measured(outputs, learner.likelihood, episode)
            for episode, outputs in stream_outputs(learner, stream.to(device), memory=memory)
        ]


def _exact(source: TaskSource, stream: Stream) -> dict[str, list[Measures]]:
    """The same of the exact answers, of who remembers and of who forgets; nothing where no one knows them."""
    if not isinstance(source, World):
        return {}
    told = {
        "exact_remembering": source.exact_stream(stream),
        "exact_forgetting": tuple(map(source.exact, stream.episodes)),
    }
    return {
        name: [
            measured(answer, SquaredError(), episode)
            for answer, episode in zip(answers, stream.episodes, strict=True)
        ]
        for name, answers in told.items()
    }


def _position(measures: dict[str, Measures], others: tuple[str, ...]) -> dict[str, Any]:
    """What is said of one position."""
    own = measures["with_memory"]["score"]
    found: dict[str, Any] = {
        name: summaries(each) for name, each in measures.items() if name not in others
    }
    if others:
        found["others"] = {
            name: {
                **summaries(measures[name]),
                "difference": summary(own - measures[name]["score"]),
            }
            for name in others
        }
    found["difference"] = summary(own - measures["without_memory"]["score"])
    if "exact_remembering" in measures:
        forgetting = measures["exact_forgetting"]["score"]
        found["gap_closed"] = gap_closed(
            forgetting - own, forgetting - measures["exact_remembering"]["score"]
        )
    return found


def gap_closed(gained: Tensor, gap: Tensor) -> dict[str, float] | None:
    """The mean of what was gained over the mean of what there was to gain, each (stream,); None where that is nothing.

    >>> gap_closed(torch.tensor([0.5, 1.0, 1.5]), torch.tensor([1.0, 2.0, 3.0]))
    {'mean': 0.5, 'ci95': 0.0}
    """
    most, half = interval(gap)
    if abs(most) <= half or not most:
        return None
    share = interval(gained)[0] / most
    return {"mean": share, "ci95": interval(gained - share * gap)[1] / abs(most)}


def _later(first: Tensor, last: Tensor) -> dict[str, float]:
    """By how much the last scores of the same streams differ from the first."""
    difference, half = interval(last - first)
    start = float(first.mean())
    return {
        "difference": difference,
        "ci95": half,
        "relative": difference / start if start else 0.0,
    }
