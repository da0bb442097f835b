"""Ctrl-C and SIGTERM save and leave; a kill in the middle of a save loses nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToySource, rows, signal_at, toy_config

from quickstudy import durable
from quickstudy.artifact import load_artifact, save_artifact
from quickstudy.data import SOURCES
from quickstudy.training import Interrupted, train


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves(
    number: int, code: int, tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(toy, "on_draw", staticmethod(signal_at(48, number)))
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped after step \d+; the checkpoint is saved"
    ) as raised:
        train(toy_config(), tmp_path, progress=False)
    assert isinstance(raised.value, Interrupted)
    assert raised.value.exit_code == code
    assert signal.getsignal(number) == before
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert f"after step {saved['run']['step']};" in str(raised.value)
    assert int(rows(tmp_path)[-1][0]) <= saved["run"]["step"]


def test_a_second_signal_does_not_wait(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(count: int) -> None:
        if count == 48:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(toy, "on_draw", staticmethod(twice))
    with pytest.raises(Interrupted, match="at once"):
        train(toy_config(), tmp_path, progress=False)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["run"]["step"] == 4  # of the last validation


def in_a_process_killed(work: Any) -> None:
    """Run ``work`` in a forked process, which must end by SIGKILL."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, checkpoint = toy_config(), tmp_path / "checkpoints/last.ckpt"
    write_through = durable.write_through

    def write_and_die(path: Path, content: Any) -> None:
        write_through(path, content)
        if checkpoint.exists() and checkpoint.name in path.name:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(durable, "write_through", write_and_die)
    in_a_process_killed(lambda: train(config, tmp_path, progress=False))
    monkeypatch.undo()

    assert torch.load(checkpoint, weights_only=True)["run"]["step"] == 4
    monkeypatch.setitem(SOURCES, "toy", toy)
    train(config, tmp_path, progress=False, resume=True)
    train(config, tmp_path / "whole", progress=False)
    assert rows(tmp_path) == rows(tmp_path / "whole")


def test_a_kill_between_two_artifacts_leaves_one(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = train(toy_config(steps=1), tmp_path, progress=False)
    place = tmp_path / "artifact"

    def killed_while_swapping() -> None:
        replace = Path.replace

        def replace_and_die(self: Path, target: Path) -> None:
            replace(self, target)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(Path, "replace", replace_and_die)
        save_artifact(place, artifact.learner, artifact.config, {})

    in_a_process_killed(killed_while_swapping)
    assert not place.exists()  # the worst moment: the old one is aside, the new one is not in place
    assert load_artifact(place).scores == artifact.scores
