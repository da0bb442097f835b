"""What a new task and its classes are called, as its learner reads it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.data.calling import Tokenizes, note_alike, words_of
from quickstudy.durable import ArtifactError
from quickstudy.episode import Context, Inputs
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Bernoulli, Categorical
from quickstudy.nn.encoders import Encoder, ImageEncoder
from quickstudy.nn.several import SeveralEncoders

Description = str | Sequence[float]
"""What a task says of itself, in words or in numbers; empty where it says nothing."""


def new_context(
    names: Sequence[str], learner: Learner, device: torch.device, description: Description = ""
) -> Context:
    """What is known of a task that begins, or has new classes, a batch of one.

    Labels of texts that differ only in case, blanks or underscores are named in a note.

    Args:
        names: of its classes, or of the numbers that it predicts.
        learner: that learns it, and reads what it can of names and description.
        device: where it computes.
        description: what the task says of itself.

    Raises:
        ArtifactError: a description that the learner cannot read.
    """
    way, words = len(names), torch.zeros(len(names), 0, dtype=torch.int64)
    classes = isinstance(learner.likelihood, Categorical | Bernoulli)
    if classes and isinstance(learner.encoder, Tokenizes):
        note_alike(names)
    if getattr(learner, "names", False):
        words = words_of(names, learner.encoder)
    return Context(
        classes=torch.ones(1, way, dtype=torch.bool, device=device),
        description=_described(learner, description)[None].to(device),
        names=words[None].to(device),
    )


def _described(learner: Learner, description: Description) -> Tensor:
    """What a task says of itself, int64 (word,) or float (number,)."""
    if not len(description):
        return torch.zeros(0)
    describer = getattr(learner, "describer", None)
    if isinstance(description, str):
        if describer is None or not describer.names:
            raise ArtifactError(
                "This artifact reads no descriptions in words; leave the description out, or train the learner "
                "meta_transformer with names=true."
            )
        return words_of([description], learner.encoder)[0]
    numbers = 0 if describer is None else describer.numbers
    said = torch.tensor(description, dtype=next(learner.parameters()).dtype)
    if said.shape != (numbers,) or not said.isfinite().all():
        raise ArtifactError(
            f"Found the description {list(description)!r}, but tasks of this artifact describe themselves by {numbers} "
            "finite numbers; correct it, or leave it out."
        )
    return said


def check_names(learner: Learner, names: Sequence[str]) -> None:
    """Check that a learner can tell classes apart by their names alone.

    Raises:
        ArtifactError: it reads no names or predicts numbers; a name is empty or given twice, or there is only one.
    """
    if learner.likelihood.of_values or not getattr(learner, "names", False):
        raise ArtifactError(
            "This artifact reads no names of classes, so without examples it could only guess; give at least one "
            "example of each class, or train the learner meta_transformer with names=true."
        )
    for name in names:
        if not name.strip() or list(names).count(name) > 1:
            found = f"{name!r} twice" if name.strip() else "an empty name"
            raise ArtifactError(
                f"Found {found} among the classes; give each class a name of its own."
            )
    if len(names) < 2:
        raise ArtifactError(
            f"Found {len(names)} names of classes; a task needs at least 2. Name another class."
        )


def blank(encoder: Encoder) -> Inputs:
    """An example that an encoder can read and of which only the shape counts.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> blank(VectorEncoder(3)).shape
    torch.Size([1, 3])
    """
    if isinstance(encoder, Tokenizes):
        return encoder.tokenize(["?"])
    if isinstance(encoder, SeveralEncoders):
        return {name: blank(encoder.part(name)) for name in encoder.parts}
    if isinstance(encoder, ImageEncoder):
        return torch.zeros(1, encoder.channels, encoder.size, encoder.size, dtype=torch.uint8)
    columns = int(getattr(encoder, "inputs", encoder.width))
    dtype = next((each.dtype for each in encoder.parameters()), torch.get_default_dtype())
    return torch.zeros(1, columns, dtype=dtype)
