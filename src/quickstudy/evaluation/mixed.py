"""Scores on a mixture of sources: of each by itself, and of all as often as they come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def mixture_scores(
    each: Mapping[str, Mapping[str, Any]], shares: Sequence[float]
) -> dict[str, Any]:
    """The scores on a mixture, from those on each of its sources.

    With p_i the share of source i among the tasks, the mean is ``Σ_i p_i m_i`` and its half-width ``√(Σ_i p_i² c_i²)``:
    a stratified sample, which knows the mean better than one whose tasks fall to the sources by chance.

    Args:
        each: name of a source to the result of :func:`quickstudy.evaluation.evaluate` on it.
        shares: p_i.

    Returns:
        The same entries as those of one source, of baselines those that all sources have, and ``sources {name: …}``,
        each with its ``share`` and its name as ``source``.

    >>> one, two = ({"mean": mean, "ci95": 0.4, "episodes": 9} for mean in (1.0, 2.0))
    >>> found = mixture_scores({"a": one, "b": two}, [0.75, 0.25])
    >>> found["mean"], round(found["ci95"], 4), found["episodes"]
    (1.25, 0.3162, 18)
    """
    found = _together(list(each.values()), shares)
    found["sources"] = {
        name: {"source": name, "share": share, **scores}
        for (name, scores), share in zip(each.items(), shares, strict=True)
    }
    return found


def _together(rows: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, first in rows[0].items():
        if any(key not in row for row in rows):
            continue
        values = [row[key] for row in rows]
        if any(value is None for value in values):
            found[key] = None
        elif isinstance(first, Mapping):
            found[key] = _together(values, shares)
        elif key in ("mean", "difference"):
            found[key] = sum(share * value for share, value in zip(shares, values, strict=True))
        elif key == "ci95":
            found[key] = math.hypot(*(s * value for s, value in zip(shares, values, strict=True)))
        elif key == "episodes":
            found[key] = sum(values)
        elif key == "inductive":
            found[key] = all(values)
        else:
            found[key] = first
    return found
