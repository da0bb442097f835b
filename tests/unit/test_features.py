"""Features of frozen encoders: the same numbers as encoding directly, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.features import with_features
from quickstudy.data.source import DataError
from quickstudy.data.text import TextSource
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import Encoder, VectorEncoder, encode
from quickstudy.nn.features import cached_features, has_frozen_features, weights_hash


class Letters(Encoder):
    """A text encoder in small: the mean of embedded letters, then a trained layer."""

    def __init__(self, *, frozen: bool = True) -> None:
        super().__init__()
        self.width, self.frozen, self.calls = 4, frozen, 0
        self.model = nn.Embedding(200, 4)
        self.model.requires_grad_(not frozen)
        self.head = nn.Linear(4, 4)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        longest = max(map(len, texts))
        return torch.tensor([[*map(ord, text)] + [-1] * (longest - len(text)) for text in texts])

    def features(self, x: Tensor) -> Tensor:
        self.calls += 1
        there = (x >= 0)[..., None]
        return (self.model(x.clamp(min=0)) * there).sum(1) / there.sum(1).clamp(min=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if x.is_floating_point() else self.features(x))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextSource:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    lines = [f"{'very ' * (i % 7)}{i} {'abcdef'[i % 6]},label {i % 6}" for i in range(90)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(lines))
    return TextSource(str(tmp_path / "a.csv"))


def test_episodes_of_features_give_the_same_answers(source: TextSource) -> None:
    encoder = Letters()
    learner = ProtoNet(encoder)
    fast = with_features(source, encoder)
    assert fast.kind == "vector"
    assert fast.describe() == source.describe()
    design = EpisodeDesign(way=2, shot=3, queries=5)
    slow_episode, fast_episode = (
        Episodes(one, "test", design, tasks=3)[0] for one in (source, fast)
    )
    assert fast_episode.support.x.shape == (3, 6, 4)
    torch.testing.assert_close(
        encode(encoder, slow_episode.query.x), encode(encoder, fast_episode.query.x)
    )
    torch.testing.assert_close(learner(fast_episode), learner(slow_episode))
    learner(fast_episode).backward()
    assert encoder.head.weight.grad is not None


def test_features_are_computed_once_for_the_same_weights_and_data(source: TextSource) -> None:
    encoder = Letters()
    source.prepare(encoder)
    x = source.pool("train").x
    first = cached_features(encoder, x)
    torch.testing.assert_close(first, encoder.features(x))
    calls = encoder.calls
    assert torch.equal(cached_features(encoder, x), first)
    assert encoder.calls == calls
    changed = x.clone()
    changed[0, 0] += 1
    assert not torch.equal(cached_features(encoder, changed)[0], first[0])
    with torch.no_grad():
        encoder.model.weight += 1
    assert not torch.equal(cached_features(encoder, x), first)


def test_a_damaged_cache_is_computed_again(source: TextSource, tmp_path: Path) -> None:
    encoder = Letters()
    source.prepare(encoder)
    first = cached_features(encoder, source.pool("train").x).clone()
    (file,) = (tmp_path / "cache" / "features").rglob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cached_features(encoder, source.pool("train").x), first)


def test_encoders_that_are_trained_keep_nothing(source: TextSource) -> None:
    assert with_features(source, Letters(frozen=False)) is source
    assert not has_frozen_features(VectorEncoder())
    with pytest.raises(ValueError, match="only of a frozen encoder"):
        cached_features(Letters(frozen=False), torch.zeros(1, 1, dtype=torch.int64))


def test_features_belong_to_their_encoder(source: TextSource) -> None:
    fast = with_features(source, Letters())
    with pytest.raises(DataError, match="encoded by another encoder"):
        fast.prepare(Letters())


def test_weights_of_every_kind_have_a_hash() -> None:
    module = nn.BatchNorm1d(2).to(torch.bfloat16)
    assert weights_hash(module) == weights_hash(module)
    before = weights_hash(module)
    module.num_batches_tracked += 1
    assert weights_hash(module) != before
