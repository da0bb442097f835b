"""Artifacts that ship with the package, by name; ``SHIPPED`` is the only list of them."""

from __future__ import annotations

from pathlib import Path

from quickstudy.durable import ArtifactError

SHIPPED = {"tables": "tables with classes: numbers and categories, with gaps"}
"""Name to what it is for; the folder of each lies beside this file."""


def shipped(name: str) -> Path:
    """The folder of an artifact that ships with the package.

    Raises:
        ArtifactError: there is none of that name; lists those that there are.

    >>> shipped("tables").name
    'tables'
    """
    if name not in SHIPPED:
        known = ", ".join(SHIPPED)
        raise ArtifactError(
            f"No artifact named {name!r} ships with the package; those that do are {known}. Give the folder of one of "
            "your own to the estimator itself."
        )
    return Path(__file__).parent / "shipped" / name
