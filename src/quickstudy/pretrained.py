"""Artifacts that ship with the package, by name; ``SHIPPED`` is the only list of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from quickstudy.durable import ArtifactError

Predicts = Literal["classes", "values"]

SHIPPED: dict[str, tuple[Predicts, ...]] = {"tables": ("classes", "values")}
"""Name to what there is an artifact for; the folders ``name/classes`` and ``name/values`` lie beside this file."""


def shipped(name: str, predicts: Predicts = "classes") -> Path:
    """The folder of an artifact that ships with the package.

    Raises:
        ArtifactError: there is none of that name for that; lists those that there are.

    >>> folder = shipped("tables", "values")
    >>> folder.parent.name, folder.name
    ('tables', 'values')
    """
    known = [each for each, kinds in SHIPPED.items() if predicts in kinds]
    if name not in known:
        raise ArtifactError(
            f"No artifact named {name!r} that predicts {predicts} ships with the package; those that do are "
            f"{', '.join(known)}. Give the folder of one of your own to the estimator itself."
        )
    return Path(__file__).parent / "shipped" / name / predicts
