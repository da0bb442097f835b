"""``adapt``: a new task from a handful of examples, or from the names of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.console import command, percent, print_result, say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.support import learn, names_in, said
from quickstudy.cli.values import learn_values

if TYPE_CHECKING:
    from quickstudy.artifact import AdaptedTask, Artifact


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
        float | None,
        typer.Option(
            "--keep",
            metavar="SHARE",
            help="With --unknown: of inputs of its classes, the share that is to be answered, by default 0.95; fewer, "
            "and more of no class are refused.",
        ),
    ] = None,
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
    check_place_for(out, support, unlabelled, replace=replace)
    if kept is not None and not unknown:
        raise WrongUse("--keep goes with --unknown; add that, or leave --keep out.")
    if kept is not None and not 0 < kept < 1:
        raise WrongUse(f"--keep is a share between 0 and 1, such as 0.9; found {kept}.")
    if unknown and (support is None or earlier is not None or after is not None):
        raise WrongUse(
            "What is of no class is learned from all examples of a task that begins by itself; give them as SUPPORT, "
            "and leave --from and --after out."
        )
    from quickstudy.artifact import load_artifact, load_task
    from quickstudy.following import check_place
    from quickstudy.rejection import SHARE_KEPT

    share_kept = SHARE_KEPT if kept is None else kept
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
            share_kept=share_kept if unknown else None,
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
            f"It refuses (predict --reject) what is less like its classes than {percent(share_kept)} of these examples."
        )
    print_result(str(out))
    say(f"Try it: {command('predict', out)} INPUT")


def check_place_for(
    out: Path, support: Path | None, unlabelled: Path | None, *, replace: bool
) -> None:
    """Refuse to put a task where anything else is, or was read from.

    Raises:
        WrongUse: there is.
    """
    if out.is_dir():
        raise WrongUse(
            f"{out} is a folder, and a task is a file; add its name, such as {out / 'new.task'}."
        )
    if not (replace and out.exists()):
        return
    from quickstudy.adapted import is_task

    if not is_task(out):
        which = "holds what is to be learned from" if out in (support, unlabelled) else "is no task"
        raise WrongUse(f"{out} {which} and is not overwritten; choose another --out.")


def keep(model: Artifact, task: AdaptedTask, out: Path) -> None:
    """Save a task beside a note of where its model lies."""
    from quickstudy.artifact import save_task

    save_task(out, task, base=model.path)
