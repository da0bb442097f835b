"""``derive``: another learner on an encoder that is trained already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.console import print_result
from quickstudy.cli.errors import WrongUse


def derive(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a trained model.")
    ],
    learner: Annotated[
        str,
        typer.Option(metavar="SPEC", help="The other learner: name[,option=value...]."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to leave the new model.")
    ],
) -> None:
    """Put another learner on the encoder of a trained model.

    Nothing is trained. It is for learners that have no weights of their own, such as linear_head, which fits a head to
    each task, and fine_tune, which goes on training the encoder on the examples of each task: slower, and better where
    its classes are unlike those of the training.

    \b
    Examples:
      quickstudy derive runs/demo/artifact --learner linear_head --out runs/linear
      quickstudy derive runs/intents/artifact --learner fine_tune,names=true --out runs/tuned
    """
    if out.exists():
        raise WrongUse(f"{out} exists already and is not overwritten; choose another --out.")
    from quickstudy.artifact import load_artifact
    from quickstudy.build import parse_spec
    from quickstudy.derive import derive as make

    name, path, options = parse_spec(learner)
    if path is not None:
        raise WrongUse(f"Found {learner!r}; expected name[,option=value...], such as linear_head.")
    loaded = load_artifact(artifact)
    whole = not loaded.learner.encoder.published
    made = make(loaded, {"name": name, **options}, out=out, whole=whole)
    print_result(str(made.path))
