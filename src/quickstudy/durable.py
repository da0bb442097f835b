"""Files that are written whole or not at all, and the one error of everything that is kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = 1
"""Of artifacts and tasks; raised when an older reader could not understand them."""


class ArtifactError(ValueError):
    """An artifact or a task that cannot be read or written; the message says what is wrong with it."""


def canonical(value: Any) -> bytes:
    """One spelling of a JSON value, for checksums."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def finite(value: Any) -> Any:
    """The same tree of what JSON holds, with nothing in place of a number that JSON has no word for.

    >>> finite({"mean": math.nan, "rows": [1.0, math.inf]})
    {'mean': None, 'rows': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(*parts: bytes) -> str:
    """The checksum of bytes, in hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def write_through(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: under a temporary name in the same folder, then renamed.

    Args:
        path: the file.
        content: its bytes, or what writes them into an open file.

    Raises:
        OSError: the disk is full or the folder may not be written; what was there before is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_through(temporary, content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def aside(path: Path) -> Path:
    """Where the old artifact waits while the new one takes its place."""
    return path.with_name(f".{path.name}.old")


def swap_in(new: Path, path: Path) -> None:
    """Put the folder ``new`` at ``path``; killed in between, the next reading brings the old one back."""
    old = aside(path)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
    try:
        new.replace(path)
    except BaseException:
        if old.exists():
            old.replace(path)
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
