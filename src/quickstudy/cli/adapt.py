"""``adapt``: a new task from a handful of examples, or from the names of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.asking import as_inputs
from quickstudy.cli.console import command, percent, print_result, say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.many import gives_many, read_many, refuse_many
from quickstudy.cli.values import learn_values

if TYPE_CHECKING:
    from quickstudy.artifact import AdaptedTask, Artifact
    from quickstudy.data.labelled import Labelled
    from quickstudy.episode import Inputs
    from quickstudy.labelling import Labels
    from quickstudy.naming import Description

MOST_UNLABELLED = 5000
"""Examples without a label that a task takes at most. Their number tells in time and in the size of its file."""


def adapt(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a trained model.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="TASK", help="The file to leave the task in.")
    ],
    support: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SUPPORT]",
            help="A folder of class folders, a CSV or JSONL with text,label, or one of numbers.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="All classes, where SUPPORT does not show them all, or is left out: to answer by their names.",
        ),
    ] = None,
    describe: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="What the task is about, or numbers with commas between, for a model that reads it.",
        ),
    ] = "",
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="INPUTS",
            help="Examples without a label, to learn from too: a folder, a table or, of texts, a .txt file.",
        ),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Learn from these examples, too, when an input is of none of the classes, for predict --reject.",
        ),
    ] = False,
    kept: Annotated[
        float,
        typer.Option(
            "--keep",
            metavar="SHARE",
            help="With --unknown: of inputs of its classes, the share that is to be answered; fewer, and more of no "
            "class are refused.",
        ),
    ] = 0.95,
    earlier: Annotated[
        Path | None,
        typer.Option("--from", metavar="TASK", help="Learn more about this task, begun before."),
    ] = None,
    new_classes: Annotated[
        bool,
        typer.Option(
            "--new-classes",
            help="With --from: labels that the task does not know become classes of it, and so do --classes.",
        ),
    ] = False,
    after: Annotated[
        Path | None,
        typer.Option(
            metavar="TASK", help="Start from what this task left, for a model that remembers."
        ),
    ] = None,
    place: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="NUMBER", help="Which task of its stream this is; checks --after."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Begin anew where the --out file exists already.")
    ] = False,
) -> None:
    """Learn a new task from a few examples.

    What was learned is one small file, the task, from which predict answers; the model itself stays as it is. The name
    of a class is the name of its folder, or the text in the label column; of a model that gives a text any number of
    labels, that column holds them with semicolons between, or none. A model that predicts numbers learns from a table
    of them: the one to predict is in the column value, or else in the last one. A model that reads names can
    begin without a single example. Of more than 5000 examples without a label, so many are taken at random.

    \b
    Examples:
      quickstudy adapt runs/demo/artifact photos --out photos.task
      quickstudy adapt runs/demo/artifact one-more-letter --from new.task --new-classes --out new.task
      quickstudy adapt runs/named/artifact --classes "red fox,grey wolf" --describe "animals" --out new.task
      quickstudy adapt runs/named/artifact --from new.task --new-classes --classes "brown bear" --out new.task
      quickstudy adapt runs/demo/artifact more-photos --from photos.task --out photos.task
      quickstudy adapt runs/intents/artifact few.csv --unlabelled many.txt --out intents.task
      quickstudy adapt text tickets.csv --unknown --out tickets.task
      quickstudy adapt runs/waves/artifact points.csv --out wave.task
      quickstudy adapt runs/streams/artifact tuesday.csv --after monday.task --out tuesday.task
    """
    if out.exists() and not replace and (earlier is None or not out.samefile(earlier)):
        raise WrongUse(
            f"{out} exists already and is not overwritten; learn more with --from {out}, begin anew with --replace, or "
            "choose another --out."
        )
    if earlier is not None and (after is not None or place is not None):
        raise WrongUse(
            "--from learns more about a task, --after begins the next one of its stream; leave one of them out."
        )
    if new_classes and earlier is None:
        raise WrongUse(
            "--new-classes adds to a task that has begun; name it with --from, or leave --new-classes out."
        )
    if not 0 < kept < 1:
        raise WrongUse(f"--keep is a share between 0 and 1, such as 0.9; found {kept}.")
    if unknown and (support is None or earlier is not None or after is not None):
        raise WrongUse(
            "What is of no class is learned from all examples of a task that begins by itself; give them as SUPPORT, "
            "and leave --from and --after out."
        )
    from quickstudy.artifact import load_artifact, load_task
    from quickstudy.following import check_place

    model = load_artifact(artifact)
    begun = None if earlier is None else load_task(earlier, model)
    previous = None if after is None else load_task(after, model)
    check_place(previous, place)
    values = model.learner.likelihood.of_values
    named = names_in(classes)
    if begun is not None and (describe or (named and not new_classes)):
        raise WrongUse(
            "A task has its classes and says what it is about when it begins; leave --classes and --describe out, or "
            "begin anew without --from. Further classes are added by name with --new-classes --classes NAME,NAME."
        )
    if values:
        if support is None or named or unlabelled is not None or unknown:
            raise WrongUse(
                "This model predicts numbers; give a table of them as SUPPORT, and leave --classes, --unlabelled and "
                "--unknown out."
            )
        told_of = said(model, describe)
        task = learn_values(model, support, begun, description=told_of, after=previous)
    else:
        told_of = said(model, describe)
        task = learn(
            model,
            support,
            begun,
            classes=named,
            description=told_of,
            after=previous,
            new_classes=new_classes,
            unlabelled=unlabelled,
            share_kept=kept if unknown else None,
        )
    keep(model, task, out)
    known = ", ".join(task.class_names[:10]) + (", …" if len(task.class_names) > 10 else "")
    what = f"to predict {known}" if values else f"{len(task.class_names)} classes ({known})"
    told = f"{task.examples} examples" if task.examples else "their names alone"
    if task.unlabelled:
        told += f" and {task.unlabelled} examples without a label"
    where = f", as task {task.before + 1} of its stream" if task.before else ""
    say(f"Learned {what} from {told}{where}.")
    if unknown:
        say(
            f"It refuses (predict --reject) what is less like its classes than {percent(kept)} of these examples."
        )
    print_result(str(out))
    say(f"Try it: {command('predict', out)} INPUT")


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

    bare = None if unlabelled is None else read_unlabelled(model, unlabelled)
    if begun is not None and classes is not None:
        begun, classes = grow_by_name(model, begun, classes), None
        if support is None and bare is None:
            return begun
    if support is None:
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
        if share_kept is not None:
            refuse_many(model, "--unknown")
        texts, labels, _ = read_many(model, str(support))
        x = as_inputs(model, texts)
    else:
        fewest = 2 if begun is None and classes is None else 1
        _, x, labels = read_support(model, support, bare, fewest_classes=fewest)
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
    if share_kept is not None:
        left = held_out(model, x, labels, class_names=classes, description=description)
        task.rejection = left.rejection(share_kept)
    return task


def read_support(
    model: Artifact, support: Path, bare: Inputs | None, *, fewest_classes: int
) -> tuple[Labelled, Inputs, Labels]:
    """Labelled examples as they stand in a folder or file; as the model takes them, others behind; and their labels."""
    from quickstudy.data.labelled import read_labelled
    from quickstudy.learning import and_unlabelled

    examples = read_labelled(str(support), **model.inputs, fewest_classes=fewest_classes)
    x = as_inputs(model, examples.x)
    if bare is None:
        return examples, x, examples.labels
    return examples, *and_unlabelled(x, examples.labels, bare)


def names_in(classes: str | None) -> list[str] | None:
    """The names that a person typed with commas between.

    >>> names_in("red fox, wolf")
    ['red fox', 'wolf']
    """
    return None if classes is None else [name.strip() for name in classes.split(",")]


def read_unlabelled(model: Artifact, path: Path) -> Inputs:
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
    found = as_inputs(model, read_inputs([str(path)], **model.inputs)[0])
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


def keep(model: Artifact, task: AdaptedTask, out: Path) -> None:
    """Save a task beside a note of where its model lies."""
    from quickstudy.artifact import save_task

    save_task(out, task, base=model.path)
