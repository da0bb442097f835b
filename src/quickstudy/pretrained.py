"""Artifacts that ship with the package, by name; ``SHIPPED`` is the only list of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from quickstudy.durable import ArtifactError

Predicts = Literal["classes", "values"]

SHIPPED: dict[str, tuple[Predicts, ...]] = {
    "tables": ("classes", "values"),
    "text": ("classes",),
}
"""Name to what there is an artifact for; the folders ``name/classes`` and ``name/values`` lie beside this file."""

SUMMARIES = {
    "tables": "Classes of the rows of a table, learned from some of them in one pass.",
    "tables/values": "The same for numbers, with their uncertainty.",
    "text": "Labels of short texts, intents above all; needs quickstudy[minilm].",
}
"""What each is for, in a line, by the name that stands where a model's folder would."""


def ships(path: Path | None) -> bool:
    """Whether a folder is one of those that ship with the package; what has none, is in memory, does not."""
    return path is not None and path.resolve().is_relative_to(
        Path(__file__).resolve().parent / "shipped"
    )


def place_of(path: str | Path) -> Path:
    """The folder that a path names: itself, or where there is none, that of a shipped artifact of that name.

    ``tables`` predicts classes; ``tables/values`` is its like for values.

    >>> place_of("tables/values") == shipped("tables", "values")
    True
    >>> str(place_of("runs/none"))
    'runs/none'
    """
    path = Path(path)
    names = {
        each: shipped(name, kind)
        for name, kinds in SHIPPED.items()
        for kind in kinds
        for each in (f"{name}/{kind}", name if kind == kinds[0] else "")
    }
    return path if path.exists() else names.get(path.as_posix(), path)


def called(path: Path | None) -> str:
    """What a person types for a folder: the name of an artifact that ships, or the path.

    >>> called(shipped("tables", "values")), called(Path("runs/demo"))
    ('tables/values', 'runs/demo')
    """
    place = Path(path or "").resolve()
    return next((name for name in SUMMARIES if place_of(name).resolve() == place), str(path))


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
