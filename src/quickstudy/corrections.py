"""From a log of feedback to tasks that a learner can be trained and judged on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.artifact import Artifact
from quickstudy.data.calling import words_of
from quickstudy.data.corrected import CorrectedTasks
from quickstudy.data.decoding import decode
from quickstudy.data.draw import Augment
from quickstudy.data.features import with_features
from quickstudy.data.held_out import HeldOut, divide
from quickstudy.data.labelled import Kind
from quickstudy.data.source import DataError, DataNote, Pool, PoolSource, Split, TaskSource
from quickstudy.data.splitting import LabelledClass, pool_of
from quickstudy.episode import Inputs, tree_map
from quickstudy.feedback import Event, kept_image, read_feedback
from quickstudy.likelihood import Bernoulli, Categorical


@dataclass(frozen=True)
class Corrections:
    """What a log of feedback teaches one artifact.

    Args:
        tasks: to train on, and held out for validation.
        held_out: what is new in the latter.
        new_classes: whether nobody who learned from the former has met a class of the latter.
        count: corrections that are used.
        task_count: tasks that they are of.
        log_sha256: of the log.
    """

    tasks: CorrectedTasks
    held_out: HeldOut
    new_classes: bool
    count: int
    task_count: int
    log_sha256: str


def read_corrections(
    artifact: Artifact, log: str | Path, source: TaskSource, *, seed: int
) -> Corrections:
    """The corrections of a log as tasks for an artifact's learner, some classes held out.

    Args:
        artifact: whose encoder reads the examples.
        log: of feedback.
        source: of the original training tasks; training examples are varied as it varies its own.
        seed: decides what is held out.

    Raises:
        DataError: the log cannot be used, is of other examples than the artifact reads, or holds too few corrections.
    """
    feedback = read_feedback(log)
    events = feedback.corrections
    wanted = artifact.inputs["kind"]
    other = [event for event in events if event.kind != wanted]
    if other:
        raise DataError(
            f"{log}, line {other[0].line}: found an example of the kind {other[0].kind}, but the artifact reads "
            f"{wanted}; improve each artifact by a log of its own."
        )
    x, events = _examples(artifact, log, events)
    if isinstance(artifact.learner.likelihood, Bernoulli):
        raise DataError(
            "An artifact that gives an example any number of labels is not improved by feedback; adapt its tasks to "
            "the corrected examples."
        )
    classes = isinstance(artifact.learner.likelihood, Categorical)
    strange = [event for event in events if isinstance(event.correct, str) != classes]
    if strange:
        raise DataError(
            f"{log}, line {strange[0].line}: found the correction {strange[0].correct!r}, but the artifact predicts "
            f"{'classes' if classes else 'numbers'}; improve each artifact by a log of its own."
        )
    encoder = artifact.learner.encoder
    tasks = [event.task for event in events]
    labels = [str(event.correct) for event in events] if classes else None
    divided = divide(tasks, labels, seed=seed, inputs=[event.content[1] for event in events])
    dropped = len(events) - len(divided.train) - len(divided.validation)
    if dropped:
        warnings.warn(
            f"{dropped} corrections are not learned from, because their inputs are held out in another task, and who "
            "has learned them cannot be judged by them.",
            DataNote,
            stacklevel=2,
        )
    pools: dict[Split, Pool] = {}
    targets: dict[Split, Tensor] = {}
    parts: list[tuple[Split, list[int]]] = [
        ("train", divided.train),
        ("validation", divided.validation),
    ]
    for split, rows in parts:
        members = _classes_of(rows, tasks, labels)
        names = words_of([one.name for one in members], encoder) if classes else None
        pools[split] = pool_of(x, members, split=split, where=str(log), names=names)
        if not classes:
            order = [row for one in members for row in one.rows]
            targets[split] = torch.tensor([[float(events[row].correct)] for row in order])
    read = with_features(_Pools(pools, wanted), encoder)
    assert isinstance(read, PoolSource)
    corrected = CorrectedTasks(
        {split: read.pool(split) for split in pools},
        kind=read.kind,
        augment=_variation(source, x) if read.kind == "image" else None,
        targets=None if classes else targets,
    )
    met = set() if labels is None else {labels[row] for row in divided.train}
    return Corrections(
        tasks=corrected,
        held_out=divided.held_out,
        new_classes=labels is not None and not met & {labels[row] for row in divided.validation},
        count=len(events),
        task_count=len(set(tasks)),
        log_sha256=feedback.sha256,
    )


class _Pools(PoolSource):
    """Pools that are at hand already."""

    def __init__(self, pools: dict[Split, Pool], kind: Kind) -> None:
        self.pools, self.kind = pools, kind  # type: ignore[misc]

    def pool(self, split: Split) -> Pool:
        return self.pools[split]


def _classes_of(
    rows: Sequence[int], tasks: Sequence[str], labels: Sequence[str] | None
) -> list[LabelledClass]:
    """The classes of some corrections, each within its task; where numbers are predicted, the tasks."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        label = tasks[row] if labels is None else labels[row]
        found.setdefault((tasks[row], label), []).append(row)
    return [LabelledClass(label, task, members) for (task, label), members in found.items()]


def _variation(source: TaskSource, x: Inputs) -> Augment | None:
    """How a source varies its training examples, if it varies such as these."""
    if not isinstance(source, PoolSource):
        return None
    probe = tree_map(lambda leaf: leaf[:1], x)
    return None if source.augment(probe, torch.Generator()) is probe else source.augment


def _examples(
    artifact: Artifact, log: str | Path, events: Sequence[Event]
) -> tuple[Inputs, list[Event]]:
    """The examples of corrections as the artifact reads them, without those whose image is gone."""
    kind, encoder = artifact.inputs["kind"], artifact.learner.encoder
    if kind == "text":
        texts = [str(event.input) for event in events]
        return encoder.tokenize(texts), list(events)  # type: ignore[operator]
    if kind == "vector":
        return _rows(artifact, log, events), list(events)
    options: dict[str, Any] = {key: artifact.inputs[key] for key in ("size", "channels", "invert")}
    kept, pictures, lost = [], [], []
    for event in events:
        content = kept_image(log, event.sha256)
        if content is None:
            lost.append(event)
            continue
        pictures.append(torch.from_numpy(decode(content, str(event.input), **options)))
        kept.append(event)
    if lost:
        warnings.warn(
            f"{len(lost)} images of {log} are gone from the folder beside it, or were changed, and do not count; the "
            f"first is {lost[0].input} of line {lost[0].line}.",
            DataNote,
            stacklevel=4,
        )
    if not kept:
        raise DataError(f"No image of {log} lies in the folder beside it; put that folder back.")
    return torch.stack(pictures), kept


def _rows(artifact: Artifact, log: str | Path, events: Sequence[Event]) -> Tensor:
    """The numbers of corrected examples, float (example, column)."""
    wanted = int(artifact.config.encoder.get("inputs", len(events[0].input)))
    for event in events:
        if not isinstance(event.input, list) or len(event.input) != wanted:
            found = len(event.input) if isinstance(event.input, list) else 0
            raise DataError(
                f"{log}, line {event.line}: found {found} numbers, but the artifact reads {wanted}; correct that line, "
                "or take it away."
            )
    rows = [[math.nan if one is None else one for one in event.input] for event in events]
    return torch.tensor(rows, dtype=torch.float32)
