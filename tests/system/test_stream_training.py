"""Training on streams: what is learned, what chooses the weights, and that a stop changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import same
from toy import ToySource, rows, signal_at, toy_config

from quickstudy.config import ConfigError, RunConfig, parse_config, with_overrides
from quickstudy.data import SOURCES
from quickstudy.learners import LEARNERS
from quickstudy.learners.streams import stream_outputs
from quickstudy.training import Interrupted, train
from quickstudy.training.tasks import TaskData
from recollecting import Levels, Recollecting


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, "recollecting", Recollecting)
    monkeypatch.setitem(SOURCES, "levels", Levels)


def config(**training: Any) -> RunConfig:
    return parse_config(
        {
            "data": "levels",
            "learner": "recollecting",
            "encoder": {"name": "raw"},
            "episode": {"shot": [1, 2], "queries": 8, "tasks": 16, "stream": 5},
            "validation": {"shot": 2, "queries": 8, "episodes": 20, "every": 20},
            "training": {
                "steps": 60,
                "rate": 0.1,
                "warmup": 1,
                "average": 0,
                "optimizer": "adamw",
                "weight_decay": 0,
                "accelerator": "cpu",
            }
            | training,
        }
    )


def test_training_through_time_finds_the_best_use_of_memory(tmp_path: Path) -> None:
    found = train(config(), tmp_path, progress=False)
    assert isinstance(found.learner, Recollecting)
    assert abs(found.learner.trust.item() - 1) < 0.2


def test_validation_is_the_mean_over_positions_with_memory(tmp_path: Path) -> None:
    run = config(steps=2)
    found = train(run, tmp_path, progress=False)
    data, learner = TaskData(Levels(), found.config), found.learner
    scores = []
    with torch.no_grad():
        for index in range(20):
            each = [
                learner.likelihood.task_score(outputs, episode.query, episode.context)
                for episode, outputs in stream_outputs(learner, data.validation[index])
            ]
            assert len(each) == 5
            scores.append(torch.stack(each).mean())
    assert found.scores["validation"]["mean"] == pytest.approx(float(torch.stack(scores).mean()))


def test_resumed_equals_uninterrupted_on_streams(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = "learner={name: in_context, width: 8, layers: 1, heads: 2, bank: 4, dropout: 0.2}"
    streams = ["episode.stream=3", "episode.habit=2", "validation.stream=2"]
    run = with_overrides(toy_config(accumulate=2, average=0.9, steps=9), [learner, *streams])
    train(run, tmp_path / "whole", progress=False)
    monkeypatch.setattr(toy, "on_draw", staticmethod(signal_at(120, signal.SIGTERM)))
    with pytest.raises(Interrupted):
        train(run, tmp_path / "broken", progress=False)
    train(run, tmp_path / "broken", progress=False, resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    weights = [tmp_path / name / "artifact/model.safetensors" for name in ("whole", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert same(*(torch.load(tmp_path / name / "checkpoints/last.ckpt")["state_dict"]
                  for name in ("whole", "broken")))  # fmt: skip


def test_threads_and_workers_change_no_gradient_of_streams(tmp_path: Path) -> None:
    found = [
        train(config(steps=5, **more), tmp_path / name, progress=False).learner.trust
        for name, more in (("plain", {}), ("threads", {"threads": 2}), ("workers", {"workers": 1}))
    ]
    torch.testing.assert_close(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("episode.stream=0", "episode.stream must"),
        ("episode.same_shot=true", "must be 1 beside same_shot"),
        ("episode.projected=0.5", "must be 1 beside projected"),
        ("validation.stream=0", "validation.stream must"),
    ],
)
def test_what_streams_cannot_be_is_said(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_overrides(config(), [override])


@pytest.mark.parametrize("key", ["horizon", "habit"])
def test_horizon_and_habit_are_of_streams(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"episode\.{key} must be 0 where episode\.stream is 1"):
        parse_config({"episode": {key: 2}})


def test_who_has_no_memory_is_told_that_streams_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "toy", ToySource)
    run = with_overrides(toy_config(steps=2), ["episode.stream=3"])
    train(run, tmp_path, progress=False)
    assert "carries nothing from task to task, so the 3 tasks of a stream" in caplog.text
