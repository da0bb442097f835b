"""Trained learners and adapted tasks on disk.

An artifact is a folder of ``config.json``, ``model.safetensors`` and a model card; an adapted task is
one small file that names its artifact. Both are written whole or not at all, nothing is unpickled, and
nothing that a file names is imported.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import quickstudy
from quickstudy.adapted import AdaptedTask, base_of, load_task, save_task
from quickstudy.answering import answer
from quickstudy.build import build_learner, one_source, parse_spec
from quickstudy.card import model_card
from quickstudy.config import RunConfig, parse_config
from quickstudy.data import SOURCES
from quickstudy.durable import (
    FORMAT,
    ArtifactError,
    aside,
    canonical,
    finite,
    sha256_of,
    swap_in,
    sync_folder,
    write_through,
)
from quickstudy.learners.base import Learner
from quickstudy.learning import extend
from quickstudy.nn.several import SeveralEncoders
from quickstudy.nn.tables import TableEncoder
from quickstudy.pretrained import place_of, ships
from quickstudy.rejection import FACT, Rejection

__all__ = [
    "AdaptedTask",
    "Artifact",
    "ArtifactError",
    "answer",
    "base_of",
    "extend",
    "keep_rejection",
    "load_artifact",
    "load_task",
    "save_artifact",
    "save_task",
]


ASSET = "encoder."
"""What the names of files begin with that belong to a pretrained encoder."""


@dataclass
class Artifact:
    """A trained learner with all that is known of it.

    Args:
        learner: in evaluation mode, with the best weights.
        config: the run that made it.
        scores: what was measured, by name; each with ``mean``, ``ci95`` and ``episodes``.
        id: the same for the same weights and configuration, whatever else is known.
        path: its folder; ``None`` while it is on no disk.
        facts: data, hardware, versions and training time, for the model card.
    """

    learner: Learner
    config: RunConfig
    scores: dict[str, Any]
    id: str
    path: Path | None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Any]:
        """What examples must be: their ``kind``, how images are read, and whether tables may have categories."""
        name, _, options = parse_spec(one_source(self.config.data))
        source = SOURCES.get(name)
        kind = str(self.config.encoder["name"]) if source is None else source.kind
        found: dict[str, Any] = {"kind": kind}
        for key in ("size", "channels"):
            if kind == "image" and hasattr(self.learner.encoder, key):
                found[key] = int(getattr(self.learner.encoder, key))
        if kind == "image":
            found["invert"] = options.get("invert", "auto")
        if isinstance(self.learner.encoder, TableEncoder):
            found["coded"] = True
        if isinstance(self.learner.encoder, SeveralEncoders):
            found["parts"] = list(self.learner.encoder.parts)
            for key in ("size", "channels"):
                if "image" in found["parts"]:
                    found[key] = int(getattr(self.learner.encoder.part("image"), key))
            found["invert"] = options.get("invert", "auto")
        return found


ENCODER = "encoder."
"""What the names of an encoder's weights begin with."""


def _weights(learner: Learner, left_out: Set[str] = frozenset()) -> bytes:
    # Cloned, since the format refuses tensors that share memory, as tied weights do.
    tensors = {
        name: t.detach().cpu().clone().contiguous()
        for name, t in learner.state_dict().items()
        if name.removeprefix(ENCODER) not in left_out
    }
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def _identity(weights_sha256: str, config: RunConfig) -> str:
    return sha256_of(canonical([weights_sha256, config.model_dump(mode="json")]))[:16]


