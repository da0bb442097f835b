"""Estimators that last: what a failed fit leaves, and what a pickle holds."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from quickstudy.artifact import AdaptedTask, Artifact, load_artifact, save_artifact
from quickstudy.data.coding import Array, Coding
from quickstudy.durable import ArtifactError
from quickstudy.estimator.inputs import artifact_to_start_from, check_device, record_of
from quickstudy.pretrained import SHIPPED, Predicts, place_of, shipped


class Lasting(BaseEstimator):  # type: ignore[misc]
    """An estimator whose artifact stays out of its pickle where it lies on a disk, and is read again when needed."""

    artifact: str | Path | Artifact | None
    device: str
    task_: AdaptedTask
    coding_: Coding
    mean_: Array
    scale_: Array
    _artifact: Artifact | None = None

    @property
    def artifact_(self) -> Artifact:
        """The artifact as the estimator computes with it; after unpickling it is read at its first use.

        Raises:
            NotFittedError: nothing was learned yet.
            ArtifactError: the artifact is gone, or another one lies in its place.
        """
        if self._artifact is None:
            check_is_fitted(self, "task_")
            self._artifact = _read_again(self.artifact, self.device, self.task_.base_id)
        return self._artifact

    def _start_from_artifact(self) -> Artifact:
        self._artifact = artifact_to_start_from(self.artifact, self.device)
        return self._artifact

    @contextmanager
    def _or_as_before(self) -> Iterator[None]:
        """Leave the estimator as it was if what is done with it fails."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_artifact", None)
        state["artifact"] = _for_pickle(self.artifact)
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        found = dict(state)
        kept = found["artifact"]
        if isinstance(kept, _Place):
            found["artifact"] = kept.folder()
            found["device"] = kept.device or found["device"]
        elif isinstance(kept, _Files):
            found["artifact"] = kept.load()
        super().__setstate__(found)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Not by way of the pickle's state: a copy in memory needs nothing from a disk.
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made


@dataclass(frozen=True)
class _Place:
    """An artifact that lies on a disk.

    Args:
        path: its folder; empty for one that ships with the package, wherever that is installed.
        ships: name and kind of one that does.
        device: of one that was given loaded, where it computed.
    """

    path: str
    ships: tuple[str, Predicts] | None
    device: str = ""

    @classmethod
    def of(cls, path: str | Path, device: str = "") -> Self:
        place = place_of(path).resolve()
        for name, kinds in SHIPPED.items():
            for kind in kinds:
                if place == shipped(name, kind).resolve():
                    return cls("", (name, kind), device)
        return cls(str(place), None, device)

    def folder(self) -> Path:
        return Path(self.path) if self.ships is None else shipped(*self.ships)


@dataclass(frozen=True)
class _Files:
    """An artifact that lies on no disk and whose encoder cannot be pickled, as the files that it would be saved as."""

    content: dict[str, bytes]
    id: str
    device: str

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        learner = artifact.learner
        with tempfile.TemporaryDirectory() as folder:
            save_artifact(
                folder,
                learner,
                artifact.config,
                artifact.scores,
                facts=artifact.facts,
                whole=not learner.encoder.given,
            )
            content = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        return cls(content, artifact.id, _device_of(artifact))

    def load(self) -> Artifact:
        check_device(self.device)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.content.items():
                (Path(folder) / name).write_bytes(content)
            return replace(load_artifact(folder, self.device), id=self.id, path=None)


def _for_pickle(artifact: str | Path | Artifact | None) -> Any:
    """What stands for an artifact in a pickle."""
    if artifact is None:
        return None
    if not isinstance(artifact, Artifact):
        return _Place.of(artifact)
    path = artifact.path
    if path is not None and record_of(path).get("id") == artifact.id:
        return _Place.of(path, _device_of(artifact))
    return _Files.of(artifact) if artifact.learner.encoder.assets() else artifact


def _device_of(artifact: Artifact) -> str:
    return str(next(artifact.learner.parameters()).device)


def _read_again(artifact: str | Path | Artifact | None, device: str, base_id: str) -> Artifact:
    """The artifact that a task was learned with."""
    what = f"This estimator was fitted with the artifact {base_id}"
    where = f"the artifact {artifact.id}" if isinstance(artifact, Artifact) else f"{artifact}"
    remedy = "put it back there, say where it lies with set_params(artifact=…), or fit anew."
    try:
        found = artifact_to_start_from(artifact, device)
    except ArtifactError as error:
        raise ArtifactError(
            f"{what}, which cannot be read from {where}; {remedy} ({error})"
        ) from error
    if found.id != base_id:
        raise ArtifactError(f"{what}, and {where} is another one, {found.id}; {remedy}")
    return found
