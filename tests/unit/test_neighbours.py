"""Tasks of classes that are near one another: which classes they have, how often, and where there can be none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from quickstudy.config import RunConfig, parse_config
from quickstudy.data.class_draw import REACH, ClassDraw
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.mixture import Mixed, Mixture
from quickstudy.data.source import DataError, Pool, PoolSource, Split
from quickstudy.data.synthetic import Sinusoid
from quickstudy.nn.encoders import RawEncoder, VectorEncoder
from quickstudy.training import train
from quickstudy.training.neighbours import EXAMPLES, class_vectors, with_neighbours


class Circle(PoolSource):
    """Classes on a circle, in an order that has nothing to do with where they lie."""

    kind = "vector"

    def __init__(self, classes: int = 24) -> None:
        generator = torch.Generator().manual_seed(1)
        self.angle = torch.randperm(classes, generator=generator) / classes * 2 * torch.pi
        self.counts = torch.randint(6, 9, (classes,), generator=generator)
        around = self.angle.repeat_interleave(self.counts)
        around = around + 0.02 * torch.randn(len(around), generator=generator)
        self.x = torch.stack([around.cos(), around.sin()], 1)

    def pool(self, split: Split) -> Pool:
        names = [str(number) for number in range(len(self.counts))]
        return Pool(self.x, self.counts, names, torch.zeros(len(names), dtype=torch.int64), ["all"])


def spread(source: Circle, classes: Tensor) -> Tensor:
    """How large a part of the circle the classes of each task (task, way) lie on, at least."""
    angles = source.angle[classes].sort(1).values
    gaps = torch.cat([angles.diff(dim=1), angles[:, :1] + 2 * torch.pi - angles[:, -1:]], 1)
    return 1 - gaps.max(1).values / (2 * torch.pi)


def classes_of(source: PoolSource, *, neighbours: float, way: int = 4, tasks: int = 64) -> Tensor:
    design = EpisodeDesign(way, 1, 2, neighbours=neighbours)
    draw = ClassDraw(source.pool("train"), design, tasks=tasks)
    return draw.drawn(torch.Generator().manual_seed(0)).classes


@given(way=st.integers(2, 12), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_classes_of_a_task_are_distinct_and_lie_together(way: int, seed: int) -> None:
    source = Circle()
    near = with_neighbours(source, RawEncoder(2))
    assert isinstance(near, PoolSource)
    draw = ClassDraw(near.pool("train"), EpisodeDesign(way, 1, 2, neighbours=1.0), tasks=16)
    classes = draw.drawn(torch.Generator().manual_seed(seed)).classes
    assert all(len(set(row)) == way for row in classes.tolist())
    # The nearest lie on both sides, so on an arc of at most one more than there are of them.
    assert (spread(source, classes) <= (round(REACH * way) + 1) / 24).all()


def test_so_many_tasks_are_of_near_classes_and_the_order_says_nothing() -> None:
    source = Circle()
    near = with_neighbours(source, RawEncoder(2))
    assert isinstance(near, PoolSource)
    found = classes_of(near, neighbours=0.5, tasks=4000)
    together = (spread(source, found) <= 7 / 24).float().mean()
    by_chance = (spread(source, classes_of(source, neighbours=0.0, tasks=4000)) <= 7 / 24).float()
    expected = 0.5 + 0.5 * by_chance.mean()
    assert float(together) == pytest.approx(float(expected), abs=0.03)
    counts = F.one_hot(found, 24).float().sum(0)
    assert torch.allclose(counts, counts.mean(0, keepdim=True).expand_as(counts), rtol=0.35)


def test_without_neighbours_tasks_are_as_they_were() -> None:
    source = Circle()
    near = with_neighbours(source, RawEncoder(2))
    assert isinstance(near, PoolSource)
    assert torch.equal(classes_of(near, neighbours=0.0), classes_of(source, neighbours=0.0))


def test_vectors_are_means_of_what_the_encoder_makes_of_some_examples() -> None:
    pool, encoder = Circle().pool("train"), VectorEncoder(2, width=5)
    with torch.no_grad():
        by_hand = torch.stack(
            [encoder.eval()(pool.of_class(c)[:EXAMPLES]).mean(0) for c in range(pool.classes)]
        )
    encoder.train()
    assert torch.allclose(class_vectors(pool, encoder), by_hand, atol=1e-6)
    assert encoder.training


def test_only_training_classes_are_chosen_so() -> None:
    near = with_neighbours(Circle(), RawEncoder(2))
    assert isinstance(near, PoolSource)
    assert len(near.pool("train").vectors)
    assert not len(near.pool("validation").vectors)
    with pytest.raises(DataError, match="seen by another encoder"):
        near.prepare(RawEncoder(2))


def test_a_mixture_has_near_classes_of_each_source() -> None:
    parts = [Mixed("small", 1, Circle(12)), Mixed("large", 1, Circle(24))]
    mixed = with_neighbours(Mixture(parts), RawEncoder(2))
    design = EpisodeDesign(4, 1, 2, neighbours=1.0)
    episode = Episodes(mixed, "train", design, tasks=32)[0]
    angle = torch.atan2(episode.support.x[..., 1], episode.support.x[..., 0]) % (2 * torch.pi)
    angles = angle.sort(1).values
    gaps = torch.cat([angles.diff(dim=1), angles[:, :1] + 2 * torch.pi - angles[:, -1:]], 1)
    assert float((1 - gaps.max(1).values / (2 * torch.pi)).max()) < 0.62


def test_where_there_can_be_no_near_classes_it_is_said() -> None:
    with pytest.raises(DataError, match="invents its tasks, so that no class comes again"):
        with_neighbours(Sinusoid(), RawEncoder(1))
    with pytest.raises(DataError, match="nobody has said which classes of this data are near"):
        ClassDraw(Circle().pool("train"), EpisodeDesign(4, 1, 2, neighbours=0.5), tasks=1)

    class Labels(Circle):
        def pool(self, split: Split) -> Pool:
            pool = super().pool(split)
            return replace(pool, marks=F.one_hot(pool.labels, pool.classes) > 0)

    with pytest.raises(DataError, match="each example is of one class"):
        with_neighbours(Labels(), RawEncoder(2))


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"within_group": True}, "must be 0 beside within_group"),
        ({"labels": "none"}, "must be given beside neighbours"),
        ({"stream": 3}, "must be 1 beside neighbours"),
    ],
)
def test_what_does_not_go_together_is_refused(beside: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RunConfig.model_validate({"episode": {"neighbours": 0.5, **beside}})


def test_a_training_draws_them(tmp_path: Path) -> None:
    config = parse_config(
        {
            "data": "glyphs",
            "encoder": {"name": "image", "width": 8},
            "episode": {"way": 5, "shot": 1, "queries": 1, "neighbours": 1.0},
            "validation": {"way": 5, "shot": 1, "queries": 1, "episodes": 2},
            "training": {"steps": 2},
        }
    )
    artifact = train(config, tmp_path / "run", progress=False)
    assert artifact.config.episode.neighbours == 1.0
