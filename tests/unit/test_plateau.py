"""The watch on the training loss: it speaks on a plateau, and never on a run that learns."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch

from quickstudy.config import parse_config
from quickstudy.data import SOURCES
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.synthetic import Sinusoid
from quickstudy.episode import Episode, Inputs, Task, collate
from quickstudy.likelihood import Categorical, Gaussian, SquaredError
from quickstudy.training import train
from quickstudy.training.plateau import PlateauWatch, loss_of_chance
from system.toy import ToySource, toy_config


def classes(*ways: int) -> Episode:
    tasks = []
    for way in ways:
        x, y = torch.zeros(way, 1), torch.arange(way)
        tasks.append(Task(x, y, x, y, way=way))
    return collate(tasks)


def test_chance_is_what_a_constant_answer_costs() -> None:
    assert loss_of_chance(Categorical(), classes(2, 8)) == pytest.approx(2 * math.log(2))
    design = EpisodeDesign(1, 5, 50)
    episode = Episodes(Sinusoid(), "train", design, tasks=40)[0]
    y, context = episode.query.y, episode.context
    mean, scale = y.mean().expand_as(y), y.std(correction=0).expand_as(y)
    constant = SquaredError().nll(mean, episode.query, context)
    assert loss_of_chance(SquaredError(), episode) == pytest.approx(constant.item(), rel=1e-5)
    raw = ((scale - 0.01) / 0.99).expm1().log()
    gaussian = Gaussian().nll(torch.cat([mean, raw], -1), episode.query, context)
    assert loss_of_chance(Gaussian(), episode) == pytest.approx(gaussian.item(), rel=1e-4)


def said(losses: list[float], **training: float) -> list[tuple[int, str]]:
    """When and what is said of a 5-way training of 1000 steps with these losses after each ten."""
    episode = {"way": 5, "shot": 1, "tasks": 2}
    watch = PlateauWatch(
        Categorical(), parse_config({"episode": episode, "training": {"steps": 1000, **training}})
    )
    found = []
    for row, loss in enumerate(losses, start=1):
        watch.meet(classes(5, 5))
        remark = watch.judge(10 * row, row / 100, loss)
        if remark:
            found.append((10 * row, remark))
    return found


def test_a_loss_that_stays_at_chance_is_named_once_with_what_to_change() -> None:
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 0.01
    ((step, remark),) = said((math.log(5) + noise).tolist(), rate=0.006, warmup=10)
    assert step == 200
    assert "1.6" in remark
    for change in (
        "training.rate=0.002",
        "episode.tasks=8",
        "training.warmup=100",
        "episode.way=[2, 5]",
        "episode.shot=[1, 5]",
    ):
        assert change in remark
    # Worse than chance is no better.
    assert len(said([2.5] * 100)) == 1


def test_a_loss_that_falls_is_left_alone_even_late_or_slowly() -> None:
    chance = math.log(5)
    assert not said([chance * 0.5] * 100)
    assert not said([chance] * 5 + [chance * 0.9] * 95)
    assert not said([chance * (1 - 0.004 * row) for row in range(100)])
    # A long warm-up is waited for.
    assert not said([chance] * 50 + [0.5] * 50, warmup=450)


@pytest.fixture
def heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    monkeypatch.setitem(SOURCES, "toy", ToySource)
    caplog.set_level(logging.INFO, "quickstudy")
    return caplog


class Noise(ToySource):
    """Its training examples say nothing of their classes."""

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        return torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("learnable", [True, False])
def test_a_training_says_it_when_there_is_nothing_to_learn(
    learnable: bool,
    tmp_path: Path,
    heard: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not learnable:
        monkeypatch.setitem(SOURCES, "toy", Noise)
    config = toy_config(steps=160, rate=0.003, warmup=5)
    values = config.model_dump(mode="json")
    values["learner"] = {"name": "in_context", "width": 8, "layers": 1, "heads": 2, "bank": 4}
    values["validation"]["every"] = 80
    train(parse_config(values), tmp_path, progress=False)
    remarks = [each for each in heard.messages if "still that of chance" in each]
    assert len(remarks) == (0 if learnable else 1)
