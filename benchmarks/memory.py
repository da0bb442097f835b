"""What one call takes of memory, measured in a process of its own (Linux)."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def resident(field: str) -> float:
    """Bytes of this process: VmRSS now, VmHWM at the highest."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * float(status.partition(f"{field}:")[2].split()[0])


def peak_of(call: Callable[[], object]) -> float:
    """Bytes that a call takes above the level before it."""
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    call()
    return resident("VmHWM") - before


def peak_elsewhere(*point: str | int, rounds: int = 1) -> float:
    """The median of what the running script prints when it is given a point, each time in a fresh process."""
    command = [sys.executable, sys.argv[0], "--point", json.dumps(point)]
    found = [
        float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        for _ in range(rounds)
    ]
    return statistics.median(found)
