"""Where tasks come from: pools of labelled examples, and worlds that invent their tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from quickstudy.data.exact import Exact
from quickstudy.episode import Episode, Inputs, Stream, leaves, tree_map
from quickstudy.likelihood import Labels

if TYPE_CHECKING:
    from quickstudy.data.design import EpisodeDesign

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
        names: int64 (class, word), what the classes are called, as tokens of the encoder of texts or else as bytes;
            zero columns when nobody has any.
        descriptions: int64 (group, word), what a task within a group says of itself, likewise.
        asked: int64 (class,), how many of the last examples of each class are for queries only, the others being for
            support only; no entries where any example may be either.
        samples: of each shot, fixed support sets, rows of the pool int64 (sample, class, shot); queries are ``asked``.
        marks: where an example may have any number of labels, which of the classes these are, bool (example, class);
            the examples are in no order then, and ``counts`` says how many have each label. No entries where each
            example is of one class.
        folds: int64 (example,), of examples with labels, the fold of each, counted from 0, where tasks learn from whole
            folds and ask about the others.
        vectors: float (class, width), by whose angles classes are near one another; no entries where nobody knows.
    """

    x: Inputs
    counts: Tensor
    class_names: Sequence[str]
    groups: Tensor
    group_names: Sequence[str]
    names: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    descriptions: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    asked: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    samples: Mapping[int, Tensor] = field(default_factory=dict)
    marks: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    folds: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    vectors: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def __post_init__(self) -> None:
        total = self.examples
        if any(len(tensor) != total for tensor in leaves(self.x)):
            told, given = "marks" if self.many else "counts", len(leaves(self.x)[0])
            raise DataError(
                f"The pool's {told} add up to {total} examples, but {given} were given."
            )
        for what, found in (("class_names", self.class_names), ("groups", self.groups)):
            if len(found) != self.classes:
                raise DataError(
                    f"The pool has {self.classes} classes, but {len(found)} {what}; give one of each class."
                )
        if len(self.names) != self.classes:
            object.__setattr__(self, "names", torch.zeros(self.classes, 0, dtype=torch.int64))
        if len(self.descriptions) != len(self.group_names):
            none = torch.zeros(len(self.group_names), 0, dtype=torch.int64)
            object.__setattr__(self, "descriptions", none)
        object.__setattr__(self, "starts", self.counts.cumsum(0) - self.counts)

    starts: Tensor = field(init=False)
    """int64 (class,), where the examples of each class begin."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.counts)

    @property
    def many(self) -> bool:
        """Whether an example may have any number of labels."""
        return len(self.marks) > 0

    @property
    def examples(self) -> int:
        """The number of examples."""
        return len(self.marks) if self.many else int(self.counts.sum())

    @property
    def apart(self) -> bool:
        """Whether some examples are for support only and the others for queries only."""
        return len(self.asked) > 0

    def most_shot(self, queries: int) -> Tensor:
        """int64 (class,), how many support examples there are beside so many queries."""
        return self.counts - (self.asked if self.apart else queries)

    def most_queries(self, shot: int) -> Tensor:
        """int64 (class,), how many query examples there are beside so many of the support."""
        return self.asked if self.apart else self.counts - shot

    def enough(self, shot: int, queries: int) -> Tensor:
        """bool (class,), which classes have so many support and so many query examples."""
        return (self.most_shot(queries) >= shot) & (self.most_queries(shot) >= queries)

    @property
    def labels(self) -> Tensor:
        """int64 (example,), the class of each example."""
        return torch.repeat_interleave(torch.arange(self.classes), self.counts)

    def of_class(self, which: int) -> Inputs:
        """The examples of one class."""
        start, count = int(self.starts[which]), int(self.counts[which])
        return tree_map(lambda tensor: tensor[start : start + count], self.x)


class TaskSource(ABC):
    """Where tasks come from: a data set with classes (:class:`PoolSource`), or a :class:`World` that invents them."""

    kind: ClassVar[Literal["image", "text", "vector", "several"]]
    """What the examples are; encoders of the same kind fit."""
    labels: Labels = "one"
    """Whether an example is of one class, or may have many labels, any number of them."""
    sources: Mapping[str, TaskSource] = MappingProxyType({})
    """The sources that a mixture mixes, by name; nothing of others."""

    def prepare(self, encoder: Any) -> None:  # noqa: B027  most sources have nothing to prepare
        """Turn examples into what ``encoder`` takes (texts into tokens), once, before tasks are drawn.

        Raises:
            DataError: the encoder takes other kinds of examples.
        """

    def describe(self) -> dict[str, Any]:
        """Facts for the model card: name, licence, classes and examples of each split."""
        return {}


class PoolSource(TaskSource):
    """A data set whose tasks are to tell apart classes that are drawn from a pool."""

    @abstractmethod
    def pool(self, split: Split) -> Pool:
        """The examples of one split; no class or group is in two splits.

        Raises:
            DataError: the split does not exist, with the splits that do.
        """

    def strangers(self, split: Split) -> Inputs | None:
        """Examples (example, …) of no class, in the form of the pool's, where the data set brings such examples."""
        return None

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        """A random variation of each training example (example, …) that keeps its class; the identity by default."""
        return x


class Prior(TaskSource):
    """A source that invents its tasks: there is no end of them, and splits differ by their generators."""

    inputs: int = 1
    """Numbers in an example."""
    values: int = 1
    """Numbers that a task predicts, the way of its episodes; 0: it tells classes apart, as many as the design says."""
    grouped: ClassVar[bool] = False
    """The classes of each task are of one group, whatever the design says."""

    @abstractmethod
    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        """A batch of tasks, by ``generator`` alone: x float (task, example, inputs), y float (task, example, values).

        Of classes, y is int64 (task, example). Support sets are as large as ``design.shot`` says (where that is a
        range, each task's own is masked) and query sets as ``design.queries``.
        """

    def draw_stream(
        self,
        split: Split,
        design: EpisodeDesign,
        *,
        tasks: int,
        positions: int,
        generator: torch.Generator,
    ) -> Stream:
        """A batch of streams, ``tasks`` of them with so many positions each; by default their tasks share nothing."""
        return Stream(
            tuple(
                self.draw(split, design, tasks=tasks, generator=generator) for _ in range(positions)
            )
        )


class World(Prior):
    """A source whose tasks are functions from numbers to numbers, and that knows the best answers to them."""

    @abstractmethod
    def exact(self, episode: Episode) -> Exact:
        """What one who knows the world and has seen the support says of each query by itself.

        Its mean is the posterior mean, which no learner can beat in squared error, or as near to it as the world itself
        says; its density is what no learner can beat in log-likelihood.
        """

    def exact_stream(self, stream: Stream) -> tuple[Exact, ...]:
        """The same for each position, of one who has also seen the supports of all earlier tasks of the stream.

        By default these tell nothing, as the tasks share nothing.
        """
        return tuple(self.exact(episode) for episode in stream.episodes)
