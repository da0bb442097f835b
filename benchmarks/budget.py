"""How many training steps take so many processor seconds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from quickstudy.config import RunConfig, with_overrides
from quickstudy.training import train

ROUNDS = 5


def seconds_of_steps(
    configs: Mapping[str, RunConfig], *, probe: int, settings: Sequence[str] = ()
) -> dict[str, float]:
    """Processor seconds of a step of each training, the median of some rounds in which all take turns.

    A processor that others share is slower at times, and who is measured then would get fewer steps.

    Args:
        configs: of the trainings, by name.
        probe: steps that are timed.
        settings: of the probe alone, such as fewer validation tasks.
    """
    found: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(ROUNDS):
        for name, config in configs.items():
            few, many = (_seconds(config, steps, settings) for steps in (1, 1 + probe))
            found[name].append((many - few) / probe)
    return {name: statistics.median(times) for name, times in found.items()}


def _seconds(config: RunConfig, steps: int, settings: Sequence[str]) -> float:
    """What a training of so many steps takes."""
    limits = [f"training.steps={steps}", f"validation.every={steps}", *settings]
    with tempfile.TemporaryDirectory() as place:
        start = time.process_time()
        train(with_overrides(config, limits), Path(place), progress=False)
        return time.process_time() - start
