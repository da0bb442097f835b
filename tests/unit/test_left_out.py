"""Artifacts without the weights of a published model: small, and whole again where that model is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from quickstudy.artifact import ArtifactError, keep_rejection, load_artifact, save_artifact
from quickstudy.build import build_learner
from quickstudy.config import RunConfig
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn import pretrained
from quickstudy.nn.encoders import VectorEncoder
from quickstudy.rejection import Rejection

CONFIG = RunConfig(
    data="text:intents.csv",
    learner={"name": "protonet", "names": True},
    encoder={"name": "text", "model": "minilm", "lora": 2},
)


def test_what_was_not_trained_is_left_out_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = build_learner(CONFIG.learner, CONFIG.encoder).eval()
    for value in learner.parameters():
        if value.requires_grad:
            nn.init.normal_(value, std=0.02)
    saved = save_artifact(tmp_path / "small", learner, CONFIG, {}, whole=False)
    assert sum(file.stat().st_size for file in (tmp_path / "small").iterdir()) < 600_000
    loaded = load_artifact(tmp_path / "small")
    assert loaded.id == saved.id
    x = learner.encoder.tokenize(["where is my card", "hello"])
    assert torch.equal(loaded.learner.encoder(x), learner.encoder(x))
    for name, value in learner.state_dict().items():
        assert torch.equal(loaded.learner.state_dict()[name], value)
    knowing = keep_rejection(loaded, Rejection("probability", 0.5, 0.95, 5, 5, "validation"))
    assert knowing.id == saved.id
    assert sum(file.stat().st_size for file in (tmp_path / "small").iterdir()) < 600_000
    monkeypatch.setattr(pretrained, "MINILM_SHA256", "0" * 64)
    with pytest.raises(ArtifactError, match=r"of checksum 53aa51172d14…, and the one that is inst"):
        load_artifact(tmp_path / "small")


def test_nothing_is_left_out_of_an_encoder_that_is_not_published(tmp_path: Path) -> None:
    config = RunConfig(data="numbers", encoder={"name": "vector", "inputs": 2})
    learner = ProtoNet(VectorEncoder(2))
    with pytest.raises(ArtifactError, match="VectorEncoder holds no weights of a published model"):
        save_artifact(tmp_path / "small", learner, config, {}, whole=False)
    assert not (tmp_path / "small").exists()


def test_weights_that_are_trained_are_not_given() -> None:
    loose = pretrained.HuggingFaceEncoder(frozen=False)
    assert loose.published
    assert not loose.given
    frozen = pretrained.HuggingFaceEncoder(layers=1)
    own = {name for name in frozen.state_dict() if name not in frozen.given}
    assert own
    assert all(name.startswith("layers.") for name in own)
