"""What went wrong in an inner loop that ended without finite weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from quickstudy.episode import leaves, tree_map
from quickstudy.functional.loops import InnerLoop, Weights, slopes_of


class Divergence(NamedTuple):
    """The first inner step whose result is not finite."""

    task: int
    step: int
    """Counted from 1."""
    what: str
    """``loss``, or the name of the weight."""
    losses: tuple[float, ...]
    """At the beginning of each step before, all finite."""

    def __str__(self) -> str:
        course = ", ".join(f"{loss:.3g}" for loss in self.losses) or "none"
        thing = "the loss" if self.what == "loss" else f"the weight {self.what}"
        return (
            f"inner step {self.step} of task {self.task} made {thing} infinite or no number; the losses of the steps "
            f"before were {course}"
        )


@torch.no_grad()
def first_divergence(
    loop: InnerLoop, weights: Weights, shared: Weights, data: Any
) -> Divergence | None:
    """Take the inner steps again, one task after the other, and look at each.

    Args:
        loop: of one task.
        weights: where each task begins, (task, …).
        shared: what all tasks share.
        data: of each task, a tree of tensors (task, …).

    Returns:
        The first step of the first task that is not finite; ``None`` when all are.

    >>> def update(w, g, shared, k):
    ...     return {"a": w["a"] - 1e30 * g["a"]}
    >>> loop = InnerLoop(lambda w, shared, x: w["a"].pow(4).sum(), update, steps=3)
    >>> found = first_divergence(loop, {"a": torch.ones(1, 1)}, {}, torch.zeros(1, 1))
    >>> found.step, found.what, found.losses
    (2, 'loss', (1.0,))
    """
    for task in range(len(leaves(weights)[0])):
        own, part = tree_map(lambda leaf, task=task: leaf[task], (weights, data))
        found = _watch(loop, own, shared, part, task)
        if found is not None:
            return found
    return None


def _watch(
    loop: InnerLoop, weights: Weights, shared: Weights, data: Any, task: int
) -> Divergence | None:
    losses: list[float] = []
    for step in loop.numbers:
        loss = float(loop.loss(weights, shared, data))
        if not math.isfinite(loss):
            return Divergence(task, step + 1, "loss", tuple(losses))
        losses.append(loss)
        slopes = slopes_of(lambda own: loop.loss(own, shared, data), weights)
        weights = loop.update(weights, slopes, shared, step)
        broken = [name for name, value in weights.items() if not value.isfinite().all()]
        if broken:
            return Divergence(task, step + 1, broken[0], tuple(losses))
    return None
