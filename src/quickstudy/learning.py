"""Learning a task: to begin it, by examples or by the names of its classes, and to go on with it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quickstudy.adapted import AdaptedTask, check_base, fingerprints
from quickstudy.durable import ArtifactError
from quickstudy.episode import (
    NO_LABEL,
    Examples,
    Inputs,
    labelled,
    leaves,
    put_behind,
    take_tasks,
    tree_map,
)
from quickstudy.following import memory_of
from quickstudy.learners import semi_supervised_learners
from quickstudy.likelihood import Bernoulli, Categorical
from quickstudy.naming import Description, blank, check_names, new_context
from quickstudy.nn.several import SeveralEncoders
from quickstudy.nn.tables import TableEncoder
from quickstudy.rejection import Embedded, rejection_in

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact

Labels = Sequence[str | None] | Sequence[Sequence[str]] | Tensor
"""Names of classes, of which None is one that nobody has said; or lists of labels; or float (example, values)."""


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
            examples too; of a learner of many labels, a list of names, perhaps empty, for each; of a learner that
            predicts numbers, these, float (example, values).
        class_names: of a new task; the sorted labels where it is absent. They may name classes that come later. Of
            numbers, what they are called.
        description: what a new task says of itself, for learners that read it.
        after: the task of the same stream that came before a new one, for learners that remember it.
        new_classes: labels that a task does not know become classes of it, behind those that it has; nothing of what
            was learned is learned anew.

    Returns:
        A new task; ``task`` is left as it was.

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
    names, y = _numbered(artifact, task, labels, class_names, new_classes=new_classes)
    bare = int((y == NO_LABEL).sum()) if isinstance(artifact.learner.likelihood, Categorical) else 0
    device = next(artifact.learner.parameters()).device
    support = Examples(
        x=tree_map(lambda tensor: tensor[None].to(device), x),
        y=y[None].to(device),
        mask=torch.ones(1, count, dtype=torch.bool, device=device),
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
        examples=count - bare + (0 if task is None else task.examples),
        inputs=artifact.inputs,
        seen=([] if task is None else task.seen) + fingerprints(_with_label(x, y) if bare else x),
        embedded=_embedded(artifact, task, labelled(support), len(names)),
        before=task.before if task is not None else 0 if after is None else after.before + 1,
        unlabelled=bare + (0 if task is None else task.unlabelled),
    )


def _numbered(
    artifact: Artifact,
    task: AdaptedTask | None,
    labels: Labels,
    class_names: Sequence[str] | None,
    *,
    new_classes: bool,
) -> tuple[list[str], Tensor]:
    """The names of all classes of the task, or of its values, and the labels as a learner takes them (example, …)."""
    likelihood = artifact.learner.likelihood
    many = isinstance(likelihood, Bernoulli)
    of_names = not isinstance(labels, Tensor)
    if of_names == likelihood.of_values or (
        not isinstance(labels, Tensor)
        and any((each is None or isinstance(each, str)) == many for each in labels)
    ):
        what = "a list of labels" if many else "numbers" if likelihood.of_values else "a class"
        raise ArtifactError(f"This artifact predicts {what} for a query; give such labels.")
    known = class_names if task is None else task.class_names
    if isinstance(labels, Tensor):
        return _values(labels, known)
    own = {name for each in labels for name in ([each] if isinstance(each, str) else each or ())}
    if new_classes and task is not None:
        known = [*task.class_names, *sorted(own - set(task.class_names))]
        _check_growth(artifact, task, known)
    if task is None and not own and not many:
        raise ArtifactError(
            f"None of the {len(labels)} examples has a label; give some labels, or begin the task by the names of its "
            "classes."
        )
    names = _names(own, known)
    if many:
        rows = [[float(name in (each or ())) for name in names] for each in labels]
        return names, torch.tensor(rows, dtype=torch.get_default_dtype())
    y = [NO_LABEL if each is None else names.index(str(each)) for each in labels]
    if NO_LABEL in y:
        check_semi_supervised(artifact)
    return names, torch.tensor(y)


def check_semi_supervised(artifact: Artifact) -> None:
    """Refuse examples without a label for a learner that makes nothing of them."""
    if not artifact.learner.semi_supervised:
        raise ArtifactError(
            f"Found examples without a label, from which the learner {artifact.config.learner['name']} learns nothing; "
            f"leave them out, or put one of {', '.join(semi_supervised_learners())} on the same encoder by quickstudy "
            "derive."
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


def _with_label(x: Inputs, y: Tensor) -> Inputs:
    """Those of the examples that have one."""
    return take_tasks(x, (y != NO_LABEL).to(leaves(x)[0].device))


def begin(
    artifact: Artifact, x: Inputs, names: Sequence[str], description: Description = ""
) -> AdaptedTask:
    """A task of which nothing is known yet, so that what it says is what the learner says before adaptation.

    Args:
        artifact: what is to learn.
        x: tree of tensors (example, …), of which only the shapes count.
        names: of its classes, or of the numbers that it predicts.
        description: what it says of itself, for learners that read it.

    Raises:
        ArtifactError: a description that the learner cannot read.
    """
    learner = artifact.learner
    device = next(learner.parameters()).device
    x = tree_map(lambda tensor: tensor[None].to(device), x)
    mask = torch.zeros(leaves(x)[0].shape[:2], dtype=torch.bool, device=device)
    y = torch.zeros_like(mask, dtype=torch.int64)
    if not isinstance(learner.likelihood, Categorical):
        y = torch.zeros(*mask.shape, len(names), dtype=leaves(x)[0].dtype, device=device)
    context = new_context(list(names), learner, device, description)
    with torch.no_grad():
        state = learner.adapt(Examples(x, y, mask), context)
    return AdaptedTask(artifact.id, state, context, list(names), 0, artifact.inputs)


def begin_by_name(
    artifact: Artifact, names: Sequence[str], description: Description = ""
) -> AdaptedTask:
    """A task that is known by the names of its classes alone; examples may follow by :func:`extend`.

    Args:
        artifact: what answers; it reads names.
        names: of the classes.
        description: what the task says of itself.

    Raises:
        ArtifactError: the artifact reads no names or predicts numbers; a name is empty or given twice, or there is only
            one; a description that the learner cannot read.
    """
    check_names(artifact.learner, names)
    return begin(artifact, blank(artifact.learner.encoder), names, description)


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


def _check_growth(artifact: Artifact, task: AdaptedTask, names: Sequence[str]) -> None:
    """Refuse new classes for a learner whose tasks keep those that they began with."""
    new = names[len(task.class_names) :]
    if new and not artifact.learner.grows:
        raise ArtifactError(
            f"The class {new[0]!r} is new, but tasks of the learner {artifact.config.learner['name']} keep the classes "
            f"that they began with, {', '.join(task.class_names)}; begin a new task with all of them."
        )


def _names(labels: Set[str], known: Sequence[str] | None) -> list[str]:
    """The names of the classes, all labels among them."""
    names = list(known or sorted(labels))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ArtifactError(f"Found the class {twice!r} twice; give each class a name of its own.")
    if len(names) < 2:
        found = f"one class only, {names[0]!r}" if names else "no label"
        raise ArtifactError(
            f"Found {found}; a task needs at least 2. Add examples of another class."
        )
    unknown = sorted(labels - set(names))
    if unknown:
        raise ArtifactError(
            f"The label {unknown[0]!r} is not among the classes of this task, {', '.join(names)}; correct it, make "
            "it a new class (--new-classes, new_classes=True), or begin a new task with all classes."
        )
    return names


def _values(labels: Tensor, known: Sequence[str] | None) -> tuple[list[str], Tensor]:
    """The names of the values, and the values (example, values)."""
    names = list(known or (f"value {number}" for number in range(1, labels.shape[1] + 1)))
    if len(names) != labels.shape[1] or not labels.isfinite().all():
        raise ArtifactError(
            f"Each example needs the numbers {', '.join(names)}, all finite; found {labels.shape[1]} for each, "
            f"{int((~labels.isfinite()).sum())} of them not finite."
        )
    return names, labels


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
