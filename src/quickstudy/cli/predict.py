"""``predict``: answers of a task to new inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.asking import Answers, ask
from quickstudy.cli.console import percent, print_json, print_result, print_table
from quickstudy.cli.correct import log_answers, refuse_records
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.many import give, given_as_json, gives_many, print_given, refuse_many
from quickstudy.cli.values import ask_values, print_values, values_as_json


def predict(
    task: Annotated[Path, typer.Argument(metavar="TASK", help="A task file that adapt left.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, folders of images, text files, texts, tables, or rows with commas between.",
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
    Where an input may have any number of labels, it gets those that are likelier than not. Where numbers are predicted,
    every input gets one. A row is one of a table, or typed with commas between its entries.

    \b
    Examples:
      quickstudy predict photos.task new/1.jpg new/2.jpg
      quickstudy predict photos.task held-out --labelled
      quickstudy predict intents.task "Where is my parcel?" --json
      quickstudy predict photos.task new --reject
      quickstudy predict wave.task 0.5 1.5
      quickstudy predict customers.task "34,basic,,Rome"
      quickstudy predict photos.task new --log feedback.jsonl
    """
    from quickstudy.artifact import base_of, load_artifact, load_task

    model = load_artifact(base_of(task) if artifact is None else artifact)
    if gives_many(model):
        for chosen, option in ((reject, "--reject"), (log is not None, "--log")):
            if chosen:
                refuse_many(model, option)
        given = give(model, load_task(task, model), inputs, labelled=labelled)
        if as_json:
            print_json(given_as_json(given))
        else:
            print_given(given)
        return
    if log is not None:
        refuse_records(model)
    if model.learner.likelihood.of_values:
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
