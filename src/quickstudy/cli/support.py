"""What ``adapt`` and ``check`` learn from, as a person gives it: examples, names, and what a task is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.cli.asking import as_inputs
from quickstudy.cli.console import say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.many import gives_many, read_many, refuse_many
from quickstudy.cli.values import noted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quickstudy.artifact import AdaptedTask, Artifact
    from quickstudy.data.labelled import Labelled
    from quickstudy.episode import Inputs
    from quickstudy.labelling import Labels
    from quickstudy.naming import Description

MOST_UNLABELLED = 5000
"""Examples without a label that a task takes at most. Their number tells in time and in the size of its file."""


def learn(
    model: Artifact,
    support: Path | None,
    begun: AdaptedTask | None = None,
    *,
    classes: list[str] | None = None,
    description: Description = "",
    after: AdaptedTask | None = None,
    new_classes: bool = False,
    unlabelled: Path | None = None,
    share_kept: float | None = None,
) -> AdaptedTask:
    """The task after seeing the examples of a folder or file, or by the names of its classes alone.

    Raises:
        WrongUse: there are neither examples nor names; examples without a label for a model of many labels.
    """
    from quickstudy.artifact import extend
    from quickstudy.evaluation.held_out import held_out
    from quickstudy.learning import and_unlabelled, begin_by_name, grow_by_name

    if begun is not None and classes is not None:
        begun, classes = grow_by_name(model, begun, classes), None
        if support is None and unlabelled is None:
            return begun
    form = model.inputs if begun is None else begun.inputs
    if support is None:
        bare = None if unlabelled is None else read_unlabelled(model, unlabelled, form)
        if begun is None and classes is not None:
            begun = begin_by_name(model, classes, description, after=after)
        if begun is not None and bare is not None:
            return extend(model, begun, *and_unlabelled(None, [], bare))
        if classes is None:
            raise WrongUse(
                "There is nothing to learn from; name a folder or file of labelled examples, or the classes with "
                '--classes "NAME,NAME".'
            )
        assert begun is not None
        return begun
    labels: Labels
    if gives_many(model):
        for given, option in (
            (share_kept is not None, "--unknown"),
            (unlabelled is not None, "--unlabelled"),
        ):
            if given:
                refuse_many(model, option)
        texts, labels, _ = read_many(model, str(support))
        x = as_inputs(model, texts)
    else:
        fewest = 2 if begun is None and classes is None else 1
        examples, x, labels = read_support(
            model, support, unlabelled, form=form, fewest_classes=fewest
        )
        if begun is None and examples.columns:
            form = form | noted(examples.columns, examples.categories)
    task = extend(
        model,
        begun,
        x,
        labels,
        class_names=classes,
        description=description,
        after=after,
        new_classes=new_classes,
    )
    task = replace(task, inputs=form)
    if share_kept is not None:
        left = held_out(model, x, labels, class_names=classes, description=description)
        task.rejection = left.rejection(share_kept)
    return task


def read_support(
    model: Artifact,
    support: Path,
    unlabelled: Path | None,
    *,
    form: Mapping[str, Any],
    fewest_classes: int,
) -> tuple[Labelled, Inputs, Labels]:
    """Labelled examples as they stand in a folder or file; as the model takes them, others behind; and their labels."""
    from quickstudy.data.labelled import read_labelled
    from quickstudy.learning import and_unlabelled

    examples = read_labelled(str(support), **form, fewest_classes=fewest_classes, once=True)
    x = as_inputs(model, examples.x)
    if unlabelled is None:
        return examples, x, examples.labels
    if examples.columns:
        form = {**form, **noted(examples.columns, examples.categories)}
    bare = read_unlabelled(model, unlabelled, form)
    return examples, *and_unlabelled(x, examples.labels, bare)


def names_in(classes: str | None) -> list[str] | None:
    """The names that a person typed with commas between.

    >>> names_in("red fox, wolf")
    ['red fox', 'wolf']
    """
    return None if classes is None else [name.strip() for name in classes.split(",")]


def read_unlabelled(model: Artifact, path: Path, form: Mapping[str, Any]) -> Inputs:
    """Examples without a label as the model takes them, :data:`MOST_UNLABELLED` of them at most.

    Raises:
        WrongUse: the model gives an example any number of labels.
    """
    import torch

    from quickstudy.data.labelled import read_inputs
    from quickstudy.episode import leaves, take_tasks
    from quickstudy.labelling import check_semi_supervised

    if gives_many(model):
        raise WrongUse(
            "This model gives an example any number of labels, and learns from examples that have theirs; leave "
            "--unlabelled out."
        )
    check_semi_supervised(model)
    found = as_inputs(model, read_inputs([str(path)], **form, typed=False)[0])
    count = len(leaves(found)[0])
    if count <= MOST_UNLABELLED:
        return found
    say(
        f"{path} holds {count} examples without a label; {MOST_UNLABELLED} of them are taken at random."
    )
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:MOST_UNLABELLED]
    return take_tasks(found, chosen)


def said(model: Artifact, text: str) -> Description:
    """A description as a person typed it: numbers with commas between where the model takes numbers, or words.

    Raises:
        WrongUse: something else than numbers for a model that reads no words.
    """
    describer = getattr(model.learner, "describer", None)
    if not text.strip() or describer is None or not describer.numbers:
        return text.strip()
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        if describer.names:
            return text.strip()
        raise WrongUse(
            f"Found --describe {text!r}; tasks of this model describe themselves by {describer.numbers} numbers with "
            "commas between."
        ) from None
