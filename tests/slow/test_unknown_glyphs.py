"""A threshold from held-out scripts, kept on scripts that neither it nor the model has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickstudy.build import build_source
from quickstudy.config import parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.evaluation.unknown import evaluate_unknown, fit_rejection
from quickstudy.training import train

pytestmark = pytest.mark.slow


def test_a_threshold_keeps_its_promise_on_unseen_scripts(tmp_path: Path) -> None:
    config = parse_config(
        {
            "encoder": {"name": "image", "width": 32},
            "training": {"steps": 60, "accelerator": "cpu"},
            "validation": {"every": 60, "episodes": 10},
        }
    )
    learner = train(config, tmp_path / "run", progress=False).learner
    source, design = build_source("glyphs"), EpisodeDesign(5, 5, 5)
    rejection = fit_rejection(learner, source, design=design, episodes=200)
    assert rejection == fit_rejection(learner, source, design=design, episodes=200)
    found = evaluate_unknown(learner, source, rejection, design=design, episodes=200)
    assert found["auroc"]["mean"] > 0.75
    assert found["kept"]["mean"] == pytest.approx(0.95, abs=0.03)
    assert found["refused"]["mean"] > 3 * (1 - found["kept"]["mean"])
    print({key: value for key, value in found.items() if key != "variances"})
