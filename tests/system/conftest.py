"""The toy source by name, reports of few tasks, one thread, and no trace of signals and limits after a test."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from toy import ToySource, toy_config

from quickstudy import report
from quickstudy.artifact import save_artifact
from quickstudy.build import build_learner
from quickstudy.data import SOURCES


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ToySource]]:
    """The toy source under its name; what a test does while it draws is undone afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setitem(SOURCES, "toy", ToySource)
    monkeypatch.setattr(ToySource, "on_draw", ToySource.on_draw)
    yield ToySource
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def toy_model(toy: type[ToySource], tmp_path: Path) -> Path:
    """An untrained model that compares the numbers themselves, more or less."""
    config = toy_config()
    save_artifact(tmp_path / "artifact", build_learner(config.learner, config.encoder), config, {})
    return tmp_path / "artifact"


@pytest.fixture
def short_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts of reports are made of few tasks."""
    monkeypatch.setattr(report, "write_report", partial(report.write_report, episodes=4))
