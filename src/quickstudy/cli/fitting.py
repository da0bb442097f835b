"""The source that a model is asked about: of the kind that it reads, and what of it the model has trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from quickstudy.cli.console import say
from quickstudy.cli.errors import WrongUse

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact
    from quickstudy.data.overlap import Overlap
    from quickstudy.data.source import Split, TaskSource


DataFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Holds a folder for each public data set that names no folder."
    ),
]
TestedOn = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Where tasks come from; default: the training data."),
]


class Asked(NamedTuple):
    """What a model is asked about."""

    source: TaskSource
    spec: str
    trained_on: str
    """The spec of its training, likewise with the folder of the data."""
    overlap: dict[str, Any] | None
    """For JSON, what of the source the model has trained on; None where there was nothing to compare."""


def source_of(
    model: Artifact, data: str | None, *, data_dir: Path | None, split: Split, drop: bool
) -> Asked:
    """A source to ask a model about, and what of its texts the model has trained on, which is said.

    Args:
        model: that is asked.
        data: spec of the source; that of its training by default.
        data_dir: holds a folder for each public data set that names none.
        split: of the source.
        drop: leave out what the model has trained on.
    """
    from quickstudy.build import located
    from quickstudy.data.overlap import without_overlap

    trained_on = model.config.data
    spec, trained_on = (
        each if data_dir is None else located(each, data_dir)
        for each in (data or trained_on, trained_on)
    )
    source = fitting_source(model, spec)
    shared = training_overlap(model, source, spec=spec, trained_on=trained_on, split=split)
    if shared is None:
        return Asked(source, spec, trained_on, None)
    print_overlap(shared, dropped=drop)
    kept = without_overlap(source, shared, split=split) if drop else source
    return Asked(kept, spec, trained_on, {**shared.as_json(), "dropped": drop})


def fitting_source(model: Artifact, spec: str) -> TaskSource:
    """The source that a spec names, its examples of the size that the model reads unless the spec says another.

    Raises:
        WrongUse: the model reads another kind of examples, or predicts numbers where a class is asked for.
    """
    from quickstudy.build import build_source, options_of, parse_spec
    from quickstudy.data import SOURCES
    from quickstudy.data.source import Prior
    from quickstudy.likelihood import Bernoulli

    def fit(one: str) -> str:
        name, _, given = parse_spec(one)
        if name in SOURCES:
            kind = SOURCES[name].kind
            if kind != model.inputs["kind"]:
                raise WrongUse(
                    f"The model {model.path} reads examples of the kind {model.inputs['kind']}, but {name} holds "
                    f"{kind}; choose other data or another model."
                )
            for key in set(model.inputs) & set(options_of(SOURCES[name])) - set(given):
                one += f",{key}={model.inputs[key]}"
        return one

    name, source = parse_spec(spec)[0], build_source(spec, fit=fit)
    likelihood = model.learner.likelihood
    values = likelihood.of_values
    if not values and isinstance(likelihood, Bernoulli) != (source.labels == "many"):
        able, asked = ("any number of labels", "one class")
        if source.labels == "many":
            able, asked = asked, able
        raise WrongUse(
            f"The model {model.path} gives an example {able}, but examples of {name} have {asked}; choose other data "
            "or another model."
        )
    if values != (isinstance(source, Prior) and source.values > 0):
        able, asked = ("numbers", "a class") if values else ("a class", "numbers")
        raise WrongUse(
            f"The model {model.path} predicts {able}, but the tasks of {name} ask for {asked}; choose other data or "
            "another model."
        )
    return source


def training_overlap(
    model: Artifact, source: TaskSource, *, spec: str, trained_on: str, split: Split
) -> Overlap | None:
    """The texts of a split that the model trained on; ``None`` where there is nothing to compare.

    Args:
        model: whose training texts are read again.
        source: that is evaluated on.
        spec: of that source.
        trained_on: spec of the training data.
        split: of the source.
    """
    from quickstudy.build import build_source
    from quickstudy.data.mixture import Mixture
    from quickstudy.data.overlap import overlap
    from quickstudy.data.source import DataError, DataNote

    same = spec == trained_on
    if model.inputs["kind"] != "text" or (same and not isinstance(source, Mixture)):
        return None
    training = source
    if not same:
        try:
            with warnings.catch_warnings():
                # Its owner heard of these when the model was trained.
                warnings.simplefilter("ignore", DataNote)
                training = build_source(trained_on)
        except DataError as error:
            say(f"Note: The training texts cannot be compared with those of the test. {error}")
            return None
    return overlap(training, source, split=split)


def print_overlap(found: Overlap, *, dropped: bool) -> None:
    """A note for each thing that a reader of the scores should know."""
    for origin in found.shared_origin:
        say(f"Note: These data sets are not independent: {origin}")
    if not found.exact + found.near:
        return
    from quickstudy.data.splitting import shortened

    first = found.examples[0]
    advice = "They are left out." if dropped else "Leave them out by --drop-duplicates."
    say(
        f"Note: Of {found.tested:,} texts of the test, {found.exact:,} are in the training too and {found.near:,} "
        f"nearly so, such as {shortened(first['tested'])!r} and {shortened(first['training'])!r}. {advice}"
    )
