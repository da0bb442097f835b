"""Adapted tasks: what a learner knows of one task, in memory and in one small file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
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
    Inputs,
    leaves,
    padding_value,
)
from quickstudy.learners.base import State
from quickstudy.rejection import FACT, Embedded, Rejection, rejection_in

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
        examples: how many with a label were seen so far.
        inputs: what examples must be, as :attr:`Artifact.inputs` says.
        seen: a fingerprint of each of these, so that nobody scores a task on what it learned from.
        embedded: where the examples lie, if its artifact refuses queries by their distance from them.
        before: how many tasks of its stream came before it.
        unlabelled: how many without a label were seen so far.
        taught: the class of each of ``seen``, of tasks of one class for each example; empty where it is not known.
        rejection: when an input is of none of its classes, learned from its own examples; None: its artifact says.
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
    unlabelled: int = 0
    taught: list[str] = field(default_factory=list)
    rejection: Rejection | None = None


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
        "unlabelled": task.unlabelled,
        "taught": task.taught,
    }
    if task.rejection is not None:
        facts[FACT] = task.rejection.as_json()
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


def is_task(path: str | Path) -> bool:
    """Whether a file is a task, whole or of another version."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return "quickstudy" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


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
        # Which earlier versions did not write.
        before=facts.get("before", 0),
        unlabelled=facts.get("unlabelled", 0),
        taught=facts.get("taught", [""] * len(facts["seen"])),
        rejection=rejection_in(facts),
    )
