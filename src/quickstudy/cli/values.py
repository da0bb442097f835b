"""``adapt`` and ``predict`` for models that predict numbers: from a table of numbers, to a number for each query."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quickstudy.cli.console import print_result, print_table
from quickstudy.cli.errors import Failure, WrongUse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from quickstudy.artifact import AdaptedTask, Artifact
    from quickstudy.data.rows import Categories
    from quickstudy.naming import Description

COLUMNS, CATEGORIES = "columns", "categories"
"""Where a task notes what its inputs are called, in their order, and the categories of each, if it may have any."""


def learn_values(
    model: Artifact,
    support: Path,
    begun: AdaptedTask | None = None,
    *,
    description: Description = "",
    after: AdaptedTask | None = None,
) -> AdaptedTask:
    """The task after seeing the examples of a table of numbers.

    Raises:
        Failure: the table has another number of inputs than the model reads.
    """
    from quickstudy.artifact import extend
    from quickstudy.data.rows import read_rows, read_valued

    path = str(support)
    if begun is not None:
        (target,) = begun.class_names
        form = begun.inputs
        x, y, _ = read_rows(path, form[COLUMNS], target=target, categories=form.get(CATEGORIES))
        assert y is not None
    else:
        rows, y, target = read_valued(path, coded=model.inputs.get("coded", False))
        x = rows.x
        check_width(model, rows.columns, path)
        form = model.inputs | noted(rows.columns, rows.categories)
    task = extend(model, begun, x, y, class_names=[target], description=description, after=after)
    return replace(task, inputs=form)


def noted(columns: Sequence[str], categories: Categories | None) -> dict[str, Any]:
    """What a task notes of its columns."""
    if categories is None:
        return {COLUMNS: list(columns)}
    lists = [None if each is None else list(each) for each in categories]
    return {COLUMNS: list(columns), CATEGORIES: lists}


def check_width(model: Artifact, columns: Sequence[str], where: str) -> None:
    """Check that a model reads so many inputs.

    Raises:
        Failure: it reads another number of them.
    """
    wanted = int(model.config.encoder.get("inputs", len(columns)))
    if len(columns) != wanted:
        raise Failure(
            f"{where} has {len(columns)} columns of inputs ({', '.join(columns)}), but this model reads {wanted}; "
            "select columns, or train a model for so many."
        )


class Values(NamedTuple):
    """The numbers that a task says of some inputs."""

    origins: list[str]
    """Where each input came from, or the numbers themselves."""
    target: str
    """What the numbers are called."""
    answers: Tensor
    """(input,)"""
    truth: Tensor | None
    """(input,), the right answers, where the inputs carry them."""
    x: Tensor
    """(input, column), what was asked."""

    @property
    def error(self) -> float:
        """The mean squared error, where the truth is known."""
        return (
            math.nan if self.truth is None else float((self.answers - self.truth).square().mean())
        )


def ask_values(
    model: Artifact, task: AdaptedTask, inputs: list[str], *, labelled: bool = False
) -> Values:
    """What a task says of tables of numbers, or of numbers that were typed.

    Args:
        model: that the task was adapted with.
        task: what is known.
        inputs: tables, or the numbers of a query with commas between.
        labelled: the tables also hold the right answers.

    Raises:
        WrongUse: an input is neither a table nor numbers, or there are more or fewer numbers than the model reads.
        Failure: a labelled input is one that the task learned from.
    """
    from quickstudy.adapted import fingerprints
    from quickstudy.artifact import answer

    (target,) = task.class_names
    x, truth, origins = asked_rows(task, inputs, labelled=labelled)
    answers = answer(model, task, x)[:, 0].cpu()
    if not labelled:
        return Values(origins, target, answers, None, x)
    seen = set(task.seen)
    for origin, mark in zip(origins, fingerprints(x), strict=True):
        if mark in seen:
            raise Failure(
                f"The task learned from {origin} itself, which therefore cannot test it; leave that input out, or "
                "predict without --labelled."
            )
    assert truth is not None
    return Values(origins, target, answers, truth[:, 0], x)


def asked_rows(
    task: AdaptedTask, inputs: list[str], *, labelled: bool = False
) -> tuple[Tensor, Tensor | None, list[str]]:
    """Rows of tables, or typed ones, as :func:`quickstudy.data.rows.read_rows` gives them; errors as above."""
    import torch

    from quickstudy.data.records import TABLES
    from quickstudy.data.rows import read_rows, row_of
    from quickstudy.data.source import DataError

    columns: list[str] = task.inputs[COLUMNS]
    categories = task.inputs.get(CATEGORIES)
    (name,) = task.class_names
    tables, truths, origins = [], [], []
    for one in inputs:
        if Path(one).suffix.lower() in TABLES:
            x, y, places = read_rows(
                one, columns, target=name if labelled else "", categories=categories
            )
        elif labelled:
            raise WrongUse(
                f"Found {one!r} with --labelled; name a table with the columns {', '.join([*columns, name])}."
            )
        else:
            try:
                x, y, places = row_of(one, columns, categories), None, [one]
            except DataError as error:
                if categories is not None:
                    raise
                raise WrongUse(str(error)) from None
        tables.append(x)
        truths += [] if y is None else [y]
        origins += places
    return torch.cat(tables), torch.cat(truths) if labelled else None, origins


def values_as_json(values: Values) -> dict[str, Any]:
    """The answers as one JSON object; with known values also ``mean_squared_error`` and each ``truth``."""
    rows: list[dict[str, Any]] = [
        {"input": origin, "value": number}
        for origin, number in zip(values.origins, values.answers.tolist(), strict=True)
    ]
    found: dict[str, Any] = {"target": values.target, "answers": rows}
    if values.truth is not None:
        for row, truth in zip(rows, values.truth.tolist(), strict=True):
            row["truth"] = truth
        found["mean_squared_error"] = values.error
    return found


def print_values(values: Values) -> None:
    """The answers as a table, and the mean squared error where it is known."""
    columns = [values.answers] if values.truth is None else [values.answers, values.truth]
    rows = [
        [origin, *(f"{float(column[i]):.4g}" for column in columns)]
        for i, origin in enumerate(values.origins)
    ]
    headings = ["input", values.target, "truth"]
    print_table(headings[: 1 + len(columns)], rows)
    if values.truth is not None:
        print_result(f"\nThe mean squared error over {len(rows)} inputs is {values.error:.4g}.")
