"""What a run was made with: versions and hardware, as reports, model cards and benchmarks state them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import quickstudy

COMPUTING = ("torch", "numpy", "lightning", "transformers", "scikit-learn")
"""The packages that figures depend on."""


def installed_version(package: str) -> str | None:
    """The version of an installed package, without importing it; ``None`` when it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions(packages: Iterable[str] = COMPUTING) -> dict[str, str]:
    """The versions of this library, of Python and of those packages that are installed."""
    found = {"quickstudy": quickstudy.__version__, "Python": platform.python_version()}
    return found | {p: version for p in packages if (version := installed_version(p))}


def usable_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator() -> str | None:
    """The GPUs that torch can use; ``None`` without one."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"cuda: {', '.join(names)}"
    return "mps: Apple GPU" if torch.backends.mps.is_available() else None


def hardware() -> dict[str, str]:
    """The machine that this process runs on."""
    import torch

    found = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
        "threads": str(torch.get_num_threads()),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{memory / 2**30:.0f} GiB"
    graphics = accelerator()
    return found if graphics is None else {**found, "accelerator": graphics}


def _processor() -> str:
    """The processor's name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
