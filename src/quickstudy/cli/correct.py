"""``correct``: say what would have been right; the task learns it at once, the log keeps it for later."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.console import command, print_json, print_result, say
from quickstudy.cli.errors import Failure, WrongUse
from quickstudy.cli.many import refuse_many

if TYPE_CHECKING:
    from quickstudy.artifact import AdaptedTask, Artifact


def correct(
    task: Annotated[Path, typer.Argument(metavar="TASK", help="A task file that adapt left.")],
    example: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="An image, a folder of images, a text, a table, or numbers."
        ),
    ],
    right: Annotated[
        str, typer.Argument(metavar="LABEL", help="The class that it is of, or the number.")
    ],
    log: Annotated[
        Path, typer.Option(metavar="FILE", help="The log of feedback that it is added to.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="TASK2", help="Leave the new task here, and TASK as it is."
        ),
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(metavar="ARTIFACT", help="Its model, if that has moved since adapt."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a line.")
    ] = False,
) -> None:
    """Correct an answer, which the task learns at once.

    The correction is logged, for «quickstudy improve» to learn from, and the task goes on from it as from any example.
    TASK is replaced as a whole; what it was before lies beside it as TASK.before. An input that the task learned from
    already is only logged.

    \b
    Examples:
      quickstudy correct photos.task new/3.jpg moon --log feedback.jsonl
      quickstudy correct intents.task "Where is my parcel?" delivery --log feedback.jsonl
      quickstudy correct wave.task 0.5 1.2 --log feedback.jsonl
    """
    if out is not None and out.exists():
        raise WrongUse(f"{out} exists already and is not overwritten; choose another --out.")
    import torch

    from quickstudy.adapted import fingerprints
    from quickstudy.artifact import base_of, extend, load_artifact, load_task, save_task
    from quickstudy.cli.asking import read_queries
    from quickstudy.cli.values import asked_rows
    from quickstudy.likelihood import Categorical
    from quickstudy.pretrained import called, ships

    model = load_artifact(base_of(task) if artifact is None else artifact)
    refuse_many(model, "correct")
    refuse_records(model)
    begun = load_task(task, model)
    classes = isinstance(model.learner.likelihood, Categorical)
    if classes:
        x, origins, contents = read_queries(model, begun, [example])
    else:
        x, _, origins = asked_rows(begun, [example])
        contents = x.tolist()
    label = right_class(begun, right) if classes else right_number(right)
    predicted = predictions(model, begun, x)
    seen = set(begun.seen)
    fresh = [mark not in seen for mark in fingerprints(x)]
    learned, new = begun, x[torch.tensor(fresh)]
    if len(new):
        labels: Any = [label] * len(new) if classes else torch.full((len(new), 1), float(label))
        learned = extend(model, begun, new, labels)
    names = begun.class_names if classes else []
    log_answers(log, model, task, contents, predicted, [label] * len(contents), names)
    place = out or task
    if len(new):
        if out is None:
            keep_before(task)
        save_task(place, learned, base=model.path)
    rows = [
        {"input": origin, "predicted": said, "correct": label, "learned": is_new}
        for origin, said, is_new in zip(origins, predicted, fresh, strict=True)
    ]
    if as_json:
        print_json({"task": str(place), "examples": learned.examples, "corrected": rows})
        return
    for row in rows:
        said = row["predicted"] if classes else f"{row['predicted']:.4g}"
        instead = "" if said == label else f", not {said}"
        say(
            f"Learned that {row['input']} is {label}{instead}."
            if row["learned"]
            else f"Only logged that {row['input']} is {label}: the task learned from it before, and unlearns nothing."
        )
    print_result(str(place if len(new) else task))
    later = command("improve", called(model.path), "--feedback", log)
    if ships(model.path) and model.inputs["kind"] == "text":
        later += " --data short_texts"  # which its own training data are not: at hand
    say(f"Later, let the model learn too: {later} --out NEW")


def right_class(task: AdaptedTask, label: str) -> str:
    """The class that a correction names.

    Raises:
        Failure: the task does not know it.
    """
    if label not in task.class_names:
        raise Failure(
            f"The label {label!r} is none of this task's classes, which are {', '.join(task.class_names)}; correct it, "
            "or begin a new task with all classes. Nothing was logged."
        )
    return label


def right_number(text: str) -> float:
    """The number that a correction names.

    Raises:
        WrongUse: it is none, or not finite.

    >>> right_number("1.5")
    1.5
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise WrongUse(f"Found {text!r}; this model predicts numbers, so give the right one.")
    return number


def predictions(model: Artifact, task: AdaptedTask, x: Any) -> list[Any]:
    """What a task says of inputs: classes by name, or numbers."""
    from quickstudy.artifact import answer
    from quickstudy.likelihood import Categorical

    said = answer(model, task, x)
    if isinstance(model.learner.likelihood, Categorical):
        return [task.class_names[i] for i in said.argmax(1).tolist()]
    numbers: list[Any] = said[:, 0].tolist()
    return numbers


def refuse_records(model: Artifact) -> None:
    """Refuse what a log of feedback cannot hold.

    Raises:
        WrongUse: the model reads examples of several parts.
    """
    if model.inputs["kind"] == "several":
        raise WrongUse(
            f"A log of feedback holds images, texts and rows, but {model.path} reads records of several parts. Teach a "
            "task by more of them: quickstudy adapt MODEL RECORDS --from TASK."
        )


def log_answers(
    log: Path,
    model: Artifact,
    task: Path,
    contents: Sequence[Any],
    predicted: Sequence[Any],
    correct: Sequence[Any] | None,
    class_names: Sequence[str] = (),
) -> None:
    """Add answers to a log of feedback; images go beside it.

    Args:
        log: the file.
        model: that answered.
        task: that was asked; in the log it is named by its path from there, so both can be moved together.
        contents: the inputs: texts, numbers, or files of images.
        predicted: the answers.
        correct: the right ones, where they are known.
        class_names: of the task.
    """
    from quickstudy.durable import finite
    from quickstudy.feedback import Event, append, check_log, keep_image

    check_log(log)  # before any image is kept beside it
    kind = model.inputs["kind"]
    named = os.path.relpath(task.resolve(), log.resolve().parent)
    events = [
        Event(
            task=Path(named).as_posix(),
            base=model.id,
            kind=kind,
            input=finite(content),
            predicted=predicted[i],
            correct=None if correct is None else correct[i],
            classes=tuple(class_names),
            sha256=keep_image(log, content) if kind == "image" else "",
        )
        for i, content in enumerate(contents)
    ]
    append(log, events)


def keep_before(task: Path) -> None:
    """Keep a task file as it is under another name, whole at any moment."""
    before = task.with_name(f"{task.name}.before")
    fresh = task.with_name(f".{task.name}.{os.getpid()}.before")
    try:
        fresh.unlink(missing_ok=True)
        with suppress(OSError):  # not every file system has links
            os.link(task, fresh)
        if not fresh.exists():
            shutil.copy2(task, fresh)
        fresh.replace(before)
    finally:
        fresh.unlink(missing_ok=True)
