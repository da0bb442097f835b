"""Trains for real, and gates the figures with margins that the seed and a busy machine do not cross."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickstudy.build import build_source
from quickstudy.cli.demo import starting_config
from quickstudy.config import RunConfig, with_overrides
from quickstudy.data.draw import EpisodeDesign
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.training import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_the_demo_reads_scripts_it_has_never_seen(tmp_path: Path) -> None:
    # Steps, not minutes: a busy machine takes longer and learns the same.
    config = with_overrides(starting_config(), ["training.minutes=null", "training.steps=800"])
    artifact = train(config, tmp_path, progress=False)
    contest = contest_of(artifact.learner, source := build_source("glyphs"))
    for within_group, least in ((False, 0.925), (True, 0.90)):
        design = EpisodeDesign(20, 1, 5, within_group=within_group)
        scores = evaluate(artifact.learner, source, design=design, episodes=600, contest=contest)
        assert scores["mean"] > least
        assert scores["before_adaptation"]["mean"] == pytest.approx(0.05, abs=0.001)
        assert scores["baselines"]["nearest_mean_raw_inputs"]["mean"] < 0.25


@pytest.mark.parametrize("learner", ["ridge", "in_context"])
def test_learners_learn_letters(learner: str, tmp_path: Path) -> None:
    """In a few hundred steps, far above the 20 % of guessing and the 40 % of nearest pixels."""
    settings = ["training.steps=300", "episode.way=20", "episode.queries=4", "encoder.width=64"]
    config = with_overrides(RunConfig(learner={"name": learner}), settings)
    artifact = train(config, tmp_path, progress=False)
    design = EpisodeDesign(5, 1, 5)
    scores = evaluate(
        artifact.learner, build_source("glyphs"), design=design, episodes=200, baselines=False
    )
    assert scores["mean"] > 0.60
    assert scores["before_adaptation"]["mean"] == pytest.approx(0.2, abs=0.02)


def test_gradient_steps_learn_letters(tmp_path: Path) -> None:
    """Through second derivatives, with all that MAML++ anneals; about five minutes of one core."""
    settings = [
        "learner.head=prototypes",
        "learner.steps=3",
        "learner.rates=step",
        "learner.multi_step=0.3",
    ]
    settings += [
        "learner.first_order=0.3",
        "encoder.width=64",
        "training.steps=120",
        "training.rate=0.003",
    ]
    settings += [
        "episode.way=5",
        "episode.queries=3",
        "episode.tasks=8",
        "validation.way=5",
        "validation.queries=5",
    ]
    config = with_overrides(RunConfig(learner={"name": "maml"}), settings)
    artifact = train(config, tmp_path, progress=False)
    design = EpisodeDesign(5, 1, 5)
    scores = evaluate(
        artifact.learner, build_source("glyphs"), design=design, episodes=100, baselines=False
    )
    assert scores["mean"] > 0.70
    assert scores["before_adaptation"]["mean"] == pytest.approx(0.2, abs=0.02)


def test_sine_waves_are_learned_from_five_points(tmp_path: Path) -> None:
    """Two minutes of training; a wave is known from two points, and a constant is off by 5."""
    learner = {"name": "maml", "adapt": "head", "rates": "curvature", "rate": 0.02, "steps": 30}
    settings = ["episode.shot=5", "episode.queries=50", "episode.tasks=16", "training.steps=1500"]
    settings += ["validation.shot=5", "validation.queries=100", "validation.episodes=500"]
    config = RunConfig(data="sinusoid", learner=learner, encoder="vector")
    artifact = train(with_overrides(config, settings), tmp_path, progress=False)
    source = build_source("sinusoid")
    scores = evaluate(artifact.learner, source, design=EpisodeDesign(1, 5, 100), episodes=600)
    assert scores["mean"] < 0.05
    assert scores["before_adaptation"]["mean"] > 2.5
    assert scores["baselines"]["mean_of_support"]["mean"] > 4
    assert scores["baselines"]["exact"]["mean"] < 1e-9
