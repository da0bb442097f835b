"""A task source small enough to train on in a second, and a program that trains on it in two processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from quickstudy.config import RunConfig, parse_config
from quickstudy.data import SOURCES
from quickstudy.data.source import Pool, PoolSource, Split
from quickstudy.episode import Inputs


class ToySource(PoolSource):
    """Classes are points in the plane of four numbers, examples lie around them."""

    kind = "vector"
    on_draw: ClassVar[Callable[[int], None]] = staticmethod(lambda count: None)
    """Called with the number of draws so far, so that a test can act in the middle of a training."""

    def __init__(self, *, classes: int = 12, each: int = 8) -> None:
        self.classes, self.each = classes, each
        self.draws = 0

    def pool(self, split: Split) -> Pool:
        generator = torch.Generator().manual_seed(["train", "validation", "test"].index(split))
        centres = torch.randn(self.classes, 1, 4, generator=generator)
        noise = torch.randn(self.classes, self.each, 4, generator=generator)
        return Pool(
            x=(centres + 0.4 * noise).flatten(0, 1),
            counts=torch.full((self.classes,), self.each),
            class_names=[f"{split} {each}" for each in range(self.classes)],
            groups=torch.zeros(self.classes, dtype=torch.int64),
            group_names=["all"],
        )

    def augment(self, x: Inputs, generator: torch.Generator) -> Inputs:
        self.draws += 1
        type(self).on_draw(self.draws)
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    def describe(self) -> dict[str, Any]:
        return {"name": "toy", "licence": "none needed"}


def toy_config(**training: Any) -> RunConfig:
    """A run of a dozen steps."""
    design = {"way": 4, "shot": 2, "queries": 3}
    defaults = {"steps": 12, "warmup": 2, "rate": 0.01, "accelerator": "cpu"}
    return parse_config(
        {
            "data": "toy",
            "learner": {"name": "protonet", "distance": "cosine"},
            "encoder": {"name": "vector", "inputs": 4, "width": 8, "layers": 1},
            "episode": {**design, "tasks": 4},
            "validation": {**design, "episodes": 9, "every": 4},
            "training": defaults | training,
        }
    )


def rows(out: Path) -> list[list[str]]:
    """The metrics of a run without their last column, the seconds."""
    lines = (out / "metrics.csv").read_text(encoding="utf-8").splitlines()
    return [line.split(",")[:-1] for line in lines]


def signal_at(draws: int, number: int) -> Callable[[int], None]:
    """Send this process a signal, once, when so many sets of examples were drawn."""
    due = [draws]

    def send(count: int) -> None:
        if due == [count]:
            due.clear()
            os.kill(os.getpid(), number)

    return send


def run_on_two_processes(out: Path) -> None:
    """Train once without a break, and once with SIGTERM to one process and a resumption."""
    from quickstudy.training import Interrupted, is_main_process, train

    torch.set_num_threads(1)
    SOURCES["toy"] = ToySource
    config = toy_config(devices=2, strategy="ddp", precision="64-true", steps=14)
    train(config, out / "whole", progress=False)
    if not is_main_process():
        ToySource.on_draw = staticmethod(signal_at(20, signal.SIGTERM))
    try:
        train(config, out / "broken", progress=False)
    except Interrupted as interrupted:
        if is_main_process():
            (out / "said").write_text(f"{interrupted.exit_code} {interrupted}", encoding="utf-8")
    train(config, out / "broken", resume=True, progress=False)


if __name__ == "__main__":
    run_on_two_processes(Path(sys.argv[1]))
