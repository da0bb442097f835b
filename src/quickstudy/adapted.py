"""Adapted tasks: what a learner knows of one task, in memory and in one small file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from quickstudy.durable import FORMAT, ArtifactError, aside, canonical, sha256_of, write_file
from quickstudy.episode import (
    Context,
    Examples,
    Inputs,
    leaves,
    padding_value,
    tree_map,
)
from quickstudy.following import memory_of
from quickstudy.learners.base import State
from quickstudy.likelihood import Bernoulli, Categorical
from quickstudy.naming import Description, blank, check_names, new_context
from quickstudy.nn.several import SeveralEncoders
from quickstudy.nn.tables import TableEncoder
from quickstudy.rejection import Embedded, rejection_in

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact


@dataclass
class AdaptedTask:
    """What a learner knows of one task.

    Args:
        base_id: of the artifact that it was adapted with.
        state: the learner's state, a batch of one task.
        context: of the task, a batch of one.
        class_names: in the order of the outputs; of a task that predicts numbers, what they are called.
        examples: how many were seen so far.
        inputs: what examples must be, as :attr:`Artifact.inputs` says.
        seen: a fingerprint of each example, so that nobody scores a task on what it learned from.
        embedded: where the examples lie, if its artifact refuses queries by their distance from them.
        before: how many tasks of its stream came before it.
    """

    base_id: str
    state: State
    context: Context
    class_names: list[str]
    examples: int
    inputs: dict[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    embedded: Embedded | None = None
    before: int = 0


def fingerprints(x: Inputs) -> list[str]:
    """A short hash of each example of a tree (example, …), however its words are padded.

    >>> fingerprints(torch.tensor([[1, 2, -1]])) == fingerprints(torch.tensor([[1, 2]]))
    True
    """

    def content(row: Tensor) -> bytes:
        kept = row[row != padding_value(row)] if row.dtype == torch.int64 else row
        return bytes(kept.detach().cpu().contiguous().numpy().tobytes())

    parts = leaves(x)
    return [sha256_of(*(content(part[i]) for part in parts))[:16] for i in range(len(parts[0]))]


def _named_tensors(tree: Any, prefix: str) -> dict[str, Tensor]:
    """The tensors of a state or context by field name."""
    fields = tree if isinstance(tree, dict) else tree._asdict()
    nested = [name for name, value in fields.items() if not isinstance(value, Tensor)]
    if nested:
        raise ArtifactError(
            f"The task cannot be saved: {prefix}.{nested[0]} is a {type(fields[nested[0]]).__name__}, not a tensor."
        )
    return {f"{prefix}.{name}": tensor for name, tensor in fields.items()}


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Of everything in a task file but this."""
    known = {key: value for key, value in facts.items() if key != "sha256"}
    return sha256_of(canonical(known), safetensors.torch.save(dict(sorted(tensors.items()))))


def save_task(path: str | Path, task: AdaptedTask, *, base: str | Path | None = None) -> None:
    """Write an adapted task into one file, whole or not at all.

    Args:
        path: the file.
        task: what to write.
        base: where its artifact lies, for whoever reads the file.

    Raises:
        ArtifactError: it cannot be written; what was there before is intact.
    """
    path = Path(path)
    tensors = _named_tensors(task.state, "state") | _named_tensors(task.context, "context")
    if task.embedded is not None:
        tensors |= _named_tensors(task.embedded, "embedded")
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    facts: dict[str, Any] = {
        "format": FORMAT,
        "base_id": task.base_id,
        # Relative, so that a run's folder can be moved as a whole; absolute, so that the file can.
        "base": None
        if base is None
        else os.path.relpath(Path(base).resolve(), path.resolve().parent),
        "base_absolute": None if base is None else str(Path(base).resolve()),
        "class_names": task.class_names,
        "examples": task.examples,
        "inputs": task.inputs,
        "seen": task.seen,
        "before": task.before,
    }
    facts["sha256"] = _checksum(facts, tensors)
    content = safetensors.torch.save(tensors, metadata={"quickstudy": json.dumps(facts)})
    try:
        write_file(path, content)
    except OSError as error:
        raise ArtifactError(
            f"The task {path} cannot be saved: {error.strerror}; what was there before is intact. Free some space or "
            "choose another place."
        ) from error


