"""``adapt`` and ``predict``: a new task from a handful of examples, and answers from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from quickstudy.cli.console import command, percent, print_json, print_result, print_table, say
from quickstudy.cli.correct import log_answers
from quickstudy.cli.errors import Failure, WrongUse
from quickstudy.cli.values import ask_values, learn_values, print_values, values_as_json

if TYPE_CHECKING:
    from torch import Tensor

    from quickstudy.artifact import AdaptedTask, Artifact
    from quickstudy.naming import Description


UNKNOWN = "unknown"
"""The answer to an input that is refused."""


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
    earlier: Annotated[
        Path | None,
        typer.Option("--from", metavar="TASK", help="Learn more about this task, begun before."),
    ] = None,
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
    of a class is the name of its folder, or the text in the label column. A model that predicts numbers learns from a
    table of them: the one to predict is in the column value, or else in the last one. A model that reads names can
    begin without a single example.

    \b
    Examples:
      quickstudy adapt runs/demo/artifact photos --out photos.task
      quickstudy adapt runs/named/artifact --classes "red fox,grey wolf" --describe "animals" --out new.task
      quickstudy adapt runs/demo/artifact more-photos --from photos.task --out photos.task
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
    from quickstudy.artifact import load_artifact, load_task
    from quickstudy.following import check_place
    from quickstudy.likelihood import Categorical

    model = load_artifact(artifact)
    begun = None if earlier is None else load_task(earlier, model)
    previous = None if after is None else load_task(after, model)
    check_place(previous, place)
    values = not isinstance(model.learner.likelihood, Categorical)
    named = None if classes is None else [name.strip() for name in classes.split(",")]
    if begun is not None and (named or describe):
        raise WrongUse(
            "A task has its classes and says what it is about when it begins; leave --classes and --describe out, or "
            "begin anew without --from."
        )
    if values:
        if support is None or named:
            raise WrongUse(
                "This model predicts numbers; give a table of them as SUPPORT, and leave --classes out."
            )
        told_of = said(model, describe)
        task = learn_values(model, support, begun, description=told_of, after=previous)
    else:
        if previous is not None and support is None:
            raise WrongUse(
                "A task that follows another learns from examples; give some as SUPPORT, or leave --after out."
            )
        told_of = said(model, describe)
        task = learn(model, support, begun, classes=named, description=told_of, after=previous)
    keep(model, task, out)
    known = ", ".join(task.class_names[:10]) + (", …" if len(task.class_names) > 10 else "")
    what = f"to predict {known}" if values else f"{len(task.class_names)} classes ({known})"
    told = f"{task.examples} examples" if task.examples else "their names alone"
    where = f", as task {task.before + 1} of its stream" if task.before else ""
    say(f"Learned {what} from {told}{where}.")
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
) -> AdaptedTask:
    """The task after seeing the labelled examples of a folder or file, or by the names of its classes alone.

    Raises:
        WrongUse: there are neither examples nor names.
    """
    from quickstudy.adapted import begin_by_name
    from quickstudy.artifact import extend
    from quickstudy.data.labelled import read_labelled

    if support is None:
        if classes is None:
            raise WrongUse(
                "There is nothing to learn from; name a folder or file of labelled examples, or the classes with "
                '--classes "NAME,NAME".'
            )
        return begin_by_name(model, classes, description)
    fewest = 2 if begun is None and classes is None else 1
    examples = read_labelled(str(support), **model.inputs, fewest_classes=fewest)
    x = as_inputs(model, examples.x)
    return extend(
        model,
        begun,
        x,
        examples.labels,
        class_names=classes,
        description=description,
        after=after,
    )


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


def as_inputs(model: Artifact, x: Any) -> Any:
    """Examples as the model reads them: texts become tokens, tensors stay."""
    read = getattr(model.learner.encoder, "read", None)
    if read is not None and isinstance(x, dict):
        return read(x)
    tokenize = getattr(model.learner.encoder, "tokenize", None)
    return tokenize(x) if tokenize is not None and isinstance(x, list) else x


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


def predict(
    task: Annotated[Path, typer.Argument(metavar="TASK", help="A task file that adapt left.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, folders of images, text files, texts, tables of numbers, or numbers.",
        ),
    ],
    artifact: Annotated[
        Path | None,
        typer.Option(metavar="ARTIFACT", help="Its model, if that has moved since adapt."),
    ] = None,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled", help="The inputs carry their labels, as for adapt: give the score."
        ),
    ] = False,
    reject: Annotated[
        bool,
        typer.Option(
            "--reject",
            help="Answer unknown where an input is like no class, as evaluate --unknown taught the model.",
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write inputs and answers, and with --labelled the labels, into a log of feedback.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Answer from a task that was learned.

    Every input gets its likeliest class and that class's probability; --json gives the probabilities of all classes.
    Where numbers are predicted, every input gets one; an input is a row of a table, or numbers with commas between.

    \b
    Examples:
      quickstudy predict photos.task new/1.jpg new/2.jpg
      quickstudy predict photos.task held-out --labelled
      quickstudy predict intents.task "Where is my parcel?" --json
      quickstudy predict photos.task new --reject
      quickstudy predict wave.task 0.5 1.5
      quickstudy predict photos.task new --log feedback.jsonl
    """
    from quickstudy.artifact import base_of, load_artifact, load_task
    from quickstudy.likelihood import Categorical

    model = load_artifact(base_of(task) if artifact is None else artifact)
    if not isinstance(model.learner.likelihood, Categorical):
        if reject:
            raise WrongUse(
                "This model predicts numbers, which are of no class; leave --reject out."
            )
        values = ask_values(model, load_task(task, model), inputs, labelled=labelled)
        if log is not None:
            truths = None if values.truth is None else values.truth.tolist()
            log_answers(log, model, task, values.x.tolist(), values.answers.tolist(), truths)
        if as_json:
            print_json(values_as_json(values))
        else:
            print_values(values)
        return
    begun = load_task(task, model)
    answers = ask(model, begun, inputs, labelled=labelled, reject=reject)
    if log is not None:
        names = begun.class_names
        log_answers(log, model, task, answers.contents, answers.labels, answers.truth, names)
    if as_json:
        print_json(answers_as_json(answers))
    else:
        print_answers(answers)


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
        x, origins, contents = read_queries(model, inputs)
        listen(x)
    else:
        contents = []
        for one in inputs:
            part = read_labelled(one, **model.inputs, fewest_classes=1)
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


