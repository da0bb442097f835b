"""Tasks that follow one another: the memory that one leaves to the next, and its place in their stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from quickstudy.durable import ArtifactError
from quickstudy.learners.base import State

if TYPE_CHECKING:
    from quickstudy.adapted import AdaptedTask
    from quickstudy.artifact import Artifact


def memory_of(artifact: Artifact, previous: AdaptedTask | None) -> State | None:
    """What the next task starts from; nothing where no task came before.

    Raises:
        ArtifactError: the previous task is of another artifact, or the learner has no memory.
    """
    if previous is None:
        return None
    if previous.base_id != artifact.id:
        raise ArtifactError(
            f"The previous task was adapted with the artifact {previous.base_id}, but {artifact.id} was given; a "
            "memory is read by the model that wrote it, so use that one."
        )
    if not artifact.learner.has_memory:
        raise ArtifactError(
            f"The learner {artifact.config.learner['name']} has no memory: it begins every task anew, whatever came "
            "before. Leave the previous task out, or train meta_transformer with episode.stream."
        )
    with torch.no_grad():
        return artifact.learner.carry(previous.state)


def place_after(previous: AdaptedTask | None) -> int:
    """How many tasks of its stream came before the one after ``previous``."""
    return 0 if previous is None else previous.before + 1


def check_place(previous: AdaptedTask | None, place: int | None) -> None:
    """Check that the task after ``previous`` has the place in its stream that it is said to have, counted from 1.

    Raises:
        ArtifactError: tasks are missing, or out of order; says which was found.
    """
    came = place_after(previous)
    if place is None or place == came + 1:
        return
    found = (
        "No previous task was given"
        if not came
        else f"The previous task is number {came} of its stream"
    )
    if place > came + 1:
        missing = f"task {came + 1}" if place == came + 2 else f"tasks {came + 1} to {place - 1}"
        raise ArtifactError(
            f"{found}, but this one is to be number {place}: the stream is cut off. Learn {missing} first, each after "
            "the one before it."
        )
    raise ArtifactError(
        f"{found}, but this one is to be number {place}: the stream is out of order. Give the task that came right "
        f"before, or say that this is number {came + 1}."
    )
