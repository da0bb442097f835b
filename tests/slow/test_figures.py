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
