"""``adapt`` and ``predict`` for models that give a text any number of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from quickstudy.cli.console import percent, print_result, print_table
from quickstudy.cli.errors import Failure, WrongUse

if TYPE_CHECKING:
    from torch import Tensor

    from quickstudy.artifact import AdaptedTask, Artifact

NONE = "none of them"
"""How no label at all is said to a person."""


def gives_many(model: Artifact) -> bool:
    """Whether a model gives an example any number of labels."""
    from quickstudy.likelihood import Bernoulli

    return isinstance(model.learner.likelihood, Bernoulli)


def refuse_many(model: Artifact, what: str) -> None:
    """Refuse what is there for one class of each example, or for numbers.

    Raises:
        WrongUse: the model gives an example any number of labels.
    """
    if gives_many(model):
        raise WrongUse(
            f"{what} is not for a model that gives an example any number of labels, which {model.path} does; leave it "
            "out, or choose a model of one class."
        )


def read_many(model: Artifact, path: str) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    """Texts, the labels of each, and where each came from, of a table with the columns text and label.

    Raises:
        Failure: the model reads something else than texts.
        DataError: the table cannot be used; says where and what to do.
    """
    from quickstudy.data.labelled import TEXT
    from quickstudy.data.many_labels import labelled_many
    from quickstudy.data.records import read_records
    from quickstudy.data.rows import LABEL
    from quickstudy.data.splitting import check_conflicts

    if model.inputs["kind"] != "text":
        raise Failure(
            f"Many labels for an example are read from tables of texts, but this model reads {model.inputs['kind']} "
            "examples; use it from Python."
        )
    found = labelled_many(path, read_records(path, lists=True), text=TEXT, label=LABEL)
    texts = [each.text for each in found]
    places = [each.place for each in found]
    check_conflicts(texts, ["; ".join(sorted(each.labels)) for each in found], places, what="text")
    return texts, [each.labels for each in found], places


class Given(NamedTuple):
    """The labels that a task gives to some texts."""

    origins: list[str]
    label_names: list[str]
    probabilities: Tensor
    """(text, label)"""
    truth: list[tuple[str, ...]] | None
    """The right labels, where the inputs carry them."""

    @property
    def labels(self) -> list[list[str]]:
        """Of each text the labels that are likelier than not."""
        return [
            [name for name, p in zip(self.label_names, row, strict=True) if p > 0.5]
            for row in self.probabilities.tolist()
        ]

    def scores(self) -> dict[str, float]:
        """Micro F1 and the other measures of :mod:`quickstudy.evaluation.labels`, where the truth is known."""
        import torch

        from quickstudy.episode import Context, Examples
        from quickstudy.evaluation.labels import label_measures
        from quickstudy.likelihood import Bernoulli

        if self.truth is None:
            return {}
        outputs = self.probabilities.double().cpu().logit()[None]
        y = torch.tensor(
            [[float(name in each) for name in self.label_names] for each in self.truth]
        )
        count, way = y.shape
        examples = Examples(y[None], y[None], torch.ones(1, count, dtype=torch.bool))
        classes = torch.ones(1, way, dtype=torch.bool)
        context = Context(classes, torch.zeros(1, 0), torch.zeros(1, way, 0))
        found = {"micro_f1": Bernoulli().task_score(outputs, examples, context)}
        found |= label_measures(outputs, examples, context)
        return {name: float(value) for name, value in found.items()}


def give(model: Artifact, task: AdaptedTask, inputs: list[str], *, labelled: bool = False) -> Given:
    """The labels that a task gives to tables of texts, or to texts.

    Raises:
        Failure: a labelled input has a label that the task does not know, or the task learned from it.
    """
    import torch

    from quickstudy.answering import answer
    from quickstudy.cli.asking import as_inputs, check_truth, read_queries

    if not labelled:
        x, origins, _ = read_queries(model, task, inputs)
        return Given(origins, task.class_names, answer(model, task, x), None)
    truth: list[tuple[str, ...]] = []
    origins, parts = [], []
    for one in inputs:
        texts, labels, places = read_many(model, one)
        x = as_inputs(model, texts)
        check_truth(task, x, labels, places)
        parts.append(answer(model, task, x))
        truth += labels
        origins += places
    return Given(origins, task.class_names, torch.cat(parts), truth)


def given_as_json(given: Given) -> dict[str, Any]:
    """The answers as one JSON object; with known labels also their scores and each ``truth``."""
    rows = []
    for i, (origin, labels) in enumerate(zip(given.origins, given.labels, strict=True)):
        row: dict[str, Any] = {"input": origin, "labels": labels}
        if given.truth is not None:
            row["truth"] = list(given.truth[i])
        chances = given.probabilities[i].tolist()
        row["probabilities"] = dict(zip(given.label_names, chances, strict=True))
        rows.append(row)
    return {"labels": given.label_names, "answers": rows, **given.scores()}


def print_given(given: Given) -> None:
    """The labels of each text as a table, and how well they fit where that is known."""
    rows = []
    for i, (origin, labels) in enumerate(zip(given.origins, given.labels, strict=True)):
        chances = dict(zip(given.label_names, given.probabilities[i].tolist(), strict=True))
        row = [origin, ", ".join(f"{name} {percent(chances[name])}" for name in labels) or NONE]
        if given.truth is not None:
            right = set(labels) == set(given.truth[i])
            row.append("" if right else f"wrong: {', '.join(given.truth[i]) or NONE}")
        rows.append(row)
    headings = ["input", "labels"]
    print_table(headings if given.truth is None else [*headings, ""], rows)
    found = given.scores()
    if found:
        print_result(
            f"\nMicro F1 {percent(found['micro_f1'])}, macro F1 {percent(found['macro_f1'])}; all labels right of "
            f"{percent(found['exact_match'])} of {len(rows)} inputs."
        )
