"""A chart of ways of learning: how often each is right against the time that a task takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickstudy.durable import write_file


def draw_comparison(methods: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw what :func:`quickstudy.evaluation.compare.compare` found; the first is the one that is compared.

    Args:
        methods: what it found.
        path: a file .svg or .png, written whole or not at all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, found) in enumerate(methods.items()):
        seconds = found["fit_seconds"]["mean"] + found["predict_seconds"]["mean"]
        accuracy = found["accuracy"]
        axes.errorbar(
            [max(seconds, 1e-4)],
            [100 * accuracy["mean"]],
            yerr=[100 * accuracy["ci95"]],
            fmt="o" if number else "s",
            capsize=3,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds of the processor for a task, learned and answered")
    axes.set_ylabel("accuracy, %, with 95 % intervals over tasks")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    kind = path.suffix.removeprefix(".")
    write_file(path, lambda file: figure.savefig(file, format=kind, dpi=150))
