"""``improve``: the model itself learns from logged feedback, if a test lets it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.console import command, print_json, print_result, say
from quickstudy.cli.errors import FAILURE, INTERRUPTED, Interrupted


def improve(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a trained model.")
    ],
    feedback: Annotated[
        Path,
        typer.Option(metavar="LOG", help="What correct and predict --log wrote."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="NEW", help="The folder to leave the new model in."),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="The original training data, if they have moved."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Meta-steps.")] = 300,
    share: Annotated[
        float,
        typer.Option(
            min=0.01, max=1, metavar="NUMBER", help="Of training tasks that are made of feedback."
        ),
    ] = 0.5,
    episodes: Annotated[
        int, typer.Option(min=2, metavar="NUMBER", help="Tasks of each test.")
    ] = 600,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", help="Decides what is held out and what is drawn.")
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a line.")
    ] = False,
) -> None:
    """Let a model learn from feedback, if that does no harm.

    Corrections become training tasks, mixed with the original ones against forgetting. The new weights are kept only if
    a paired test shows no loss on validation tasks of the original data, and corrections that were held out are
    answered better. Otherwise they are refused, with the figures and exit code 1, and nothing is written. ARTIFACT
    stays as it is, and so do the tasks that were adapted with it.

    \b
    Examples:
      quickstudy improve runs/demo/artifact --feedback feedback.jsonl --out runs/improved
      quickstudy improve runs/demo/artifact --feedback feedback.jsonl --out runs/improved --steps 1000 --json
    """
    from quickstudy.training.improving import improve as run_improvement

    say(f"Learning from {feedback}, then testing; {artifact} stays as it is.")
    try:
        found = run_improvement(
            artifact,
            feedback,
            out,
            data=data,
            steps=steps,
            share=share,
            episodes=episodes,
            seed=seed,
        )
    except KeyboardInterrupt as stopped:
        raise Interrupted(
            f"The improvement was stopped; {artifact} is as it was and nothing was written",
            getattr(stopped, "exit_code", INTERRUPTED),
        ) from stopped
    if as_json:
        print_json(found.figures)
    if not found.accepted:
        say(f"Error: {found.reason}")
        raise typer.Exit(FAILURE)
    say(found.reason)
    if not as_json:
        print_result(str(out))
    say(f"Try it: {command('evaluate', out, '--against', artifact)}")
