"""Learning a task: to begin it, by examples or by the names of its classes, and to go on with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from quickstudy.adapted import AdaptedTask, check_base
from quickstudy.data.source import DataNote
from quickstudy.durable import ArtifactError
from quickstudy.episode import (
    Context,
    Examples,
    Inputs,
    labelled,
    leaves,
    put_behind,
    tree_map,
)
from quickstudy.following import memory_of, place_after
from quickstudy.labelling import Labels, check_growth, note_conflicts, numbered, told
from quickstudy.likelihood import Categorical
from quickstudy.naming import Description, blank, check_names, new_context
from quickstudy.nn.several import SeveralEncoders
from quickstudy.nn.tables import TableEncoder
from quickstudy.rejection import Embedded, Rejection, rejection_in

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact


def extend(
    artifact: Artifact,
    task: AdaptedTask | None,
    x: Inputs,
    labels: Labels,
    *,
    class_names: Sequence[str] | None = None,
    description: Description = "",
    after: AdaptedTask | None = None,
    new_classes: bool = False,
) -> AdaptedTask:
    """Learn from more examples: begin a task, or go on with one.

    Args:
        artifact: what learns.
        task: what is known already; ``None`` begins a task.
        x: tree of tensors (example, …).
        labels: a class name for each example, or None where nobody has said it, for a learner that learns from such
            examples too, though not from one that has its label besides; of a learner of many labels, a list of names,
            perhaps empty, for each; of a learner that predicts numbers, these, float (example, values).
        class_names: of a new task; the sorted labels where it is absent. They may name classes that come later. Of
            numbers, what they are called.
        description: what a new task says of itself, for learners that read it.
        after: the task of the same stream that came before a new one, for learners that remember it.
        new_classes: labels that a task does not know become classes of it, behind those that it has; nothing of what
            was learned is learned anew.

    Returns:
        A new task, or ``task`` where it knows all the examples; it is left as it was.

    Raises:
        ArtifactError: no example, a number in one that is not finite, one class only, a label that the task does not
            know, examples without a label for a learner that cannot use them, or no other and no name to begin a task
            with, new classes for a learner whose tasks keep theirs, classes for a learner of numbers or the other way
            about, a task of another artifact, an inner loop that diverges, a description of a task that has begun or
            that the learner cannot read, a previous task for one that has begun, of another artifact or for a learner
            without memory.
    """
    count = len(leaves(x)[0])
    if count != len(labels) or not count:
        raise ArtifactError(
            f"Found {count} examples and {len(labels)} labels; give at least one example and a label to each."
        )
    check_finite(artifact, x, "example")
    if task is not None:
        check_base(task.base_id, artifact, "The task")
        if len(description):
            raise ArtifactError(
                "A task says what it is about when it begins; leave the description out, or begin anew."
            )
        if after is not None:
            raise ArtifactError(
                "A task starts from what another left when it begins; leave the previous task out, or begin anew."
            )
    names, y = numbered(artifact, task, labels, class_names, new_classes=new_classes)
    x, y, marks, taught = told(task, x, labels, y)
    if task is not None:
        if not len(y):
            return task
        note_conflicts(task, marks, taught)
    device = next(artifact.learner.parameters()).device
    support = Examples(
        x=tree_map(lambda tensor: tensor[None].to(device), x),
        y=y[None].to(device),
        mask=torch.ones(1, len(y), dtype=torch.bool, device=device),
    )
    if task is not None and len(names) == len(task.class_names):
        context = task.context
    else:
        context = new_context(names, artifact.learner, device, description)
    if task is not None:
        context = context._replace(description=task.context.description)
    known_state = memory_of(artifact, after) if task is None else task.state
    with torch.no_grad():
        state = artifact.learner.adapt(support, context, known_state)
        if not all(leaf.isfinite().all() for leaf in leaves(state)):
            why = artifact.learner.trouble(support, context) or "its state is not finite"
            raise ArtifactError(
                f"The task cannot be learned: {why}; check the examples, or train with a smaller learner.rate."
            )
    return AdaptedTask(
        base_id=artifact.id,
        state=tree_map(lambda tensor: tensor.detach(), state),
        context=context,
        class_names=names,
        examples=len(marks) + (0 if task is None else task.examples),
        inputs=artifact.inputs if task is None else task.inputs,
        seen=([] if task is None else task.seen) + marks,
        embedded=_embedded(artifact, task, labelled(support), len(names)),
        before=place_after(after) if task is None else task.before,
        unlabelled=len(y) - len(marks) + (0 if task is None else task.unlabelled),
        taught=([] if task is None else task.taught) + taught,
        rejection=_kept_threshold(task),
    )


def and_unlabelled(
    x: Inputs | None, labels: Sequence[str], bare: Inputs
) -> tuple[Inputs, list[str | None]]:
    """Examples and their labels with others behind them that have none, as :func:`extend` takes both.

    Args:
        x: tree of tensors (example, …); None for none.
        labels: a class name for each.
        bare: examples without a label.

    >>> and_unlabelled(torch.tensor([[1, 2]]), ["a"], torch.tensor([[3]]))
    (tensor([[ 1,  2],
            [ 3, -1]]), ['a', None])
    """
    none: list[str | None] = [None] * len(leaves(bare)[0])
    if x is None:
        return bare, none
    first, second = (tree_map(lambda tensor: tensor[None], each) for each in (x, bare))
    return tree_map(lambda tensor: tensor[0], put_behind(first, second)), [*labels, *none]


def begin(
    artifact: Artifact,
    x: Inputs,
    names: Sequence[str],
    description: Description = "",
    *,
    after: AdaptedTask | None = None,
) -> AdaptedTask:
    """A task of which nothing is known yet, so that what it says is what the learner says before adaptation.

    Args:
        artifact: what is to learn.
        x: tree of tensors (example, …), of which only the shapes count.
        names: of its classes, or of the numbers that it predicts.
        description: what it says of itself, for learners that read it.
        after: the task of the same stream that came before, for learners that remember it.

    Raises:
        ArtifactError: a description that the learner cannot read; a previous task of another artifact or for a learner
            without memory.
    """
    learner = artifact.learner
    support, context = _nothing(artifact, x, names, description)
    with torch.no_grad():
        state = learner.adapt(support, context, memory_of(artifact, after))
    return AdaptedTask(
        artifact.id, state, context, list(names), 0, artifact.inputs, before=place_after(after)
    )


def begin_by_name(
    artifact: Artifact,
    names: Sequence[str],
    description: Description = "",
    *,
    after: AdaptedTask | None = None,
) -> AdaptedTask:
    """A task that is known by the names of its classes alone; examples may follow by :func:`extend`.

    Args:
        artifact: what answers; it reads names.
        names: of the classes.
        description: what the task says of itself.
        after: the task of the same stream that came before, for learners that remember it.

    Raises:
        ArtifactError: the artifact reads no names or predicts numbers; a name is empty or given twice, or there is only
            one; a description that the learner cannot read; a previous task of another artifact or for a learner
            without memory.
    """
    check_names(artifact.learner, names)
    return begin(artifact, blank(artifact.learner.encoder), names, description, after=after)


def grow_by_name(artifact: Artifact, task: AdaptedTask, names: Sequence[str]) -> AdaptedTask:
    """A task with further classes, of which nothing is known but their names; examples may follow by :func:`extend`.

    Args:
        artifact: what answers; it reads names.
        task: to which they are added, behind its classes; it is left as it was.
        names: of the new classes.

    Raises:
        ArtifactError: the artifact reads no names or predicts numbers, or its tasks keep the classes that they began
            with; a name is empty, given twice or one of the task's; a task of another artifact.
    """
    check_base(task.base_id, artifact, "The task")
    every = [*task.class_names, *names]
    check_names(artifact.learner, every)
    check_growth(artifact, task, every)
    support, context = _nothing(artifact, blank(artifact.learner.encoder), every)
    context = context._replace(description=task.context.description)
    with torch.no_grad():
        state = artifact.learner.adapt(support, context, task.state)
    return replace(
        task,
        state=state,
        context=context,
        class_names=every,
        embedded=_embedded(artifact, task, support, len(every)),
        rejection=_kept_threshold(task),
    )


def _kept_threshold(task: AdaptedTask | None) -> Rejection | None:
    """The threshold that a task has learned from its own examples, which were fewer, as a note says."""
    if task is None or task.rejection is None:
        return None
    warnings.warn(
        f"When an input is of no class was learned from the first {task.examples} examples of this task, and stays as "
        "it is; begin the task anew with all of its examples (--unknown) to learn it from these.",
        DataNote,
        stacklevel=3,
    )
    return task.rejection


def _nothing(
    artifact: Artifact, x: Inputs, names: Sequence[str], description: Description = ""
) -> tuple[Examples, Context]:
    """A support that is not there, of the shapes of ``x``, and what is known of its task all the same."""
    learner = artifact.learner
    device = next(learner.parameters()).device
    x = tree_map(lambda tensor: tensor[None].to(device), x)
    mask = torch.zeros(leaves(x)[0].shape[:2], dtype=torch.bool, device=device)
    y = torch.zeros_like(mask, dtype=torch.int64)
    if not isinstance(learner.likelihood, Categorical):
        y = torch.zeros(*mask.shape, len(names), dtype=leaves(x)[0].dtype, device=device)
    return Examples(x, y, mask), new_context(list(names), learner, device, description)


def _embedded(
    artifact: Artifact, task: AdaptedTask | None, support: Examples, way: int
) -> Embedded | None:
    """Where the examples lie, if that is asked for and known of all of them."""
    rejection = rejection_in(artifact.facts)
    if rejection is None or not rejection.variances:
        return None
    if task is not None and task.examples and task.embedded is None:
        return None
    with torch.no_grad():
        found = Embedded.of(artifact.learner.encode(support.x), support, way)
    return found.and_more(None if task is None else task.embedded)


def check_finite(artifact: Artifact, x: Inputs, what: str) -> None:
    """Refuse numbers that are not finite, unless a gap in a table is what the encoder reads as such."""
    gaps = isinstance(artifact.learner.encoder, TableEncoder | SeveralEncoders)
    for leaf in leaves(x):
        if not leaf.is_floating_point():
            continue
        bad = leaf.isinf() if gaps else ~leaf.isfinite()
        if bool(bad.any()):
            place = int(bad.flatten(1).any(1).nonzero()[0]) if leaf.ndim > 1 else 0
            raise ArtifactError(
                f"The {what} number {place + 1} holds a number that is not finite (NaN or infinite); correct it, or "
                "leave that example out."
            )
