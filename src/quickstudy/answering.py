"""What an adapted task says of queries, and which of them it would rather not name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from quickstudy.adapted import AdaptedTask, check_base
from quickstudy.data.source import DataNote
from quickstudy.durable import ArtifactError
from quickstudy.episode import Inputs, leaves, take_tasks, tree_map
from quickstudy.learners.autoregressive import sampled_in_turn
from quickstudy.learning import check_finite
from quickstudy.likelihood import Bernoulli, Categorical, Gaussian, JointGaussian, predicted_values
from quickstudy.pretrained import ships
from quickstudy.rejection import Rejection, rejection_in

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact

QUERIES_AT_ONCE = 512
"""Queries answered in one piece: enough to keep a device busy, few enough to bound the memory."""


def answer(artifact: Artifact, task: AdaptedTask, x: Inputs) -> Tensor:
    """What a task says of queries, a tree of tensors (query, …).

    Class probabilities (query, way), those of labels each by itself (query, label), or numbers (query, values), as the
    learner predicts them.

    Raises:
        ArtifactError: the task belongs to another artifact, or a query holds a number that is not finite.
    """
    likelihood = artifact.learner.likelihood
    pieces = []
    for _, outputs in _outputs(artifact, task, x):
        if isinstance(likelihood, Categorical | Bernoulli):
            pieces.append(likelihood.probabilities(outputs, task.context)[0])
        else:
            pieces.append(predicted_values(likelihood, outputs)[0])
    device = next(artifact.learner.parameters()).device
    return torch.cat(pieces) if pieces else torch.zeros(0, len(task.class_names), device=device)


def values_and_doubt(
    artifact: Artifact, task: AdaptedTask, x: Inputs
) -> tuple[Tensor, Tensor | None]:
    """The numbers that a task says of queries, and their standard deviations, each (query, values).

    The deviations are None where the learner says none.

    Raises:
        ArtifactError: as :func:`answer`.
        TypeError: the learner tells classes apart.
    """
    likelihood = artifact.learner.likelihood
    if not isinstance(likelihood, Gaussian | JointGaussian):
        predicted_values(likelihood, torch.zeros(0))
        return answer(artifact, task, x), None
    said = [likelihood.distribution(outputs) for _, outputs in _outputs(artifact, task, x)]
    mean, deviation = (torch.cat(parts, dim=1)[0] for parts in zip(*said, strict=True))
    return mean, deviation


def draws(
    artifact: Artifact, task: AdaptedTask, x: Inputs, count: int, *, generator: torch.Generator
) -> Tensor | None:
    """Functions as a task thinks they may be, (count, query, values); None where the learner says no deviation.

    Queries are answered one after the other, each given the answers before it.

    Raises:
        ArtifactError: as :func:`answer`.
    """
    check_base(task.base_id, artifact, "The task")
    check_finite(artifact, x, "query")
    learner = artifact.learner
    if not isinstance(learner.likelihood, Gaussian | JointGaussian):
        return None
    device = next(learner.parameters()).device
    state, context, queries = tree_map(
        lambda leaf: leaf.to(device).expand(count, *leaf.shape[1:]),
        (task.state, task.context, tree_map(lambda leaf: leaf[None], x)),
    )
    with torch.no_grad():
        return sampled_in_turn(learner, state, queries, context, generator=generator)


class Judged(NamedTuple):
    """What a task says of queries that may be of no class."""

    probabilities: Tensor
    """(query, way), if it is of one"""
    scores: Tensor
    """(query,), how little the query is like any class"""
    unknown: Tensor
    """bool (query,), whether that is beyond the threshold"""


def judge(artifact: Artifact, task: AdaptedTask, x: Inputs) -> Judged:
    """What a task says of queries, a tree of tensors (query, …), and which of them it would rather not name.

    Raises:
        ArtifactError: as :func:`answer`; or the artifact has learned no threshold, or none that fits the task.
    """
    learner, context = artifact.learner, task.context
    if not isinstance(learner.likelihood, Categorical):
        raise ArtifactError(
            "Only queries of one class each are refused; an artifact of many labels answers none of them, and one of "
            "numbers knows no classes."
        )
    rejection = task.rejection or rejection_of(artifact)
    if task.unlabelled and not rejection.unlabelled:
        warnings.warn(
            "The threshold was learned from tasks in which all examples have a label, and this task learned from "
            f"{task.unlabelled} without one too, which makes it surer. Let the model learn it anew with: quickstudy "
            f"evaluate {artifact.path or 'ARTIFACT'} --unknown --unlabelled {task.unlabelled}.",
            DataNote,
            stacklevel=3,
        )
    variances = torch.tensor(rejection.variances, dtype=torch.float64)
    chances, scores = [], []
    for batch, outputs in _outputs(artifact, task, x):
        far = None
        if task.embedded is not None and len(variances):
            features = learner.encode(batch)
            far = task.embedded.distances(features, variances.to(features.device))
        chances.append(learner.likelihood.probabilities(outputs, context)[0])
        scores.append(rejection.scores(outputs, context, far)[0])
    if not scores:
        empty = answer(artifact, task, x)
        return Judged(empty, empty.new_zeros(0), empty.new_zeros(0, dtype=torch.bool))
    found = torch.cat(scores)
    return Judged(torch.cat(chances), found, found > rejection.threshold)


def rejection_of(artifact: Artifact) -> Rejection:
    """When an artifact answers that a query is of no class.

    Raises:
        ArtifactError: it has learned no threshold.
    """
    found = rejection_in(artifact.facts)
    if found is None:
        where = artifact.path or "ARTIFACT"
        let = f"let its model learn it from classes of other data: quickstudy evaluate {where} --unknown."
        if ships(artifact.path):
            let = (
                "let a copy of its model learn it from classes of other data: copy the folder "
                f"{where}, which ships with the package, and run quickstudy evaluate COPY --data DATA --unknown."
            )
        raise ArtifactError(
            "Neither this task nor its artifact has learned which queries are of no class; let the task learn it from "
            "its examples, by quickstudy adapt ARTIFACT EXAMPLES --unknown, or fit(…, unknown=True) in Python; or "
            f"{let}"
        )
    return found


def _outputs(artifact: Artifact, task: AdaptedTask, x: Inputs) -> Iterator[tuple[Inputs, Tensor]]:
    """Queries some at a time, a batch of one task, and the outputs of the learner for them."""
    check_base(task.base_id, artifact, "The task")
    check_finite(artifact, x, "query")
    device = next(artifact.learner.parameters()).device
    for start in range(0, len(leaves(x)[0]), QUERIES_AT_ONCE):
        some = take_tasks(x, slice(start, start + QUERIES_AT_ONCE))
        batch = tree_map(lambda tensor: tensor[None].to(device), some)
        with torch.no_grad():
            yield batch, artifact.learner.predict(task.state, batch, task.context)