def save_artifact(
    path: str | Path,
    learner: Learner,
    config: RunConfig,
    scores: Mapping[str, Any],
    *,
    facts: Mapping[str, Any] | None = None,
    whole: bool = True,
) -> Artifact:
    """Write an artifact; an older one in its place survives a full disk or a kill.

    Args:
        path: the folder to write.
        learner: what was trained.
        config: how.
        scores: what was measured, by name.
        facts: more for the model card: ``data``, ``hardware``, ``training``.
        whole: with all weights; or without those of a published model that were not trained, which must then be
            installed where the artifact is loaded.

    Raises:
        ArtifactError: the folder holds something else, or cannot be written; an artifact without a published model is
            to leave it out.
    """
    path = Path(path)
    if (
        path.exists()
        and not (path / "config.json").is_file()
        and (path.is_file() or any(path.iterdir()))
    ):
        raise ArtifactError(
            f"{path} exists and is no artifact; choose another place, so that nothing is overwritten."
        )
    encoder = learner.encoder
    if not whole and not encoder.given:
        raise ArtifactError(
            f"The encoder {type(encoder).__name__} holds no weights of a published model that can be left out; save "
            "the artifact whole."
        )
    weights = _weights(learner, frozenset() if whole else encoder.given)
    sha256 = sha256_of(weights)
    kept = encoder.assets() if whole else {}
    assets = {f"{ASSET}{name}": content for name, content in kept.items()}
    record: dict[str, Any] = {
        "format": FORMAT,
        "id": _identity(sha256, config),
        "weights_sha256": sha256,
        "left_out": "" if whole else encoder.published,
        "assets_sha256": {name: sha256_of(content) for name, content in assets.items()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"quickstudy": quickstudy.__version__, "torch": torch.__version__},
        "config": config.model_dump(mode="json"),
        "scores": dict(scores),
        "facts": dict(facts or {}),
    }
    record = finite(json.loads(json.dumps(record, default=str)))  # as it will be read again
    record["sha256"] = sha256_of(canonical(record))
    parameters = sum(parameter.numel() for parameter in learner.parameters())
    files = {
        **assets,
        "model.safetensors": weights,
        "config.json": json.dumps(record, indent=2, ensure_ascii=False).encode(),
        "README.md": model_card(record, config, parameters=parameters, name=path.name).encode(),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            write_through(temporary / name, content)
        sync_folder(temporary)
        swap_in(temporary, path)
    except OSError as error:
        raise ArtifactError(
            f"The artifact {path} cannot be saved: {error.strerror}; what was there before is intact. Free some space "
            "or choose another place."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Artifact(learner.eval(), config, record["scores"], record["id"], path, record["facts"])


def check_own(artifact: Artifact) -> None:
    """Refuse to write to an artifact that ships with the package.

    Raises:
        ArtifactError: it does.
    """
    if ships(artifact.path):
        raise ArtifactError(
            f"{artifact.path} ships with the package and stays as it is; copy the folder and name the copy."
        )


def keep_rejection(artifact: Artifact, rejection: Rejection) -> Artifact:
    """The same artifact, which knows from now on which queries are of no class; on disk too, where it has a folder.

    Its id stays, so what was adapted with it remains valid.

    Raises:
        ArtifactError: it cannot be written; what was there before is intact. It ships with the package, and is not
            written to.
    """
    check_own(artifact)
    facts = artifact.facts | {FACT: rejection.as_json()}
    if artifact.path is None:
        return replace(artifact, facts=facts)
    whole = not _read_record(artifact.path).get("left_out")
    return save_artifact(
        artifact.path,
        artifact.learner,
        artifact.config,
        artifact.scores,
        facts=facts,
        whole=whole,
    )


def _read_record(path: Path) -> dict[str, Any]:
    """The checked contents of ``config.json``."""
    try:
        record = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is no artifact: it has no config.json; name the artifact folder that training left."
        ) from None
    except (OSError, ValueError):
        raise ArtifactError(
            f"The artifact {path} is damaged: its config.json cannot be read; copy it again, or train it again."
        ) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise ArtifactError(
            f"The artifact {path} has format {found!r}, but this version reads {FORMAT}; use the quickstudy that "
            "wrote it."
        )
    if record.pop("sha256", None) != sha256_of(canonical(record)):
        raise ArtifactError(
            f"The artifact {path} was changed after it was written: its config.json does not match its own checksum; "
            "copy it again, or train it again."
        )
    return record


def _read_assets(path: Path, record: Mapping[str, Any]) -> dict[str, bytes]:
    """What rebuilds a pretrained encoder on a machine that does not have it, checked."""
    assets = {}
    for name, sha256 in record.get("assets_sha256", {}).items():
        file = path / name
        if Path(name).name != name or not file.is_file() or sha256_of(file.read_bytes()) != sha256:
            raise ArtifactError(
                f"The file {name} of the artifact {path} is missing, truncated or was changed; copy the artifact "
                "again, or train it again."
            )
        assets[name.removeprefix(ASSET)] = file.read_bytes()
    return assets


def _with_published(
    tensors: dict[str, Tensor], learner: Learner, record: Mapping[str, Any], path: Path
) -> dict[str, Tensor]:
    """All weights: those that the artifact keeps, and those of a published model that it left out."""
    left_out = record.get("left_out", "")
    if not left_out:
        return tensors
    encoder = learner.encoder
    if encoder.published != left_out:
        raise ArtifactError(
            f"The artifact {path} was made with a published model of checksum {left_out[:12]}…, and the one that is "
            f"installed has {encoder.published[:12] or 'none'}; install the quickstudy that wrote it."
        )
    state = learner.state_dict()
    return tensors | {f"{ENCODER}{name}": state[f"{ENCODER}{name}"] for name in encoder.given}


def load_artifact(path: str | Path, device: str | torch.device = "cpu") -> Artifact:
    """Read an artifact, checked against its checksums.

    Args:
        path: its folder, or the folder of the run that made it, or the name of one that ships with the package.
        device: where the weights go.

    Raises:
        ArtifactError: it is missing, truncated, edited, or of another format.
    """
    path = Path(path)
    if not path.exists() and aside(path).exists():
        aside(path).replace(path)
    path = place_of(path)
    if path.is_file():
        raise ArtifactError(
            f"{path} is a file, and a model is a folder; name the folder that training left, or text or tables, which "
            "ship with quickstudy."
        )
    if not (path / "config.json").exists() and (path / "artifact" / "config.json").exists():
        path = path / "artifact"
    record = _read_record(path)
    try:
        content = (path / "model.safetensors").read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"The weights of the artifact {path} cannot be read: {error.strerror}; copy it again, or train it again."
        ) from None
    if sha256_of(content) != record["weights_sha256"]:
        raise ArtifactError(
            f"The weights of the artifact {path} are truncated or were changed: model.safetensors does not match its "
            "checksum; copy it again, or train it again."
        )
    config = parse_config(record["config"])
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten at once
        learner = build_learner(config.learner, config.encoder, assets=_read_assets(path, record))
    tensors = _with_published(safetensors.torch.load(content), learner, record, path)
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(kinds) == 1:
        learner.to(kinds.pop())
    try:
        learner.load_state_dict(tensors)
    except RuntimeError:
        raise ArtifactError(
            f"The weights of the artifact {path} do not fit the learner {config.learner['name']!r} of this version; "
            f"use quickstudy {record['versions']['quickstudy']}, which wrote it."
        ) from None
    learner.to(device).eval()
    return Artifact(learner, config, record["scores"], record["id"], path, record["facts"])
