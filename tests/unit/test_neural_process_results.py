"""What docs/how-to/neural-processes.md claims is in the committed benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/how-to/neural-processes.md").read_text(encoding="utf-8")


def figures(name: str) -> dict[str, Any]:
    file = ROOT / "benchmarks/results" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_wave_is_read_from_five_points() -> None:
    found = figures("in_context_sinusoid")
    test = found["test"]
    assert (test["split"], test["shot"]) == ("test", 5)
    assert test["mean"] + test["ci95"] < 0.01
    assert found["training_processor_seconds"] < 300
    assert f"{test['mean']:.4f} ± {test['ci95']:.4f}" in TEXT


def test_random_functions_are_scored_against_the_best_that_is_possible() -> None:
    for trained_on, run in figures("gaussian_processes")["trained_on"].items():
        minutes = round(run["training_processor_seconds"] / 60)
        assert f"{minutes} minutes" in TEXT
        for kernel, score in run["scores"].items():
            best = score["who_knows_the_covariance"]
            assert best["learner_misses"]["mean"] > 0
            shown = [
                f"{score['log_likelihood'][key]:.3f}".replace("-", "−") for key in ("mean", "ci95")
            ]
            cells = f"| {' ± '.join(shown)} | {best['log_likelihood']['mean']:.3f} | "
            cells += f"{100 * score['coverage']['mean']:.1f} |"
            assert f"| {trained_on} | {kernel} {cells}" in TEXT
