"""Tasks from examples that nobody has labelled: an example and its variations are a class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.draw import distinct_numbers
from quickstudy.data.mixture import Mixture
from quickstudy.data.source import DataError, PoolSource, Prior, Split, TaskSource
from quickstudy.episode import Context, Episode, Examples, Inputs, leaves, tree_map


class Unlabelled(Prior):
    """The examples of a pool without their labels: each class of a task is one example, varied anew each time.

    A query is mixed with another example z, ``x ← λ x + (1 - λ) z``, λ even in ½ … 1, so that telling classes apart
    takes more than finding the same strokes; z is of no class of the task.

    Vettoruzzo et al. 2025, Unsupervised Meta-Learning via In-Context Learning (CAMeLU). Differs from the paper:
    examples are varied as the source varies its training examples.

    Args:
        source: of images, which varies its training examples.
        mixed: whether queries are mixed; rows of numbers and images can be.

    Raises:
        DataError: the source leaves its examples as they are, so support and query would be the same.
    """

    values = 0

    def __init__(self, source: PoolSource, *, mixed: bool = True) -> None:
        self.source, self.kind, self.mixed = source, source.kind, mixed  # type: ignore[misc]
        self._examples: dict[Split, Inputs] = {"train": source.pool("train").x}
        probe = tree_map(lambda leaf: leaf[:1], self._examples["train"])
        if source.augment(probe, torch.Generator()) is probe:
            raise DataError(
                "Tasks without labels need examples that can be varied, and this source leaves them as they are; use "
                "images with vary=yes, or labels=given."
            )

    def prepare(self, encoder: Any) -> None:
        self.source.prepare(encoder)

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        """A batch of tasks: x (task, example, …), y int64 (task, example), by ``generator`` and the examples alone."""
        if split not in self._examples:
            self._examples[split] = self.source.pool(split).x
        pool = self._examples[split]
        (fewest_ways, way), (fewest_shots, shot) = span(design.way), span(design.shot)
        others = way * design.queries if self.mixed else 0
        count = len(leaves(pool)[0])
        if count < 2 * way:
            raise DataError(
                f"Tasks of {way} classes without labels need at least {2 * way} examples; found {count}."
            )
        ways = torch.randint(fewest_ways, way + 1, (tasks,), generator=generator)
        shots = torch.randint(fewest_shots, shot + 1, (tasks, 1), generator=generator)
        rows = distinct_numbers(tasks, 2 * way, count, generator)
        classes, strangers = rows[:, :way], rows[:, way:]
        exists = torch.arange(way) < ways[:, None]

        def examples(each: int, kept: Tensor) -> Examples:
            flat = classes.repeat_interleave(each, 1).flatten()
            x = tree_map(lambda leaf: leaf[flat], pool)
            x = self.source.augment(x, generator)
            return Examples(
                tree_map(lambda leaf: leaf.unflatten(0, (tasks, way * each)), x),
                torch.arange(way).repeat_interleave(each).expand(tasks, -1).contiguous(),
                (exists[..., None] & kept).flatten(1),
            )

        support = examples(shot, (torch.arange(shot) < shots)[:, None])
        query = examples(design.queries, torch.ones(design.queries, dtype=torch.bool))
        if others:
            which = torch.randint(way, (tasks, others), generator=generator)
            beside = strangers.gather(1, which).flatten()
            share = 0.5 + 0.5 * torch.rand(tasks, others, generator=generator)
            query = query._replace(
                x=tree_map(lambda x, every: _mix(x, every[beside].view_as(x), share), query.x, pool)
            )
        none = torch.zeros(tasks, way, 0, dtype=torch.int64)
        return Episode(support, query, Context(exists, torch.zeros(tasks, 0), none))

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "labels": "none"}


def _mix(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """``λ x + (1 - λ) z``, in the type of ``x``."""
    part = share.view(*share.shape, *(1 for _ in x.shape[2:]))
    mixed = part * x + (1 - part) * other
    return mixed.to(x.dtype) if x.is_floating_point() else mixed.round().to(x.dtype)


def without_labels(source: TaskSource) -> TaskSource:
    """The examples of a source without their labels.

    Raises:
        DataError: its tasks have no examples but those that it invents, or examples that cannot be varied.
    """
    if isinstance(source, Mixture):
        return source.of(without_labels)
    if not isinstance(source, PoolSource):
        raise DataError(
            "Only examples that lie in a data set can do without labels, and this source invents its tasks; set "
            "episode.labels=given."
        )
    return Unlabelled(source)
