"""What a report says of a run beside its scores: learning curve, versions and hardware."""

from __future__ import annotations

import csv
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

import quickstudy


class Curve(NamedTuple):
    """One column of a run's ``metrics.csv`` over its steps."""

    name: str
    steps: list[int]
    values: list[float]


def learning_curves(metrics: Path) -> dict[str, Curve]:
    """The columns of ``metrics.csv`` that change with ``step``; cells that are empty or no finite number are left out.

    An absent file has no columns.
    """
    if not metrics.is_file():
        return {}
    curves: dict[str, Curve] = {}
    with metrics.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            if step is None:
                continue
            for name, cell in row.items():
                value = _number(cell)
                if name != "step" and value is not None:
                    curve = curves.setdefault(name, Curve(name, [], []))
                    curve.steps.append(int(step))
                    curve.values.append(value)
    return curves


def _number(cell: object) -> float | None:
    """A finite number, or None."""
    try:
        value = float(str(cell))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def versions() -> dict[str, str]:
    """The versions of this library and of what it computes with; packages that are absent are left out."""
    found = {"quickstudy": quickstudy.__version__, "Python": platform.python_version()}
    for package in ("torch", "numpy", "lightning", "transformers", "scikit-learn"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str]:
    """The machine that this process runs on."""
    found = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(os.cpu_count() or "unknown"),
        "threads": str(torch.get_num_threads()),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{memory / 2**30:.0f} GiB"
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    """The processor's name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
