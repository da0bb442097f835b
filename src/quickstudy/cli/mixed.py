"""What ``evaluate`` says of a mixture of sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quickstudy.cli.console import percent, print_table

if TYPE_CHECKING:
    from quickstudy.data.mixture import Mixture
    from quickstudy.data.source import TaskSource


def score_mixture(
    mixture: Mixture, score_source: Callable[[TaskSource], dict[str, Any]]
) -> dict[str, Any]:
    """The scores on each source of a mixture, and on all of them as often as they come."""
    from quickstudy.evaluation.mixed import mixture_scores

    each = {name: score_source(source) for name, source in mixture.sources.items()}
    return mixture_scores(each, mixture.shares.tolist())


def print_sources(scores: dict[str, Any], number: Callable[[float, float], str]) -> None:
    """A row for each source: how often it comes, and this model beside others on its tasks."""
    from quickstudy.report.words import METHODS

    each = scores["sources"].values()
    others = list(dict.fromkeys(name for source in each for name in source["baselines"]))
    rows = []
    for source in each:
        said = [source, *(source["baselines"].get(name) for name in others)]
        cells = [number(one["mean"], one["ci95"]) if one else "" for one in said]
        rows.append([source["source"], percent(source["share"]), *cells])
    heads = ["source", "share", METHODS["learner"], *(METHODS.get(name, name) for name in others)]
    print_table(heads, rows, title="By source")
