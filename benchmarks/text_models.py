"""MiniLM as benchmarks of texts take it, frozen and trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from quickstudy.artifact import Artifact, load_artifact
from quickstudy.config import parse_config
from quickstudy.training import train

FROZEN: dict[str, Any] = {"name": "text", "model": "minilm", "words": 128}
TRAINED: dict[str, Any] = FROZEN | {"frozen": False, "trained": "encoder.*"}


def loaded_or_trained(run: Path | None, options: dict[str, Any]) -> Artifact:
    """A run that was made before; where there is none, what a training of these options leaves."""
    if run:
        return load_artifact(run)
    with tempfile.TemporaryDirectory() as place:
        return train(parse_config(options), Path(place) / "run")
