"""What estimators share: an artifact to start from, and examples as it takes them."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from quickstudy.artifact import AdaptedTask, Artifact, load_artifact
from quickstudy.data.calling import Tokenizes
from quickstudy.data.coding import Array
from quickstudy.data.decoding import to_pixels
from quickstudy.data.labelled import read_inputs
from quickstudy.data.splitting import note_conflicts
from quickstudy.nn.encoders import Encoder, RawEncoder, VectorEncoder
from quickstudy.nn.tables import TableEncoder


def artifact_to_start_from(artifact: str | Path | Artifact | None, device: str) -> Artifact:
    """An artifact as an estimator computes with it.

    Args:
        artifact: its folder, or a loaded one.
        device: where an artifact that is given as a folder computes.

    Raises:
        ValueError: there is none, or no such device.
        ArtifactError: it cannot be read.
    """
    if artifact is None:
        raise ValueError(
            "There is nothing to start from; name an artifact's folder, such as artifact='runs/demo/artifact'."
        )
    if not isinstance(artifact, Artifact):
        check_device(device)
        artifact = load_artifact(artifact, device)
    if isinstance(artifact.learner.encoder, VectorEncoder | RawEncoder | TableEncoder):
        # In double precision an answer does not depend on which others are asked for with it.
        learner = copy.deepcopy(artifact.learner).double().eval()
        artifact = dataclasses.replace(artifact, learner=learner)
    return artifact


def check_device(device: str) -> None:
    """Refuse a device on which torch cannot compute here.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"Found device={device!r}, on which torch cannot compute here; give device='cpu', or a device that this "
            "machine and this build of torch have."
        ) from error


def record_of(folder: Path) -> dict[str, Any]:
    """What an artifact says of itself, without loading or checking it; nothing where there is none."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def reads_tables(artifact: str | Path | Artifact | None) -> bool:
    """Whether an artifact takes tables with gaps and categories, without loading it."""
    if isinstance(artifact, Artifact):
        return isinstance(artifact.learner.encoder, TableEncoder)
    if artifact is None:
        return False
    try:
        return bool(record_of(Path(artifact))["config"]["encoder"]["name"] == "table")
    except (KeyError, TypeError):
        return False


def table_of(estimator: BaseEstimator, X: Any, *, most: int, begin: bool) -> Array:
    """Numbers, float64 (example, column), as scikit-learn checks them.

    Args:
        estimator: that is given them.
        X: the examples.
        most: columns that the artifact takes.
        begin: whether these examples say how many columns there are from now on.

    Raises:
        ValueError: they are no table of finite numbers, or have another number of columns.
    """
    table = validate_data(estimator, X, reset=begin, dtype=np.float64)
    if table.shape[1] > most:
        raise ValueError(
            f"Found {table.shape[1]} columns, but this artifact takes at most {most}; select columns, or train an "
            "artifact with more inputs."
        )
    return table


def mean_and_deviation(table: Array) -> tuple[Array, Array]:
    """Of each column, (column,); the deviation of a constant column is taken for 1."""
    mean, deviation = table.mean(axis=0), table.std(axis=0)
    return mean, np.where(deviation > 1e-12 * (1 + abs(mean)), deviation, 1.0)


def texts_of(X: Any) -> list[str]:
    """The strings of a list or a one-dimensional array.

    Raises:
        ValueError: something else was given, no text at all, or a text is empty.
    """
    if isinstance(X, str) or np.ndim(X) != 1 or not all(isinstance(text, str) for text in X):
        raise ValueError("This artifact takes texts; give a list of strings.")
    if not len(X):
        raise ValueError("Found an empty list, where texts are expected; give at least one.")
    empty = [place for place, text in enumerate(X, start=1) if not text.strip()]
    if empty:
        more = f" ({len(empty) - 1} more such)" if len(empty) > 1 else ""
        raise ValueError(f"The text number {empty[0]} is empty{more}; leave it out.")
    return [str(text) for text in X]


def note_texts(encoder: Encoder, X: Any, labels: Sequence[str]) -> None:
    """Say which texts are given to two classes; nothing of examples of another kind."""
    if isinstance(encoder, Tokenizes):
        places = [f"example {place}" for place in range(1, len(labels) + 1)]
        note_conflicts([text.strip() for text in X], labels, places, what="text")


def images_of(X: Any, shape: dict[str, Any]) -> Tensor:
    """Images, or files of them, as uint8 (image, channel, size, size).

    Args:
        X: an array (image, height, width) or (image, channel, height, width), or a list or a one-dimensional array of
            paths or Pillow images.
        shape: size, channels and invert, as :func:`quickstudy.data.decoding.to_pixels` takes them.

    Raises:
        ValueError: something else was given.
        DataError: a file cannot be read.
    """
    if isinstance(X, str | Path):
        raise ValueError(
            f"Found one path, {str(X)!r}, where several images are expected; give a list of paths, even of one."
        )
    if getattr(X, "ndim", 0) == 1:
        X = np.asarray(X).tolist()
    if isinstance(X, Sequence) and X and all(isinstance(each, str | Path) for each in X):
        found, _ = read_inputs([str(each) for each in X], kind="image", **shape)
        if len(found) != len(X):
            raise ValueError(
                f"Found {len(found)} images at {len(X)} paths; name files, no folders."
            )
        return found
    if isinstance(X, Sequence) and X and all(isinstance(each, Image.Image) for each in X):
        pictures = list(X)
    else:
        pictures = [Image.fromarray(each) for each in _planes(np.asarray(X))]
    return torch.from_numpy(np.stack([to_pixels(each, **shape) for each in pictures]))


def _planes(images: Array) -> Array:
    """uint8 (image, height, width) or (image, height, width, 3)."""
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    elif images.ndim != 3 or images.dtype.kind not in "uif":
        raise ValueError(
            f"This artifact takes images; found an array of shape {images.shape} and type {images.dtype}, expected "
            "(image, height, width), (image, channel, height, width) with 1 or 3 channels, or a list of file paths."
        )
    if images.dtype == np.uint8:
        return images
    low, high = images.min(initial=0), images.max(initial=0)
    most = 1 if images.dtype.kind == "f" else 255
    if not 0 <= low <= high <= most:
        raise ValueError(
            f"Found pixels from {low:g} to {high:g}; expected floats in 0 … 1 or whole numbers in 0 … 255."
        )
    return np.rint(images * (255 / most)).astype(np.uint8)


def previous_task(after: BaseEstimator | None) -> AdaptedTask | None:
    """What an estimator has learned that came before another one in a stream.

    Raises:
        NotFittedError: it has learned nothing yet.
    """
    if after is None:
        return None
    check_is_fitted(after, "task_")
    task: AdaptedTask = after.task_
    return task
