"""A task source small enough to train on in a second, and a program that trains on it in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from quickstudy.config import RunConfig, parse_config
from quickstudy.data import SOURCES
from quickstudy.data.source import Pool, Split, TaskSource
from quickstudy.episode import Inputs


class ToySource(TaskSource):
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
            "encoder": {"name": "vector", "inputs": 4, "width": 8, "layers": 1},
            "episode": {**design, "tasks": 4},
            "validation": {**design, "episodes": 10, "every": 4},
            "training": defaults | training,
        }
    )


if __name__ == "__main__":
    import yaml

    from quickstudy.training import train

    SOURCES["toy"] = ToySource
    train(toy_config(**yaml.safe_load(sys.argv[2])), sys.argv[1], progress=False)
