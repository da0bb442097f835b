"""How many tasks adapt side by side is measured once, and then belongs to the run."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest
from toy import ToySource, rows, signal_at, toy_config

from quickstudy.build import BuildError
from quickstudy.config import ConfigError, load_config, with_overrides
from quickstudy.training import Interrupted, pace, train

MAML = "learner={name: maml, steps: 2, tasks_at_once: 0}"


def test_the_fastest_number_is_kept_and_told(
    tmp_path: Path,
    toy: type[ToySource],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cost = {1: 3.0, 2: 1.0, 4: 2.0}
    monkeypatch.setattr(pace, "_seconds", lambda config, _: cost[config.learner["tasks_at_once"]])
    config = with_overrides(toy_config(steps=6, measure_tasks=True), [MAML, "episode.tasks=4"])
    with caplog.at_level(logging.INFO, "quickstudy"):
        train(config, tmp_path / "whole", progress=False)
    assert (
        "2 tasks adapt side by side, the fastest of those tried (1: 3 s, 2: 1 s, 4: 2 s)"
        in caplog.text
    )
    assert load_config(tmp_path / "whole/config.yaml").learner["tasks_at_once"] == 2

    monkeypatch.setattr(toy, "on_draw", staticmethod(signal_at(30, signal.SIGTERM)))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "broken", progress=False)
    cost[4] = 0.0  # as another machine would find
    train(config, tmp_path / "broken", progress=False, resume=True)
    assert load_config(tmp_path / "broken/config.yaml").learner["tasks_at_once"] == 2
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")


def test_what_is_measured_is_among_the_numbers_tried(tmp_path: Path, toy: type[ToySource]) -> None:
    config = with_overrides(toy_config(steps=2, measure_tasks=True), [MAML, "episode.tasks=3"])
    artifact = train(config, tmp_path, progress=False)
    assert artifact.config.learner["tasks_at_once"] in (1, 2, 3)


def test_a_number_that_was_given_stays(tmp_path: Path, toy: type[ToySource]) -> None:
    given = MAML.replace("tasks_at_once: 0", "tasks_at_once: 3")
    config = with_overrides(toy_config(steps=2, measure_tasks=True), [given])
    assert train(config, tmp_path, progress=False).config.learner["tasks_at_once"] == 3


def test_learners_without_a_choice_and_several_processes_are_refused(
    tmp_path: Path, toy: type[ToySource]
) -> None:
    config = toy_config(steps=2, measure_tasks=True)
    with pytest.raises(BuildError, match="'protonet' takes all tasks of a batch together"):
        train(with_overrides(config, ["learner=protonet"]), tmp_path, progress=False)
    several = with_overrides(config, [MAML, "training.devices=2", "episode.tasks=4"])
    with pytest.raises(ConfigError, match="is for one process, and the run has 2"):
        train(several, tmp_path, progress=False)
