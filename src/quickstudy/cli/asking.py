"""What a task of classes says of files, folders and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from quickstudy.cli.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from quickstudy.artifact import AdaptedTask, Artifact


UNKNOWN = "unknown"
"""The answer to an input that is refused."""


class Answers(NamedTuple):
    """What a task says of some inputs."""

    origins: list[str]
    """Where each input came from, or the text itself."""
    class_names: list[str]
    probabilities: Tensor
    """(input, way)"""
    truth: list[str] | None
    """The right answers, where the inputs carry them."""
    scores: list[float] | None = None
    """How little each input is like any class, where some may be refused."""
    refused: list[bool] | None = None
    """Which inputs are refused, where some may be."""
    contents: list[Any] = []  # noqa: RUF012  nobody adds to it
    """The texts or the numbers that were asked about, or the files of the images."""

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each input, or that it is unknown."""
        best = [self.class_names[i] for i in self.probabilities.argmax(1).tolist()]
        refused = self.refused or [False] * len(best)
        return [UNKNOWN if no else name for name, no in zip(best, refused, strict=True)]

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(a == b for a, b in zip(self.labels, self.truth or [], strict=False))


def ask(
    model: Artifact,
    task: AdaptedTask,
    inputs: list[str],
    *,
    labelled: bool = False,
    reject: bool = False,
) -> Answers:
    """What a task says of files, folders or texts.

    Raises:
        Failure: a labelled input has a label that the task does not know, or the task learned from it.
        ArtifactError: inputs are to be refused, but the model has not learned when.
    """
    import torch

    from quickstudy.answering import Judged, answer, judge
    from quickstudy.data.labelled import read_labelled

    said: list[Judged] = []

    def listen(x: Any) -> None:
        if reject:
            said.append(judge(model, task, x))
        else:
            chances = answer(model, task, x)
            said.append(Judged(chances, chances.new_zeros(0), chances.new_zeros(0)))

    truth: list[str] = []
    origins: list[str] = []
    if not labelled:
        x, origins, contents = read_queries(model, task, inputs)
        listen(x)
    else:
        contents = []
        for one in inputs:
            part = read_labelled(one, **task.inputs, fewest_classes=1)
            x = as_inputs(model, part.x)
            check_truth(task, x, part.labels, part.origins)
            listen(x)
            truth += part.labels
            origins += part.origins
            contents += contents_of(part.x, part.origins)
    whole = Judged(*(torch.cat(each) for each in zip(*said, strict=True)))
    return Answers(
        origins,
        task.class_names,
        whole.probabilities,
        truth if labelled else None,
        whole.scores.tolist() if reject else None,
        whole.unknown.tolist() if reject else None,
        contents,
    )


def read_queries(
    model: Artifact, task: AdaptedTask, inputs: list[str]
) -> tuple[Any, list[str], list[Any]]:
    """Files, folders or texts as the model reads them, where each came from, and its content as a log keeps it."""
    from quickstudy.data.labelled import read_inputs

    x, origins = read_inputs(inputs, **task.inputs)
    texts = {f"text {place}": text for place, text in enumerate(inputs, start=1)}
    contents = contents_of(x, origins)
    return as_inputs(model, x), [texts.get(origin, origin) for origin in origins], contents


def contents_of(x: Any, origins: list[str]) -> list[Any]:
    """The texts, or the numbers, of examples; of images, their files; of records, where they stand."""
    if isinstance(x, list):
        return x
    return origins if isinstance(x, dict) or x.ndim > 2 else x.tolist()


def check_truth(
    task: AdaptedTask, x: Any, labels: Sequence[str | Sequence[str]], origins: list[str]
) -> None:
    """Check that labelled examples, of a class or of several labels each, can score a task.

    Raises:
        Failure: a label that the task does not know, or an example that it learned from.
    """
    from quickstudy.adapted import fingerprints

    seen = set(task.seen)
    for label, origin, mark in zip(labels, origins, fingerprints(x), strict=True):
        own = [label] if isinstance(label, str) else label
        unknown = [each for each in own if each not in task.class_names]
        if unknown:
            raise Failure(
                f"The label {unknown[0]!r} of {origin} is none of this task's classes, which are "
                f"{', '.join(task.class_names)}; correct the label, or leave that input out."
            )
        if mark in seen:
            raise Failure(
                f"The task learned from {origin} itself, which therefore cannot test it; leave that input out, or "
                "predict without --labelled."
            )


def as_inputs(model: Artifact, x: Any) -> Any:
    """Examples as the model reads them: texts become tokens, tensors stay."""
    from quickstudy.data.calling import Tokenizes, tokens_of

    read = getattr(model.learner.encoder, "read", None)
    if read is not None and isinstance(x, dict):
        return read(x)
    if isinstance(x, list) and isinstance(model.learner.encoder, Tokenizes):
        return tokens_of(x, model.learner.encoder)
    return x
