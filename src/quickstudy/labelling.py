"""What the labels that a person gives mean to a task: its classes, in numbers, and what cannot be meant."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quickstudy.adapted import AdaptedTask, fingerprints
from quickstudy.data.source import DataNote
from quickstudy.durable import ArtifactError
from quickstudy.episode import NO_LABEL, Inputs, leaves, take_tasks
from quickstudy.learners import semi_supervised_learners
from quickstudy.likelihood import Bernoulli

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact

Labels = Sequence[str | None] | Sequence[Sequence[str]] | Tensor
"""Names of classes, of which None is one that nobody has said; or lists of labels; or float (example, values)."""


def numbered(
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
        check_growth(artifact, task, known)
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
            f"leave them out, or put one that does ({', '.join(semi_supervised_learners())}) on the same encoder with: "
            "quickstudy derive ARTIFACT --learner NAME --out NEW."
        )


def check_growth(artifact: Artifact, task: AdaptedTask, names: Sequence[str]) -> None:
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


def told(
    task: AdaptedTask | None, x: Inputs, labels: Labels, y: Tensor
) -> tuple[Inputs, Tensor, list[str], list[str]]:
    """What is new to a task.

    Examples without a label are not, that have one here as well or had one before; nor are images and texts that it
    learned as the same class before. Rows of numbers may be alike by chance, and each counts.

    Returns:
        The examples and their labels; of each example that has a label, a fingerprint and, if it is of one class, that.

    Raises:
        ArtifactError: all are examples without a label, and known.
    """
    marks = fingerprints(x)
    if isinstance(labels, Tensor) or y.ndim > 1:
        return x, y, marks, [""] * len(y)
    said = (y != NO_LABEL).tolist()
    learned: set[tuple[str, str]] = set()
    if task is not None and task.inputs.get("kind") in ("image", "text"):
        learned = set(zip(task.seen, task.taught, strict=True))
    again = [pair in learned for pair in zip(marks, labels, strict=True)]
    known = {*itertools.compress(marks, said), *([] if task is None else task.seen)}
    kept = [
        not twice if has else mark not in known
        for mark, has, twice in zip(marks, said, again, strict=True)
    ]
    if any(again):
        note_again(sum(again), sum(said))
    elif not any(kept):
        raise ArtifactError(
            f"The task knows each of the {len(kept)} examples without a label with its label; give others."
        )
    if not all(kept):
        which = torch.tensor(kept)
        x, y = take_tasks(x, which.to(leaves(x)[0].device)), y[which]
    counted = [has and keep for has, keep in zip(said, kept, strict=True)]
    taught = [str(each) for each in itertools.compress(labels, counted)]
    return x, y, list(itertools.compress(marks, counted)), taught


def note_again(known: int, given: int) -> None:
    """Say how many of the examples a task has learned before."""
    which = "all these examples" if known == given else f"{known} of these {given} examples"
    warnings.warn(
        f"The task learned {which} before; they are not counted twice.", DataNote, stacklevel=4
    )


def note_conflicts(task: AdaptedTask, marks: Sequence[str], taught: Sequence[str]) -> None:
    """Say which examples the task has learned as another class before."""
    before = dict(zip(task.seen, task.taught, strict=True))
    clashes = [
        (place, before[mark], label)
        for place, (mark, label) in enumerate(zip(marks, taught, strict=True), start=1)
        if before.get(mark, label) not in ("", label)
    ]
    if clashes:
        place, old, new = clashes[0]
        more = f" ({len(clashes) - 1} more such)" if len(clashes) > 1 else ""
        warnings.warn(
            f"The task learned example {place} as {old!r} before, and now it is {new!r}{more}. Both are kept; begin "
            "anew without the wrong one where that is not meant.",
            DataNote,
            stacklevel=3,
        )
