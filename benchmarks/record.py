"""Results as files: figures beside the machine and the versions that they were measured with."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quickstudy.machine import COMPUTING, hardware, versions

RESULTS = Path(__file__).parent / "results"


def record(name: str, figures: dict[str, Any], *, keep: bool = True) -> None:
    """Print the figures of one benchmark, and write them unless the run was only a try."""
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    if not keep:
        return
    result = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name}",
        "hardware": hardware(),
        "versions": versions((*COMPUTING, "pillow", "matplotlib")),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def earlier(name: str, part: str) -> dict[str, Any]:
    """What earlier runs of a benchmark left in this part of its results, so that another one can be put beside it."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()).get(part, {}) if file.exists() else {}


def compared(scores: Mapping[str, Any], own: str) -> dict[str, Any]:
    """The accuracy of each contender on the same tasks, and by how much its own one is above each of the others."""
    from quickstudy.evaluation.measures import summary  # not every benchmark needs torch

    return {
        "accuracy": {name: summary(each) for name, each in scores.items()},
        "above": {
            name: summary(scores[own] - each) for name, each in scores.items() if name != own
        },
    }


def interleaved(
    contenders: dict[str, Callable[[], Any]], *, rounds: int = 9, shortest: float = 0.2
) -> dict[str, float]:
    """Median seconds of processor time for one call of each contender, A B C A B C …."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            calls, start = 0, time.process_time()
            while (spent := time.process_time() - start) < shortest:
                call()
                calls += 1
            times[name].append(spent / calls)
    return {name: statistics.median(each) for name, each in times.items()}