def _read_task(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The checked facts and tensors of a task file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["quickstudy"])
            # Copied, for a tensor lies in the file where it happens to, and on some processors the last bits of a
            # product depend on how its factors are aligned.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(
            f"There is no task file {path}; make one with: quickstudy adapt."
        ) from None
    except (OSError, SafetensorError, KeyError, ValueError):
        raise ArtifactError(
            f"{path} is no task file, or it is truncated; make it again with: quickstudy adapt."
        ) from None
    if facts.get("format") != FORMAT or facts.get("sha256") != _checksum(facts, tensors):
        raise ArtifactError(
            f"The task {path} was changed after it was written, or comes from another version; make it again with: "
            "quickstudy adapt."
        )
    return facts, tensors


def base_of(path: str | Path) -> Path:
    """Where the artifact of a task file lies.

    Raises:
        ArtifactError: the file is no task, or its artifact is gone.
    """
    path = Path(path)
    facts, _ = _read_task(path)
    places = (
        [path.resolve().parent / facts["base"], Path(facts["base_absolute"])]
        if facts["base"]
        else []
    )
    for place in places:
        if (place / "config.json").exists() or aside(place).exists():
            return Path(os.path.normpath(place))
    where = places[-1] if places else "any known place"
    raise ArtifactError(
        f"The task {path} needs the artifact {facts['base_id']}, which is not at {where}; put it back there."
    )


def check_base(base_id: str, artifact: Artifact, what: str) -> None:
    """Refuse a task of another artifact."""
    if base_id != artifact.id:
        raise ArtifactError(
            f"{what} was adapted with the artifact {base_id}, but {artifact.id} was given; use the artifact it was "
            "made with, or adapt again."
        )


def load_task(path: str | Path, artifact: Artifact) -> AdaptedTask:
    """Read an adapted task.

    Raises:
        ArtifactError: the file is missing, damaged, or was adapted with another artifact.
    """
    facts, tensors = _read_task(Path(path))
    check_base(facts["base_id"], artifact, f"The task {path}")
    device = next(artifact.learner.parameters()).device
    parts: dict[str, dict[str, Tensor]] = {"state": {}, "context": {}, "embedded": {}}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        parts[part][key] = tensor.to(device)
    return AdaptedTask(
        base_id=facts["base_id"],
        state=artifact.learner.state_type(**parts["state"]),
        context=Context(**parts["context"]),
        class_names=facts["class_names"],
        examples=facts["examples"],
        inputs=facts["inputs"],
        seen=facts["seen"],
        embedded=Embedded(**parts["embedded"]) if parts["embedded"] else None,
        before=facts.get("before", 0),  # which earlier versions did not write
    )


def extend(
    artifact: Artifact,
    task: AdaptedTask | None,
    x: Inputs,
    labels: Sequence[str] | Sequence[Sequence[str]] | Tensor,
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
        labels: a class name for each example; of a learner of many labels, a list of names, perhaps empty, for each; of
            a learner that predicts numbers, these, float (example, values).
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
            know, new classes for a learner whose tasks keep theirs, classes for a learner of numbers or the other way
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
    likelihood = artifact.learner.likelihood
    many = isinstance(likelihood, Bernoulli)
    of_names = not isinstance(labels, Tensor)
    if of_names == likelihood.of_values or (
        not isinstance(labels, Tensor) and any(isinstance(each, str) == many for each in labels)
    ):
        what = "a list of labels" if many else "numbers" if likelihood.of_values else "a class"
        raise ArtifactError(f"This artifact predicts {what} for a query; give such labels.")
    known = class_names if task is None else task.class_names
    if isinstance(labels, Tensor):
        names, y = _values(labels, known)
    else:
        own = {name for each in labels for name in ([each] if isinstance(each, str) else each)}
        if new_classes and task is not None:
            known = [*task.class_names, *sorted(own - set(task.class_names))]
            _check_growth(artifact, task, known)
        names = _names(own, known)
        if many:
            rows = [[float(name in each) for name in names] for each in labels]
            y = torch.tensor(rows, dtype=torch.get_default_dtype())
        else:
            y = torch.tensor([names.index(str(each)) for each in labels])
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
        examples=count + (0 if task is None else task.examples),
        inputs=artifact.inputs,
        seen=([] if task is None else task.seen) + fingerprints(x),
        embedded=_embedded(artifact, task, support, len(names)),
        before=task.before if task is not None else 0 if after is None else after.before + 1,
    )


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
