"""Tasks and episodes: the one data structure that every learner, source and service shares.

Axis names, used in every signature of this library:

=========== ===========================================================
task        the tasks of a batch; always the first axis
example     the examples of a set: ``support`` or ``query``
way         the classes of a task
word        the tokens of a text; ``-1`` is padding
patch       the tokens of an image
width       the features of a token or an example
head        attention heads
=========== ===========================================================

A :class:`Task` is one task, unbatched, of any way and shot. :func:`collate` pads several of them into one
:class:`Episode`, in which masks say what exists. What is absent is a zero-width tensor, never ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Inputs = Any
"""A tensor, or a tree (tuple, list, dictionary) of tensors, whose leading axes are task and example."""

WORD_PADDING = -1
"""Marks a missing word in a tensor of token ids."""


NO_LABEL = -1
"""The class of a support example of which nobody has said what it is."""


class EpisodeError(ValueError):
    """A task or an episode that cannot be used; the message says what was found and what to do."""


class Examples(NamedTuple):
    """Some examples of each task of a batch, padded to one length."""

    x: Inputs
    """Tree of tensors (task, example, …)."""
    y: Tensor
    """Classes, int64 (task, example), or values, float (task, example, dim).

    In a support set, :data:`NO_LABEL` is the class of an example of which nobody has said what it is.
    Where an example may have any number of labels, 1 for each that it has and 0 for each other, float (task, example,
    label).
    """
    mask: Tensor
    """bool (task, example); False is padding."""


class Context(NamedTuple):
    """What is known of each task beside its examples."""

    classes: Tensor
    """bool (task, way): which outputs exist."""
    description: Inputs
    """What the task says of itself, (task, word) or (task, dim); zero columns when nobody has one."""
    names: Inputs
    """Names of the classes, (task, way, word); zero columns when nobody has any."""


class Episode(NamedTuple):
    """A batch of tasks, each with a support set, a query set and a context."""

    support: Examples
    query: Examples
    context: Context

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return self.support.mask.shape[0]

    def to(self, device: torch.device | str) -> Episode:
        """The same episode on ``device``."""
        return tree_map(lambda tensor: tensor.to(device, non_blocking=True), self)


class Stream(NamedTuple):
    """A batch of streams: tasks that follow one another and share something that no task says by itself."""

    episodes: tuple[Episode, ...]
    """One for each position: the tasks that every stream holds there, in the order of the streams."""

    @property
    def tasks(self) -> int:
        """The number of streams, each of which holds one task at every position."""
        return self.episodes[0].tasks

    def to(self, device: torch.device | str) -> Stream:
        """The same streams on ``device``."""
        return Stream(tuple(episode.to(device) for episode in self.episodes))


def positions(batch: Episode | Stream) -> tuple[Episode, ...]:
    """The tasks of a batch of streams at each position; tasks by themselves are at the only one."""
    return batch.episodes if isinstance(batch, Stream) else (batch,)


class Task(NamedTuple):
    """One task: support, query, and what it says of itself; any number of examples and classes."""

    support_x: Inputs
    """Tree of tensors (support, …)."""
    support_y: Tensor
    """int64 (support,) in ``0 … way - 1`` or :data:`NO_LABEL`, or float (support, dim), or 0 and 1, float (support,
    label)."""
    query_x: Inputs
    query_y: Tensor
    way: int
    """The number of classes; for regression, the number of outputs."""
    description: Tensor = torch.zeros(0)
    names: Tensor = torch.zeros(0, 0, dtype=torch.int64)


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply ``function`` to the matching tensors of trees of tuples, lists and dictionaries.

    >>> tree_map(torch.add, (torch.ones(1), [torch.ones(1)]), (torch.ones(1), [torch.ones(1)]))
    (tensor([2.]), [tensor([2.])])
    """
    first = trees[0]
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(tree_map(function, *leaves) for leaves in zip(*trees, strict=True)))
    if isinstance(first, tuple | list):
        return type(first)(tree_map(function, *leaves) for leaves in zip(*trees, strict=True))
    if isinstance(first, dict):
        return {key: tree_map(function, *(tree[key] for tree in trees)) for key in first}
    return function(*trees)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in order.

    >>> [t.item() for t in leaves({"a": torch.tensor(1), "b": (torch.tensor(2),)})]
    [1, 2]
    """
    found: list[Tensor] = []
    tree_map(found.append, tree)
    return found


def take_tasks(tree: Any, which: slice | Tensor) -> Any:
    """Some tasks of an episode or of a state; one task stays a batch of one.

    >>> take_tasks({"a": torch.arange(3)}, slice(1, 2))
    {'a': tensor([1])}
    """
    return tree_map(lambda tensor: tensor[which], tree)


def padding_value(tensor: Tensor) -> int:
    """What fills the empty places of a padded tensor: no word for token ids, zero for everything else."""
    return WORD_PADDING if tensor.dtype == torch.int64 else 0


def pad_stack(tensors: Sequence[Tensor], value: float | None = None) -> Tensor:
    """Stack tensors of one rank and different sizes, each padded at the end of every axis.

    Raises:
        EpisodeError: the tensors differ in rank or in kind of number.

    >>> pad_stack([torch.tensor([1, 2]), torch.tensor([3])]).tolist()
    [[1, 2], [3, -1]]
    """
    first = tensors[0]
    for tensor in tensors:
        if tensor.ndim != first.ndim or tensor.dtype != first.dtype:
            raise EpisodeError(
                f"The tasks of one batch must have inputs of one kind: found {first.dtype} with {first.ndim} axes "
                f"beside {tensor.dtype} with {tensor.ndim} axes. Convert them before collating."
            )
    if all(tensor.shape == first.shape for tensor in tensors):
        return torch.stack(list(tensors))
    size = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    fill = padding_value(first) if value is None else value
    out = first.new_full((len(tensors), *size), fill)
    for row, tensor in zip(out, tensors, strict=True):
        row[tuple(slice(n) for n in tensor.shape)] = tensor
    return out


def _mask(lengths: Sequence[int]) -> Tensor:
    """bool (task, longest): True up to each length."""
    ends = torch.tensor(lengths)
    return torch.arange(int(ends.max()) if len(lengths) else 0)[None, :] < ends[:, None]


def check_task(task: Task) -> None:
    """Check one task at the border of the library.

    Raises:
        EpisodeError: labels and inputs differ in number, or a label is outside ``0 … way - 1``.
    """
    for part, x, y in (
        ("support", task.support_x, task.support_y),
        ("query", task.query_x, task.query_y),
    ):
        for tensor in leaves(x):
            if len(tensor) != len(y):
                raise EpisodeError(
                    f"The {part} set has {len(tensor)} inputs and {len(y)} labels; give one label to each input."
                )
        least = NO_LABEL if part == "support" else 0
        if (
            not y.is_floating_point()
            and len(y)
            and not least <= int(y.min()) <= int(y.max()) < task.way
        ):
            raise EpisodeError(
                f"Labels of the {part} set run from {int(y.min())} to {int(y.max())}, but the task has {task.way} "
                f"classes; number the classes from 0 to {task.way - 1}."
            )


def collate(tasks: Sequence[Task]) -> Episode:
    """Pad tasks of any way and shot into one episode; padding is invisible to every learner.

    Raises:
        EpisodeError: no task was given, a task is inconsistent, or two tasks differ in kind.

    >>> one = Task(torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(1, 3), torch.tensor([1]),
    ...            way=2)
    >>> two = Task(torch.zeros(5, 3), torch.arange(5), torch.zeros(1, 3), torch.tensor([4]), way=5)
    >>> episode = collate([one, two])
    >>> episode.support.mask.sum(1).tolist(), episode.context.classes.sum(1).tolist()
    ([2, 5], [2, 5])
    """
    if not tasks:
        raise EpisodeError("An episode needs at least one task; none was given.")
    for task in tasks:
        check_task(task)

    def examples(xs: list[Inputs], ys: list[Tensor]) -> Examples:
        return Examples(
            x=tree_map(lambda *each: pad_stack(each), *xs),
            y=pad_stack([y if y.is_floating_point() else y.long() for y in ys], value=0),
            mask=_mask([len(y) for y in ys]),
        )

    return Episode(
        support=examples([task.support_x for task in tasks], [task.support_y for task in tasks]),
        query=examples([task.query_x for task in tasks], [task.query_y for task in tasks]),
        context=Context(
            classes=_mask([task.way for task in tasks]),
            description=pad_stack([task.description for task in tasks]),
            names=pad_stack([task.names for task in tasks]),
        ),
    )


def collate_streams(streams: Sequence[Sequence[Task]]) -> Stream:
    """The tasks of several streams, each in its order, as one batch of streams.

    Raises:
        EpisodeError: there is no task, a stream has fewer tasks than another, or a position cannot be collated.

    >>> task = Task(torch.zeros(2, 3), torch.arange(2), torch.zeros(1, 3), torch.tensor([1]), way=2)
    >>> stream = collate_streams([[task, task, task], [task, task, task]])
    >>> len(stream.episodes), stream.tasks
    (3, 2)
    """
    longest = max((len(stream) for stream in streams), default=0)
    if not longest:
        raise EpisodeError("A stream needs at least one task; none was given.")
    for number, stream in enumerate(streams, start=1):
        if len(stream) < longest:
            raise EpisodeError(
                f"Stream {number} was cut off: it has {len(stream)} tasks, another has {longest}; give the tasks that "
                f"are missing, or only the first {len(stream)} of every stream."
            )
    return Stream(tuple(collate(tasks) for tasks in zip(*streams, strict=True)))


def without_support(support: Examples) -> Examples:
    """The same support set with every example hidden: what a learner knows before it adapts."""
    return support._replace(mask=torch.zeros_like(support.mask))


def labelled(examples: Examples) -> Examples:
    """The same examples, with those hidden whose class nobody has said.

    >>> given = Examples(torch.zeros(1, 2, 1), torch.tensor([[1, NO_LABEL]]), torch.ones(1, 2).bool())
    >>> labelled(given).y.tolist(), labelled(given).mask.tolist()
    ([[1, 0]], [[True, False]])
    """
    if examples.y.is_floating_point():
        return examples
    said = examples.y != NO_LABEL
    return examples._replace(y=torch.where(said, examples.y, 0), mask=examples.mask * said)


def concatenate(first: Examples, second: Examples) -> Examples:
    """The examples of both sets, task by task; word axes of different length are padded.

    Raises:
        EpisodeError: the sets hold different numbers of tasks, or examples of different sizes.
    """
    return Examples(*map(put_behind, first, second))


def put_behind(first: Inputs, second: Inputs) -> Inputs:
    """The tensors (task, example, …) of two trees, task by task; word axes of different length are padded.

    Raises:
        EpisodeError: the trees hold different numbers of tasks, or examples of different sizes.

    >>> put_behind(torch.tensor([[[1, 2]]]), torch.tensor([[[3]]])).tolist()
    [[[1, 2], [3, -1]]]
    """

    def join(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[0] != b.shape[0] or a.ndim != b.ndim:
            raise EpisodeError(
                f"Cannot put examples of shape {tuple(b.shape)} behind examples of {tuple(a.shape)}."
            )
        if a.shape[2:] != b.shape[2:]:
            if a.dtype != torch.int64 or a.ndim != 3:
                raise EpisodeError(
                    f"Examples of size {tuple(b.shape[2:])} were added to a task whose examples have size "
                    f"{tuple(a.shape[2:])}; bring them to that size first."
                )
            words = max(a.shape[2], b.shape[2])
            a, b = (
                torch.nn.functional.pad(t, (0, words - t.shape[2]), value=WORD_PADDING)
                for t in (a, b)
            )
        return torch.cat([a, b], dim=1)

    return tree_map(join, first, second)
