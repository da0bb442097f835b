"""What to expect of a task that has a few examples and no others: each is answered by tasks that learned the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quickstudy.adapted import fingerprints
from quickstudy.durable import ArtifactError
from quickstudy.episode import NO_LABEL, Context, Inputs, Task, collate, leaves, take_tasks
from quickstudy.evaluation.contest import (
    BYTES_AT_ONCE,
    TASKS_AT_ONCE,
    Progress,
    answer_batch,
    answering,
    encoded_names,
    learns_from_features,
    on_features,
    vectors_of,
)
from quickstudy.labelling import Labels, numbered
from quickstudy.learners.base import Learner
from quickstudy.learning import check_finite
from quickstudy.likelihood import Categorical
from quickstudy.naming import Description, new_context
from quickstudy.rejection import (
    SHARE_KEPT,
    Rejection,
    ScoreName,
    check_share,
    output_scores,
    threshold_that_keeps,
)

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact

FOLDS, FEWER_FOLDS = 10, 5
"""Most parts that are left out in turn, and where every task passes through the encoder."""


@dataclass(frozen=True)
class HeldOut:
    """What is said of each example of a task by a task that has not learned it.

    Args:
        class_names: of the task.
        y: int64 (example,), the class of each, :data:`quickstudy.episode.NO_LABEL` of one that has none.
        asked: bool (example,), which were asked about: not where nothing would be left that tells what a class is.
        outputs: logits (example, way), zero of those that were not asked about.
        folds: parts that were left out in turn.
    """

    class_names: list[str]
    y: Tensor
    asked: Tensor
    outputs: Tensor
    folds: int

    @cached_property
    def answers(self) -> Tensor:
        """The likeliest class of each example, int64 (example,)."""
        return self.outputs.argmax(-1)

    @cached_property
    def right(self) -> Tensor:
        """Whether each example was answered rightly, bool (example,)."""
        return self.asked & (self.answers == self.y)

    @cached_property
    def probabilities(self) -> Tensor:
        """Of each class, (example, way)."""
        return self.outputs.softmax(-1)

    def accuracy(self) -> tuple[float, float, float]:
        """The share that is right, and the bounds of its 95 % interval (Wilson 1927).

        >>> y = torch.tensor([0, 1])
        >>> found = HeldOut(["a", "b"], y, y >= 0, torch.eye(2), 2)
        >>> [round(each, 2) for each in found.accuracy()]
        [1.0, 0.34, 1.0]
        """
        count, right = int(self.asked.sum()), int(self.right.sum())
        share, z = right / count, 1.96
        middle = (share + z * z / (2 * count)) / (1 + z * z / count)
        half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
        half /= 1 + z * z / count
        return share, max(0.0, middle - half), min(1.0, middle + half)

    def wrong(self) -> list[int]:
        """Examples that were answered otherwise, the surest answers first: they are hard, or their label is wrong."""
        chances = self.probabilities
        own = chances.gather(1, self.y.clamp(min=0)[:, None])[:, 0]
        rows = (self.asked & ~self.right).nonzero()[:, 0]
        surer = (chances.amax(1) - own)[rows]
        return [int(row) for row in rows[surer.argsort(descending=True, stable=True)]]

    def rejection(
        self, share_kept: float = SHARE_KEPT, score: ScoreName = "similarity"
    ) -> Rejection:
        """When an input is of none of the classes: where it is less like them than the examples are to others.

        Args:
            share_kept: of inputs that are of a class, what share is to be answered with one.
            score: one that the outputs tell.

        Raises:
            ValueError: a share that is none, or a score that needs more than the outputs.
        """
        check_share(share_kept)
        way = len(self.class_names)
        classes = torch.ones(1, way, dtype=torch.bool)
        context = Context(classes, torch.zeros(1, 0), torch.zeros(1, way, 0))
        scores = output_scores(self.outputs[self.asked][None], context)
        if score not in scores:
            raise ValueError(f"The score must be one of {', '.join(scores)}; found {score!r}.")
        counts = torch.bincount(self.y[self.y != NO_LABEL], minlength=way)
        return Rejection(
            score=score,
            threshold=threshold_that_keeps(scores[score][0], share_kept),
            share_kept=share_kept,
            way=way,
            shot=(int(counts.min()), int(counts.max())),
            split="support",
            unlabelled=int((self.y == NO_LABEL).sum()),
        )


def held_out(
    artifact: Artifact,
    x: Inputs,
    labels: Labels,
    *,
    class_names: Sequence[str] | None = None,
    description: Description = "",
    folds: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeldOut:
    """Let each example of a task be answered by a task that learned others.

    The examples of each class are dealt to as many parts, copies to the same, and what is learned from all parts but
    one is asked about that one (Stone 1974, Cross-Validatory Choice and Assessment of Statistical Predictions; Geisser
    1975). By default a part has one example of each class. One example alone is not left out: the others of its class
    would be fewer than those of any other, so that it would be answered as another class too often.

    Args:
        artifact: what learns, of one class for each example.
        x: tree of tensors (example, …).
        labels: a class name for each example; None of one that has none, which is learned from and not asked about.
        class_names: of the task; the sorted labels where it is absent.
        description: what the task says of itself.
        folds: how many parts; by default as many as the largest class has examples, at most :data:`FOLDS`, or
            :data:`FEWER_FOLDS` of a learner that passes every task through its encoder.
        seed: decides which examples are left out together.
        progress: called with the number of parts done and of all.

    Raises:
        ArtifactError: the artifact answers otherwise than with one class; fewer than two examples can be asked about;
            or as :func:`quickstudy.learning.extend`.
        ValueError: fewer than 2 folds.
    """
    learner = artifact.learner
    if not isinstance(learner.likelihood, Categorical):
        raise ArtifactError(
            "Only tasks of one class for each example can be checked by their own examples, and this artifact answers "
            "with numbers or several labels; score it on examples that it has not learned from."
        )
    if folds is not None and folds < 2:
        raise ValueError(f"Examples are left out in 2 parts or more; found folds={folds}.")
    check_finite(artifact, x, "example")
    names, y = numbered(artifact, None, labels, class_names, new_classes=False)
    context = new_context(names, learner, torch.device("cpu"), description)
    called, said = context.names[0], context.description[0]
    first = _first_like(x)
    own = (y != NO_LABEL) & (first == torch.arange(len(y)))
    counts = torch.bincount(y[own], minlength=len(names))
    asked = (y != NO_LABEL) & ((counts[y.clamp(min=0)] > 1) | bool(called.shape[1]))
    if int(asked.sum()) < 2:
        raise ArtifactError(
            f"The {len(y)} examples of {len(names)} classes leave none to ask about; give at least two of each class."
        )
    once, device = learns_from_features(learner), next(learner.parameters()).device
    if once:
        x = vectors_of(x, learner.encoder, device)
        called = encoded_names(called, learner.encoder, device)
        learner = on_features(learner, learner.encoder.width)
    if folds is None:
        folds = max(2, min(int(counts.max()), FOLDS if once else FEWER_FOLDS))
    whole = Task(x, y, x, y.clamp(min=0), len(names), said, called)
    # Copies are left out together, or one would answer for another.
    part = torch.where(asked, _dealt(y, asked & own, folds, seed)[first], -1)
    outside = [(part == fold).nonzero()[:, 0] for fold in range(int(part.max()) + 1)]
    outputs = _answered(learner, whole, outside, device, progress)
    return HeldOut(names, y, part >= 0, outputs, len(outside))


def _without(whole: Task, rows: Tensor) -> Task:
    """The task that has not learned some of its examples, int64 (example,), and is asked about them."""
    kept = torch.ones(len(whole.support_y), dtype=torch.bool)
    kept[rows] = False
    return whole._replace(
        support_x=take_tasks(whole.support_x, kept),
        support_y=whole.support_y[kept],
        query_x=take_tasks(whole.query_x, rows),
        query_y=whole.query_y[rows],
    )


def _first_like(x: Inputs) -> Tensor:
    """For each example, the place of the first that is the same, int64 (example,)."""
    places: dict[str, int] = {}
    return torch.tensor([places.setdefault(mark, i) for i, mark in enumerate(fingerprints(x))])


def _dealt(y: Tensor, asked: Tensor, folds: int, seed: int) -> Tensor:
    """The part of each example, int64 (example,), those of a class shared out evenly; -1 of one that is not asked."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[y[order].argsort(stable=True)]
    order = order[asked[order]]
    part = torch.full_like(y, -1)
    part[order] = torch.arange(len(order)) % folds
    return part


def _answered(
    learner: Learner,
    whole: Task,
    outside: list[Tensor],
    device: torch.device,
    progress: Progress | None,
) -> Tensor:
    """Logits of each example, float64 (example, way), of the task that has not learned the part that it is in."""
    outputs = torch.zeros(len(whole.support_y), whole.way, dtype=torch.float64)
    bytes_of_task = sum(leaf.nbytes for leaf in leaves(whole.support_x))
    step = min(TASKS_AT_ONCE, max(1, BYTES_AT_ONCE // bytes_of_task))
    with answering(learner, device):
        for start in range(0, len(outside), step):
            some = outside[start : start + step]
            tasks = collate([_without(whole, rows) for rows in some]).to(device)
            for rows, found in zip(some, answer_batch(learner, tasks).cpu(), strict=True):
                outputs[rows] = found[: len(rows)].double()
            if progress is not None:
                progress(start + len(some), len(outside))
    return outputs
