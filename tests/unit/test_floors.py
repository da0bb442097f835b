"""The floors of the house: who may import whom, read from the source, and what an import costs."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import quickstudy

ROOT = Path(quickstudy.__file__).parent
FLOORS = {
    "episode": 0, "likelihood": 0, "cache": 0, "durable": 0, "machine": 0,
    "functional": 1, "nn": 1,
    "learners": 2, "data": 2,
    "config": 3, "build": 3, "artifact": 3, "adapted": 3, "card": 3, "rejection": 3, "answering": 3, "pretrained": 3,
    "naming": 3, "derive": 3, "learning": 3, "labelling": 3,
    "following": 3, "feedback": 3, "corrections": 3,
    "training": 4, "evaluation": 4, "report": 4, "estimator": 4, "doctor": 4, "export": 4,
    "cli": 5, "service": 5, "__main__": 5,
}  # fmt: skip
"""A module imports from its own floor and from those below; the package itself only offers what is above, lazily."""

OWNERS = {
    "transformers": ("nn/pretrained", "nn/loading", "nn/minilm", "data/text"),
    "lightning": ("training",),
    "matplotlib": ("report", "data/glyphs"),
    "sklearn": ("estimator",),
    "typer": ("cli",),
    "fastapi": ("service",),
    "pickle": (),
    "torchvision": (),
}
"""Who may import what at all; an empty list forbids it."""

HEAVY = ("transformers", "lightning", "matplotlib", "sklearn")
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """``nn/pretrained`` for nn/pretrained.py; ``nn/__init__`` for a package."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules imported anywhere below a node, except for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


@cache
def imported(path: Path) -> frozenset[str]:
    """What a file imports, in full."""
    return frozenset(imports(ast.parse(path.read_text())))


def own_imports(path: Path) -> set[str]:
    """First parts of what a file imports from this library: ``nn``, ``episode``, …"""
    return {name.split(".")[1] for name in imported(path) if name.startswith("quickstudy.")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_from_its_floor_and_below(path: Path) -> None:
    part = name_of(path).split("/")[0]
    floor = FLOORS[part] if part != "__init__" else max(FLOORS.values())
    above = {other for other in own_imports(path) if FLOORS.get(other, 0) > floor}
    assert not above, f"{part} imports {sorted(above)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_data_and_learners_never_see_each_other(path: Path) -> None:
    other = {"data": {"learners"}, "learners": {"data"}, "nn": {"data"}}
    assert not own_imports(path) & other.get(name_of(path).split("/")[0], set())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_library_has_its_owners(path: Path) -> None:
    used = {name.split(".")[0] for name in imported(path)}
    for library, owners in OWNERS.items():
        if library in used:
            assert name_of(path).startswith(owners or ("nobody",)), f"{library} is imported here"


def test_nobody_imports_the_command_line() -> None:
    users = [name_of(path) for path in FILES if own_imports(path) & {"cli", "service"}]
    assert all(user.startswith(("cli", "service", "__main__")) for user in users), users


def loaded_by(statement: str) -> set[str]:
    """The libraries that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split())  # fmt: skip


def test_importing_the_library_alone_is_light() -> None:
    assert not loaded_by("import quickstudy") & {"torch", "numpy", "pydantic", *HEAVY}


def test_importing_every_learner_and_encoder_loads_nothing_heavy() -> None:
    loaded = loaded_by("import quickstudy.learners, quickstudy.nn, quickstudy.data")
    assert "torch" in loaded
    assert not loaded & set(HEAVY)


CORE = [
    name_of(path).replace("/", ".").removesuffix(".__init__")
    for path in FILES
    if name_of(path).split("/")[0] in ("episode", "likelihood", "functional", "learners")
    or name_of(path) in ("nn/attention", "nn/layers", "nn/positions", "nn/encoders", "data/source")
]


@pytest.mark.parametrize("name", CORE)
def test_the_examples_of_the_docstrings_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"quickstudy.{name}"))
    assert results.failed == 0
