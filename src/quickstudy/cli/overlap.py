"""What ``evaluate`` says of texts that a model has trained on and is now asked about."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from quickstudy.cli.console import say

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact
    from quickstudy.data.overlap import Overlap
    from quickstudy.data.source import Split, TaskSource


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
    first = found.examples[0]
    advice = "They are left out." if dropped else "Leave them out by --drop-duplicates."
    say(
        f"Note: Of {found.tested:,} texts of the test, {found.exact:,} are in the training too and {found.near:,} "
        f"nearly so, such as {_short(first['tested'])!r} and {_short(first['training'])!r}. {advice}"
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
