"""``check``: what to expect of a task, by answers to its own examples from tasks that have not learned them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.asking import contents_of
from quickstudy.cli.console import percent, print_json, print_result, print_table, progress_bar
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.many import refuse_many
from quickstudy.cli.support import names_in, read_support, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quickstudy.evaluation.held_out import HeldOut

LONGEST = 60
"""Letters of a text in a table."""
MOST_WRONG = 10
"""Examples that are shown to a person; ``--json`` has all."""


def check(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a trained model.")
    ],
    support: Annotated[
        Path,
        typer.Argument(
            metavar="SUPPORT",
            help="The examples of a task: a folder of class folders, or a CSV or JSONL with text,label.",
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...", help="All classes, where SUPPORT does not show them."
        ),
    ] = None,
    describe: Annotated[
        str,
        typer.Option(metavar="TEXT", help="What the task is about, for a model that reads it."),
    ] = "",
    unlabelled: Annotated[
        Path | None,
        typer.Option(metavar="INPUTS", help="Examples without a label, to learn from too."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Parts that are left out in turn; default: one example of each class in each, at most 10.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which examples are left out together.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
) -> None:
    """Say how well a task would do, from its own examples, and which of them may have a wrong label.

    One example of each class is left out, the task is learned from the others, and asked about those; then the next.
    No test set is needed. What is learned from all of them (adapt) will be a little better.

    \b
    Examples:
      quickstudy check text tickets.csv
      quickstudy check runs/demo/artifact photos --json
    """
    from quickstudy.artifact import load_artifact
    from quickstudy.data.rows import known_coding
    from quickstudy.evaluation.held_out import held_out

    model = load_artifact(artifact)
    refuse_many(model, "check")
    if model.learner.likelihood.of_values:
        raise WrongUse(
            "This model predicts numbers, and check is for classes; score it with: quickstudy predict TASK TABLE "
            "--labelled."
        )
    named = names_in(classes)
    fewest = 2 if named is None else 1
    examples, x, labels = read_support(
        model, support, unlabelled, form=model.inputs, fewest_classes=fewest
    )
    with progress_bar("Leaving out") as progress:
        found = held_out(
            model,
            x,
            labels,
            class_names=named,
            description=said(model, describe),
            folds=folds,
            seed=seed,
            progress=progress,
        )
    contents = contents_of(examples.x, examples.origins)
    if examples.categories is not None:
        coding = known_coding(examples.categories)
        contents = [coding.entries(row) for row in contents]
    if as_json:
        print_json(checked_as_json(found, examples.origins, contents))
    else:
        print_checked(found, examples.origins, contents)


def checked_as_json(found: HeldOut, origins: list[str], contents: list[Any]) -> dict[str, Any]:
    """All of it as one JSON object; ``wrong`` are places in ``answers``, the surest first."""
    share, least, most = found.accuracy()
    chances, names = found.probabilities, found.class_names
    asked = found.asked.nonzero()[:, 0].tolist()
    places = {i: place for place, i in enumerate(asked)}
    return {
        "accuracy": share,
        "accuracy_low": least,
        "accuracy_high": most,
        "right": int(found.right.sum()),
        "asked": len(asked),
        "folds": found.folds,
        "classes": [
            {"name": name, "asked": total, "right": right, "taken_for": others}
            for name, total, right, others in by_class(found)
        ],
        "wrong": [places[i] for i in found.wrong()],
        "answers": [
            {
                "origin": origins[i],
                "input": contents[i],
                "label": names[found.y[i]],
                "answer": names[found.answers[i]],
                "probability": float(chances[i].max()),
                "probability_of_label": float(chances[i, found.y[i]]),
            }
            for i in asked
        ],
    }


def by_class(found: HeldOut) -> list[tuple[str, int, int, dict[str, int]]]:
    """Each class, how many examples of it were asked about, how many were right, and what the others were taken for."""
    rows = []
    for number, name in enumerate(found.class_names):
        own = found.asked & (found.y == number)
        wrong = found.answers[own & ~found.right].bincount(minlength=len(found.class_names))
        order = wrong.argsort(descending=True, stable=True)
        others = {found.class_names[i]: int(wrong[i]) for i in order.tolist() if wrong[i]}
        rows.append((name, int(own.sum()), int((own & found.right).sum()), others))
    return rows


def print_checked(found: HeldOut, origins: list[str], contents: list[Any]) -> None:
    """The same for a person."""
    rows = []
    for name, total, right, others in by_class(found):
        taken = ", ".join(f"{other} ({count})" for other, count in list(others.items())[:3])
        rows.append([name, str(total), str(right), taken])
    print_table(["class", "asked", "right", "taken for"], rows)
    share, least, most = found.accuracy()
    print_result(
        f"\n{int(found.right.sum())} of {int(found.asked.sum())} right, an accuracy of {percent(share)} (between "
        f"{percent(least)} and {percent(most)})."
    )
    wrong = found.wrong()
    if not wrong:
        return
    rows = []
    for i in wrong[:MOST_WRONG]:
        text = shown(contents[i])
        chances, label = found.probabilities[i], int(found.y[i])
        cells = [
            f"{found.class_names[each]} ({percent(float(chances[each]))})"
            for each in (label, int(found.answers[i]))
        ]
        rows.append([origins[i], "" if text == origins[i] else text, *cells])
    more = f" ({len(wrong) - len(rows)} more with --json)" if len(wrong) > len(rows) else ""
    print_table(
        ["example", "", "label", "answer"],
        rows,
        title=f"Hard, or with a wrong label, the surest answers first{more}",
    )


def shown(content: str | Sequence[float | str]) -> str:
    """A text or a row, as a cell of a table has room for it.

    >>> shown([0.5, "red", "a, b"]), len(shown("long " * 20))
    ('0.5, red, "a, b"', 60)
    """
    text = content
    if not isinstance(text, str):
        cells = (each if isinstance(each, str) else f"{each:g}" for each in text)
        text = ", ".join(f'"{each}"' if "," in each else each for each in cells)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