def read_queries(model: Artifact, inputs: list[str]) -> tuple[Any, list[str], list[Any]]:
    """Files, folders or texts as the model reads them, where each came from, and its content as a log keeps it."""
    from quickstudy.data.labelled import read_inputs

    x, origins = read_inputs(inputs, **model.inputs)
    texts = {f"text {place}": text for place, text in enumerate(inputs, start=1)}
    contents = contents_of(x, origins)
    return as_inputs(model, x), [texts.get(origin, origin) for origin in origins], contents


def contents_of(x: Any, origins: list[str]) -> list[Any]:
    """The texts, or the numbers, of examples; of images, their files; of records, where they stand."""
    if isinstance(x, list):
        return x
    return origins if isinstance(x, dict) or x.ndim > 2 else x.tolist()


def check_truth(task: AdaptedTask, x: Any, labels: list[str], origins: list[str]) -> None:
    """Check that labelled examples can score a task.

    Raises:
        Failure: a label that the task does not know, or an example that it learned from.
    """
    from quickstudy.adapted import fingerprints

    seen = set(task.seen)
    for label, origin, mark in zip(labels, origins, fingerprints(x), strict=True):
        if label not in task.class_names:
            raise Failure(
                f"The label {label!r} of {origin} is none of this task's classes, which are "
                f"{', '.join(task.class_names)}; correct the label, or leave that input out."
            )
        if mark in seen:
            raise Failure(
                f"The task learned from {origin} itself, which therefore cannot test it; leave that input out, or "
                "predict without --labelled."
            )


def answers_as_json(answers: Answers) -> dict[str, Any]:
    """The answers as one JSON object; with known labels also ``accuracy``, ``right`` and each ``truth``."""
    rows = []
    for i, (origin, label) in enumerate(zip(answers.origins, answers.labels, strict=True)):
        shares = answers.probabilities[i].tolist()
        row: dict[str, Any] = {"input": origin, "label": label, "probability": max(shares)}
        if answers.truth is not None:
            row["truth"] = answers.truth[i]
        if answers.scores is not None and answers.refused is not None:
            row |= {"unknown": answers.refused[i], "unknown_score": answers.scores[i]}
        row["probabilities"] = dict(zip(answers.class_names, shares, strict=True))
        rows.append(row)
    found: dict[str, Any] = {"classes": answers.class_names, "answers": rows}
    if answers.truth is not None:
        found |= {"accuracy": answers.right / len(rows), "right": answers.right}
    return found


def print_answers(answers: Answers) -> None:
    """The answers as a table, and the accuracy where it is known."""
    rows = []
    for i, (origin, label) in enumerate(zip(answers.origins, answers.labels, strict=True)):
        row = [origin, label, percent(float(answers.probabilities[i].max()))]
        if answers.truth is not None:
            row.append("" if answers.truth[i] == label else f"wrong: it is {answers.truth[i]}")
        rows.append(row)
    headings = ["input", "answer", "probability"]
    print_table(headings if answers.truth is None else [*headings, ""], rows)
    if answers.truth is not None:
        count = len(rows)
        print_result(
            f"\n{answers.right} of {count} right, an accuracy of {percent(answers.right / count)}."
        )
