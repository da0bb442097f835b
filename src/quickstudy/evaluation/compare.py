"""An artifact beside what else a person could use, on the same tasks, from the texts to the answers, with the time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import DataError, PoolSource, Split
from quickstudy.data.text_tasks import Texts
from quickstudy.episode import labelled
from quickstudy.evaluation.alternatives import Alternative
from quickstudy.evaluation.contest import FixedPool, Progress
from quickstudy.evaluation.measures import summary


class TextTask(NamedTuple):
    """A task as a person would have it."""

    texts: list[str]
    labels: list[str]
    asked: list[str]
    right: list[str]
    """The labels of what is asked."""
    others: list[str]
    """Texts without a label."""


class TextTasks(Sequence[TextTask]):
    """The tasks of a source of texts, which has been prepared: task i is that of every other evaluation of this seed.

    Raises:
        DataError: the source has no texts, or cannot fill the design.
    """

    def __init__(
        self, source: PoolSource, split: Split, design: EpisodeDesign, *, episodes: int, seed: int
    ) -> None:
        if not isinstance(source, Texts):
            raise DataError(
                f"Texts are compared; {type(source).__name__} holds examples of the kind {source.kind}. Name a source "
                "of texts, such as text:FILE.csv."
            )
        pool = source.pool(split)
        self.every = source.pool_texts(split)
        # Where learners shall not read what the classes are called, neither shall those that they are compared with.
        called = (
            pool.class_names if pool.names.shape[1] else [f"class {i}" for i in range(pool.classes)]
        )
        self.names = [called[i] for i in pool.labels.tolist()]
        numbered = dataclasses.replace(pool, x=torch.arange(len(self.every)))
        self.drawn = Episodes(FixedPool(numbered), split, design, length=episodes, seed=seed)

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: Any) -> Any:
        support, query, _ = self.drawn[index]
        known = labelled(support).mask
        shown, asked = support.x[known].tolist(), query.x[query.mask].tolist()
        return TextTask(
            texts=[self.every[row] for row in shown],
            labels=[self.names[row] for row in shown],
            asked=[self.every[row] for row in asked],
            right=[self.names[row] for row in asked],
            others=[self.every[row] for row in support.x[support.mask & ~known].tolist()],
        )


def compare(
    alternatives: Mapping[str, Alternative],
    tasks: Sequence[TextTask],
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Let each alternative learn each task and answer it.

    Args:
        alternatives: the first is the one that the others are compared with.
        tasks: at least two.
        progress: called with the tasks done and their number.

    Returns:
        Name to ``accuracy {mean, ci95}``; ``fit_seconds`` and ``predict_seconds {mean, ci95}`` of the processor for a
        task; and ``difference {mean, ci95}``, by how much the first is more accurate on the same tasks.

    Raises:
        ValueError: fewer than two tasks.
    """
    if len(tasks) < 2:
        raise ValueError(f"An interval over tasks needs at least 2 of them; found {len(tasks)}.")
    found: dict[str, list[list[float]]] = {name: [] for name in alternatives}
    for done, task in enumerate(tasks):
        for name, each in alternatives.items():
            begun = time.process_time()
            each.fit(task.texts, task.labels, task.others)
            learned = time.process_time()
            answers = each.predict(task.asked)
            ended = time.process_time()
            right = sum(a == b for a, b in zip(answers, task.right, strict=True))
            found[name].append([right / len(answers), learned - begun, ended - learned])
        if progress is not None:
            progress(done + 1, len(tasks))
    measured = {name: torch.tensor(rows, dtype=torch.float64).T for name, rows in found.items()}
    first = next(iter(measured.values()))[0]
    return {
        name: {
            "accuracy": summary(accuracy),
            "fit_seconds": summary(fit),
            "predict_seconds": summary(predict),
            "difference": summary(first - accuracy),
        }
        for name, (accuracy, fit, predict) in measured.items()
    }
