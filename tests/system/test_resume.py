"""A run that was stopped and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToySource, rows, signal_at, toy_config

from quickstudy.config import ConfigError, load_config, with_overrides
from quickstudy.durable import ArtifactError
from quickstudy.training import Interrupted, train


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal, their tensors bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize(
    ("draws", "precision"),
    [(2, "32-true"), (40, "64-true"), (67, "bf16-mixed")],
    ids=["at once", "in the middle", "late"],
)
def test_resumed_equals_uninterrupted(
    draws: int,
    precision: str,
    tmp_path: Path,
    toy: type[ToySource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = toy_config(accumulate=2, average=0.9, steps=9, precision=precision)
    # Dropout must come out the same as well.
    learner = "learner={name: in_context, width: 8, layers: 1, heads: 2, bank: 4, dropout: 0.2}"
    config = with_overrides(config, [learner])
    train(config, tmp_path / "whole", progress=False)

    monkeypatch.setattr(toy, "on_draw", staticmethod(signal_at(draws, signal.SIGTERM)))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "broken", progress=False)
    broken = torch.load(tmp_path / "broken/checkpoints/last.ckpt", weights_only=True)
    assert 0 < broken["run"]["step"] < 9
    train(config, tmp_path / "broken", progress=False, resume=True)

    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    whole, broken = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "broken")
    )
    for checkpoint in (whole, broken):
        checkpoint["run"].pop("elapsed")
    assert same(whole, broken)
    weights = [tmp_path / name / "artifact/model.safetensors" for name in ("whole", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("draws", [22, 26, 30, 34])
def test_a_signal_before_a_validation_waits_for_it(
    draws: int, tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signals come around step 4, after which tasks are validated."""
    config = toy_config(steps=9)
    train(config, tmp_path / "whole", progress=False)
    monkeypatch.setattr(toy, "on_draw", staticmethod(signal_at(draws, signal.SIGTERM)))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "broken", progress=False)
    train(config, tmp_path / "broken", progress=False, resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    assert [row[0] for row in rows(tmp_path / "whole")] == ["step", "4", "8", "9"]


def test_a_run_can_be_made_longer_but_not_another(tmp_path: Path, toy: type[ToySource]) -> None:
    train(toy_config(steps=4), tmp_path, progress=False)
    longer = with_overrides(load_config(tmp_path / "config.yaml"), ["training.steps=8"])
    train(longer, tmp_path, progress=False, resume=True)
    assert rows(tmp_path)[-1][0] == "8"

    again = train(longer, tmp_path, progress=False, resume=True)  # nothing is left to do
    assert rows(tmp_path)[-1][0] == "8"
    assert again.facts["training"]["steps"] == 8

    other = with_overrides(longer, ["learner.temperature=3"])
    with pytest.raises(ConfigError, match="begun with learner"):
        train(other, tmp_path, progress=False, resume=True)


def test_a_damaged_checkpoint_is_refused_in_a_sentence(
    tmp_path: Path, toy: type[ToySource]
) -> None:
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"PK\x03\x04 half of a file")
    with pytest.raises(ArtifactError, match="is damaged"):
        train(toy_config(), tmp_path, progress=False, resume=True)


def test_nobody_draws_other_tasks(tmp_path: Path, toy: type[ToySource]) -> None:
    """Neither workers nor the size of a batch change what is learned."""
    one = train(toy_config(), tmp_path / "one", progress=False)
    two = train(toy_config(workers=2), tmp_path / "two", progress=False)
    assert one.id != two.id  # the configurations differ,
    for name, tensor in one.learner.state_dict().items():  # the weights do not
        assert torch.equal(tensor, two.learner.state_dict()[name]), name
