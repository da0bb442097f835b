"""``train``: from a config, or from names and settings, to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.console import command, print_result, say
from quickstudy.cli.errors import INTERRUPTED, Interrupted, WrongUse
from quickstudy.cli.fitting import DataFolder

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact
    from quickstudy.config import RunConfig


SHAPE = ("size", "channels")
"""Options of a data source that the encoder must share."""


def train(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="A YAML file that describes the run."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="What to train on: name[:path][,option=value...]."),
    ] = None,
    data_dir: DataFolder = None,
    learner: Annotated[
        str | None, typer.Option(metavar="NAME", help="How it learns; see «quickstudy list».")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What looks at an example; default: what fits the data."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where to leave the run."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the --out folder.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the whole config and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, take a step, keep nothing.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Training steps.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Stop after so many minutes at most.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Decides every random choice.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Processes or GPUs of this machine.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="How devices share the work, such as ddp.")
    ] = None,
) -> None:
    """Meta-train a model.

    It learns how to learn from tasks drawn from the training classes; its best weights by the validation tasks are left
    in the --out folder under artifact/, with the config, the checkpoints and the metrics beside it.

    \b
    Examples:
      quickstudy train --data glyphs --learner protonet --steps 500 --out runs/first
      quickstudy train --config runs/first/config.yaml --set training.rate=0.001 --out runs/second
      quickstudy train --out runs/first --resume
    """
    from quickstudy.build import located
    from quickstudy.config import RunConfig, config_to_yaml, load_config, with_overrides

    begun = out / "config.yaml" if resume and out is not None else None
    if config is None and begun is not None and begun.exists():
        config = begun
    elif begun is not None and not (holds_run(begun.parent) or config or data or learner):
        raise WrongUse(
            f"There is no run in {begun.parent} to go on with; name the folder of one, or say what to train, by --data "
            "or --config."
        )
    run = RunConfig() if config is None else load_config(config)
    run = with_parts(run, data=data, learner=learner, encoder=encoder, fitting=config is None)
    shortcuts = {
        "training.steps": steps,
        "training.minutes": minutes,
        "training.seed": seed,
        "training.devices": devices,
        "training.strategy": strategy,
    }
    if data_dir is not None:
        run = run.model_copy(update={"data": located(run.data, data_dir)})
    given = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    run = with_overrides(run, given + (settings or []))
    check_names(run)
    if print_config:
        print_result(config_to_yaml(run).rstrip())
        return
    if out is None and not dry_run:
        raise WrongUse(
            "train needs a place for its results; add --out FOLDER, such as --out runs/first."
        )
    if dry_run:
        out = None
    if out is not None:
        check_folder(out, resume=resume)
    artifact = train_into(run, out, resume=resume, again=command("train", "--out", out, "--resume"))
    if artifact is None:
        return
    if dry_run:
        print_result("All is well: everything was built and one step was taken; nothing was kept.")
        return
    print_result(str(artifact.path))
    say(f"Try it: {command('evaluate', artifact.path)}")


def with_parts(
    run: RunConfig, *, data: str | None, learner: str | None, encoder: str | None, fitting: bool
) -> RunConfig:
    """The config with other data, learner or encoder; another part starts from its own defaults.

    Args:
        run: the config to start from.
        data: spec of the data.
        learner: name of the learner.
        encoder: name of the encoder.
        fitting: where no encoder is named, take the one that fits the kind and the shape of the data.

    Raises:
        BuildError: a name that does not exist.
    """
    from quickstudy.build import look_up, one_source, options_of, parse_spec
    from quickstudy.config import parse_config, with_overrides
    from quickstudy.data import SOURCES
    from quickstudy.nn import ENCODERS

    changes: dict[str, object] = {}
    shape: list[str] = []
    if data is not None:
        changes["data"] = data
        if fitting and encoder is None:
            name, _, options = parse_spec(one_source(data))
            encoder = look_up("data source", name, SOURCES).kind
            known = options_of(look_up("encoder", encoder, ENCODERS))
            shape = [
                f"encoder.{key}={options[key]}" for key in SHAPE if key in {*options} & {*known}
            ]
    if learner is not None and learner != run.learner["name"]:
        changes["learner"] = learner
    if encoder is not None and encoder != run.encoder["name"]:
        changes["encoder"] = encoder
    return with_overrides(parse_config({**run.model_dump(mode="json"), **changes}), shape)


def check_names(run: RunConfig) -> None:
    """Check that there is what a config names.

    Raises:
        BuildError: there is no such data source, learner or encoder.
    """
    from quickstudy.build import look_up, parse_spec
    from quickstudy.data import SOURCES
    from quickstudy.learners import LEARNERS
    from quickstudy.nn import ENCODERS

    look_up("data source", parse_spec(run.data)[0], SOURCES)
    look_up("learner", run.learner["name"], LEARNERS)
    look_up("encoder", run.encoder["name"], ENCODERS)


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return any((folder / part).exists() for part in ("artifact", "checkpoints", "metrics.csv"))


def check_folder(out: Path, *, resume: bool) -> None:
    """Check that a training may go to a folder.

    Raises:
        WrongUse: it holds a run, and nobody asked to go on with it; or it is a file.
    """
    if out.is_file():
        raise WrongUse(f"{out} is a file, and a run is a folder; choose another place for --out.")
    if holds_run(out) and not resume:
        raise WrongUse(
            f"{out} holds a run already, which is never overwritten; go on with it by --resume, or choose another "
            "folder for --out."
        )


def train_into(
    run: RunConfig, out: Path | None, *, resume: bool = False, again: str
) -> Artifact | None:
    """Train, with a bar on standard error.

    Args:
        run: what to train.
        out: the folder of the run; ``None`` for a dry run.
        resume: go on from the checkpoint there.
        again: the command that goes on after an interruption.

    Returns:
        The artifact; ``None`` in the second and further processes of a training, which should stay silent.

    Raises:
        Interrupted: a signal came; says how to go on.
    """
    from quickstudy.training import is_main_process
    from quickstudy.training import train as run_training

    if resume and out is not None and not holds_run(out) and is_main_process():
        say(f"There is nothing to resume in {out} yet; starting from the beginning.")
    try:
        artifact = run_training(run, out or Path(), resume=resume, dry_run=out is None)
    except KeyboardInterrupt as stopped:
        text = str(stopped).rstrip(".") or "Training was stopped"
        hint = "" if out is None else f"; go on with «{again}»"
        raise Interrupted(text + hint, getattr(stopped, "exit_code", INTERRUPTED)) from stopped
    return artifact if is_main_process() else None
