"""Another learner on an encoder that is trained already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickstudy.artifact import Artifact, ArtifactError, save_artifact
from quickstudy.build import build_learner
from quickstudy.rejection import FACT


def derive(
    artifact: Artifact,
    learner: str | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    whole: bool = True,
) -> Artifact:
    """The encoder of an artifact under another learner, which has nothing to be trained but single numbers.

    Parameters that both learners have, such as the temperature or the weight of names, go along; others begin as they
    do before training. Scores, and what the old learner knew of queries that are of no class, stay behind.

    Args:
        artifact: whose encoder it is; stays as it is.
        learner: its name, or a mapping with a name and options.
        out: a folder to write the new artifact to; None keeps it in memory.
        whole: as for :func:`quickstudy.artifact.save_artifact`.

    Raises:
        BuildError: there is no such learner or option.
        ArtifactError: the learner has weights beside the encoder that only training finds; ``out`` cannot be written.

    >>> from quickstudy.config import RunConfig
    >>> encoder = {"name": "vector", "inputs": 2, "width": 8, "layers": 1}
    >>> config = RunConfig(data="synthetic", learner={"name": "protonet"}, encoder=encoder)
    >>> trained = Artifact(build_learner(config.learner, encoder), config, {}, id="trained", path=None)
    >>> derive(trained, "fine_tune").config.learner
    {'name': 'fine_tune'}
    """
    options = {"name": learner} if isinstance(learner, str) else dict(learner)
    old, encoder = artifact.learner, artifact.learner.encoder
    assets = {} if encoder.published else encoder.assets()
    made = build_learner(options, artifact.config.encoder, assets=assets)
    known = old.state_dict()
    untrained = [
        name
        for name, value in made.named_parameters()
        if value.ndim and (name not in known or known[name].shape != value.shape)
    ]
    if untrained:
        raise ArtifactError(
            f"The learner {options['name']!r} has weights beside the encoder that only training finds, such as "
            f"{untrained[0]}; choose one without, such as protonet, linear_head or fine_tune, or train it."
        )
    own = made.state_dict()
    fitting = {name: value for name, value in known.items() if name in own}
    made.load_state_dict(own | fitting)
    device = next(old.parameters()).device
    made.to(device, next(encoder.parameters()).dtype).eval()
    config = artifact.config.model_copy(update={"learner": options})
    facts = {name: value for name, value in artifact.facts.items() if name != FACT}
    facts |= {"derived_from": artifact.id}
    if out is None:
        return Artifact(
            made, config, {}, id=f"{artifact.id}-{options['name']}", path=None, facts=facts
        )
    return save_artifact(out, made, config, {}, facts=facts, whole=whole)
