"""Where tasks come from: sources, and their pools of labelled examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from quickstudy.episode import Inputs, leaves, tree_map

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class DataError(ValueError):
    """Data that cannot be used; the message says where, what was found, what was expected and what to do."""


class DataNote(UserWarning):
    """Something in the data that was mended and that its owner should know, such as examples given twice."""


@dataclass(frozen=True)
class Pool:
    """The examples of one split in contiguous memory, class by class.

    Args:
        x: tree of tensors (example, …), sorted by class.
        counts: int64 (class,), examples of each class.
        class_names: a name for each class.
        groups: int64 (class,), the group of each class (its script, alphabet or domain).
        group_names: a name for each group.
        names: int64 (class, word), the tokens of the class names; zero columns when nobody has any.
    """

    x: Inputs
    counts: Tensor
    class_names: Sequence[str]
    groups: Tensor
    group_names: Sequence[str]
    names: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))

    def __post_init__(self) -> None:
        total = int(self.counts.sum())
        if any(len(tensor) != total for tensor in leaves(self.x)):
            raise DataError(
                f"The pool's counts add up to {total} examples, but {len(leaves(self.x)[0])} were given."
            )
        if len(self.names) != self.classes:
            object.__setattr__(self, "names", torch.zeros(self.classes, 0, dtype=torch.int64))
        object.__setattr__(self, "starts", self.counts.cumsum(0) - self.counts)

    starts: Tensor = field(init=False)
    """int64 (class,), where the examples of each class begin."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.counts)

    @property
    def labels(self) -> Tensor:
        """int64 (example,), the class of each example."""
        return torch.repeat_interleave(torch.arange(self.classes), self.counts)

    def of_class(self, which: int) -> Inputs:
        """The examples of one class."""
        start, count = int(self.starts[which]), int(self.counts[which])
        return tree_map(lambda tensor: tensor[start : start + count], self.x)


class TaskSource(ABC):
    """A data set that tasks are drawn from."""

    kind: ClassVar[Literal["image", "text", "vector"]]
    """What the examples are; encoders of the same kind fit."""

    @abstractmethod
    def pool(self, split: Split) -> Pool:
        """The examples of one split; no class or group is in two splits.

        Raises:
            DataError: the split does not exist, with the splits that do.
        """

    def prepare(self, encoder: Any) -> None:  # noqa: B027  most sources have nothing to prepare
        """Turn examples into what ``encoder`` takes (texts into tokens), once, before ``pool`` is called.

        Raises:
            DataError: the encoder takes other kinds of examples.
        """

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        """A random variation of each training example (example, …) that keeps its class; the identity by default."""
        return x

    def describe(self) -> dict[str, Any]:
        """Facts for the model card: name, licence, classes and examples of each split."""
        return {}
