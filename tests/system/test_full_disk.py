"""A disk that is full while something is saved: one sentence, and what was saved before is intact."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from toy import ToySource, rows, toy_config

from quickstudy.artifact import (
    ArtifactError,
    extend,
    load_artifact,
    load_task,
    save_artifact,
    save_task,
)
from quickstudy.training import train


def fill_disk(room: int) -> None:
    """From now on, no file of this process may grow beyond ``room`` bytes: the system refuses the write."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))


def free_disk() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_the_old_checkpoint_survives(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, checkpoint = toy_config(), tmp_path / "checkpoints/last.ckpt"
    train(config, tmp_path / "whole", progress=False)

    monkeypatch.setattr(
        toy, "on_draw", staticmethod(lambda n: fill_disk(8000) if n == 48 else None)
    )
    with pytest.raises(
        ArtifactError, match=r"last\.ckpt cannot be saved: File too large; the one before"
    ):
        train(config, tmp_path, progress=False)
    free_disk()
    assert [each.name for each in checkpoint.parent.iterdir()] == ["last.ckpt"]
    assert torch.load(checkpoint, weights_only=True)["run"]["step"] == 4

    monkeypatch.setattr(toy, "on_draw", staticmethod(lambda n: None))
    train(config, tmp_path, progress=False, resume=True)
    assert rows(tmp_path) == rows(tmp_path / "whole")


def test_the_old_artifact_and_the_old_task_survive(tmp_path: Path, toy: type[ToySource]) -> None:
    artifact = train(toy_config(steps=1), tmp_path, progress=False)
    task = extend(artifact, None, torch.randn(4, 4), ["a", "a", "b", "b"])
    place = tmp_path / "one.task"
    save_task(place, task)
    before = sorted(each.name for each in tmp_path.iterdir())

    fill_disk(100)
    with pytest.raises(ArtifactError, match=r"artifact .* cannot be saved: File too large"):
        save_artifact(tmp_path / "artifact", artifact.learner, artifact.config, {})
    with pytest.raises(ArtifactError, match=r"task .* cannot be saved: File too large"):
        save_task(place, extend(artifact, task, torch.randn(1, 4), ["a"]))
    free_disk()

    assert sorted(each.name for each in tmp_path.iterdir()) == before
    assert load_artifact(tmp_path).id == artifact.id
    assert load_task(place, artifact).examples == 4
