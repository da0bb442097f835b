"""Threads that share the tasks of a batch find the gradient of one, and a run with them is the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToySource, rows, toy_config

from learner_table import ragged_episode, shaken, vector_encoder
from quickstudy.config import ConfigError, with_overrides
from quickstudy.episode import Episode, tree_map
from quickstudy.learners import LEARNERS
from quickstudy.learners.base import Learner
from quickstudy.training import train
from quickstudy.training.threads import TaskThreads

close = torch.testing.assert_close


def vectors() -> Episode:
    """Ragged tasks whose examples are vectors."""
    episode = ragged_episode()
    width = torch.arange(1, 7, dtype=torch.float64)

    def examples(part: Any) -> Any:
        spread = part.mask[..., None] * (part.y[..., None] + 1.0) * width
        return part._replace(x=(spread + 0.1 * part.mask.cumsum(1)[..., None]).cos())

    return episode._replace(support=examples(episode.support), query=examples(episode.query))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("protonet", {}),
        ("maml", {"steps": 2, "strategy": "unroll"}),
        ("maml", {"steps": 2, "strategy": "sweep", "rates": "step", "multi_step": 1.0}),
        ("reptile", {"steps": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [2, 5])
def test_threads_find_the_gradient_of_one(name: str, options: dict[str, Any], count: int) -> None:
    learner: Learner = LEARNERS[name](vector_encoder(), **options)
    shaken(learner)
    episode = vectors()
    threads = TaskThreads(learner, count)
    threads.progress(0.5)
    weights = list(learner.parameters())
    loss, right = threads(episode), learner(episode)
    close(loss, right, rtol=1e-12, atol=1e-12)
    own, other = (
        torch.autograd.grad(each, weights, allow_unused=True, materialize_grads=True)
        for each in (loss, right)
    )
    assert any(slope.any() for slope in other)
    close(own, other, rtol=1e-10, atol=1e-12)


def test_threads_compute_in_the_precision_around_them() -> None:
    learner = LEARNERS["protonet"](vector_encoder()).float()
    episode = tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, vectors())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(TaskThreads(learner, 3)(episode), learner(episode), rtol=1e-3, atol=1e-3)
        rounded = learner(episode).detach()
    assert not torch.equal(rounded, learner(episode).detach())


def test_dropout_is_refused() -> None:
    learner = LEARNERS["in_context"](
        vector_encoder(), width=8, layers=1, heads=2, bank=4, dropout=0.1
    )
    with pytest.raises(
        ConfigError, match=r"dropout in '.+'; set its dropout to 0, or training\.th"
    ):
        TaskThreads(learner, 2)


def test_a_run_with_threads_comes_out_the_same_each_time(
    tmp_path: Path, toy: type[ToySource]
) -> None:
    config = with_overrides(
        toy_config(threads=2, steps=6, precision="64-true"), ["learner={name: maml, steps: 2}"]
    )
    for name in ("one", "other"):
        train(config, tmp_path / name, progress=False)
    assert rows(tmp_path / "one") == rows(tmp_path / "other")
    alone = with_overrides(config, ["training.threads=1"])
    train(alone, tmp_path / "alone", progress=False)
    for one, other in zip(rows(tmp_path / "one")[1:], rows(tmp_path / "alone")[1:], strict=True):
        numbers = [[float(cell or 0) for cell in row] for row in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)
