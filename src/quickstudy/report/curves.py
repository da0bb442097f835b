"""The learning curves of a run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple


class Curve(NamedTuple):
    """One column of a run's ``metrics.csv`` over its steps."""

    name: str
    steps: list[int]
    values: list[float]


def learning_curves(metrics: Path) -> dict[str, Curve]:
    """The columns of ``metrics.csv`` that change with ``step``; cells that are empty or no finite number are left out.

    An absent file has no columns.
    """
    if not metrics.is_file():
        return {}
    curves: dict[str, Curve] = {}
    with metrics.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            if step is None:
                continue
            for name, cell in row.items():
                value = _number(cell)
                if name != "step" and value is not None:
                    curve = curves.setdefault(name, Curve(name, [], []))
                    curve.steps.append(int(step))
                    curve.values.append(value)
    return curves


def _number(cell: object) -> float | None:
    """A finite number, or None."""
    try:
        value = float(str(cell))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
