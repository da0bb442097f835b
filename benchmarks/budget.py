"""Trainings that are to take so many processor seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from quickstudy.config import RunConfig, with_overrides
from quickstudy.training import train


def steps_within(
    config: RunConfig, seconds: float, *, probe: int, settings: Sequence[str] = ()
) -> int:
    """How many training steps take so long, as nearly as ``probe`` of them can tell; at least 2.

    Args:
        config: of the training.
        seconds: of the processor.
        probe: steps that are timed.
        settings: of the probe alone, such as fewer validation tasks.
    """
    with tempfile.TemporaryDirectory() as place:
        spent = []
        for steps in (1, 1 + probe):
            start = time.process_time()
            limits = [f"training.steps={steps}", f"validation.every={steps}", *settings]
            train(with_overrides(config, limits), Path(place) / str(steps), progress=False)
            spent.append(time.process_time() - start)
    return max(2, round(seconds * probe / (spent[1] - spent[0])))
