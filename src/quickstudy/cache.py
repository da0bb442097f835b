"""Derived arrays kept on disk: decoded images, features of frozen encoders, downloaded archives.

Everything here can be deleted at any time; it is made again when it is needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def cache_folder() -> Path:
    """Where derived files are kept: the environment variable ``QUICKSTUDY_CACHE``, or ``~/.cache/quickstudy``."""
    chosen = os.environ.get("QUICKSTUDY_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "quickstudy"


def digest(parts: Iterable[object]) -> str:
    """A key that changes when any of the parts does.

    >>> digest(["images", 28]) == digest(["images", 28]), digest(["ab", "c"]) == digest(["a", "bc"])
    (True, False)
    """
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def remember(kind: str, key: str, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays that ``make`` returns, computed once and then mapped from disk.

    The arrays may be written to; what is written stays in memory and never reaches the disk. A cache
    folder that cannot be written to, or a disk that is full, costs the speed and nothing else.

    Args:
        kind: folder in the cache.
        key: changes when the arrays would.
        make: name to array; called when the cache holds nothing under ``key``.
    """
    folder = cache_folder() / kind / key
    if not folder.is_dir():
        arrays = dict(make())
        try:
            _store(folder, arrays)
        except OSError:
            return arrays
    try:
        # Copy on write: PyTorch insists on memory that may be written to.
        return {
            file.stem: np.load(file, mmap_mode="c", allow_pickle=False) for file in folder.iterdir()
        }
    except (OSError, ValueError, EOFError):
        shutil.rmtree(folder, ignore_errors=True)
        return dict(make())


def _store(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Write all arrays or none: a reader never meets half a folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        try:
            temporary.replace(folder)
        except OSError:
            if (
                not folder.is_dir()
            ):  # otherwise another process was faster, and its arrays are the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
