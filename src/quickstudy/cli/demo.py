"""``demo``: the whole way in one command, from nothing to a model that reads a script it has never seen."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.adapt import keep
from quickstudy.cli.asking import ask
from quickstudy.cli.console import command, print_result, say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.evaluate import contest_for, print_scores, score
from quickstudy.cli.predict import print_answers
from quickstudy.cli.support import learn
from quickstudy.cli.train import holds_run, train_into

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from quickstudy.artifact import Artifact
    from quickstudy.config import RunConfig
    from quickstudy.data.design import EpisodeDesign
    from quickstudy.data.source import Pool, PoolSource

MINUTES = 3
"""Most minutes of training."""

STEPS = 1500
"""Most steps, for machines that are fast; time that is spent on validations in between would be lost to training."""

EPISODES = 600
"""Tasks that each score is a mean over."""

REPORT_EPISODES = 100
"""Tasks for each point of the report's charts."""

SCRIPT = "Georgian"
"""The script that is learned as a new task; no letter of it is in training or validation."""

ALPHABET = "GEORGIAN LETTER "
"""How the Unicode names of its modern letters begin; the script has two older alphabets as well."""

LETTERS = 5
SUPPORT = 3
QUERIES = 2
"""Of the new script: letters, and drawings of each to learn from and to answer."""


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to leave everything.")
    ] = Path("runs/demo"),
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="NUMBER", help="Train for so many minutes at most."),
    ] = None,
) -> None:
    """Train, score, learn a new script, answer.

    Trains a model on the letters of some scripts, scores it on scripts it has never seen, teaches it five Georgian
    letters from three drawings each, and lets it read more. Leaves the model, a report with pictures and the new task.
    A second run goes on where the first was stopped, and never overwrites a model.

    \b
    Examples:
      quickstudy demo
      quickstudy demo --out runs/quick --minutes 1
    """
    from quickstudy.artifact import load_artifact, load_task
    from quickstudy.build import build_source
    from quickstudy.data.glyphs import GlyphSource
    from quickstudy.report import write_report

    if (out / "artifact").exists():
        say(
            f"{out} holds a trained model already, which stays; choose another --out to train anew."
        )
    else:
        train_demo(out, minutes)
    model = load_artifact(out / "artifact")
    source = build_source(model.config.data)
    if not isinstance(source, GlyphSource):
        raise WrongUse(
            f"{out} holds a model of other data, {model.config.data}; choose another --out for the demo."
        )

    say("")
    contest = contest_for(model, source)
    evaluations = []
    for design in designs():
        evaluations.append(score(contest, model, design, episodes=EPISODES))
        print_scores(evaluations[-1])
        print_result("")
    folder, task_file = out / "new-alphabet", out / "new-alphabet.task"
    if not folder.exists():
        write_alphabet(folder, source)
    if not task_file.exists():
        keep(model, learn(model, folder / "support"), task_file)
    task = load_task(task_file, model)
    print_result(
        f"A new task, {SCRIPT}: learned {len(task.class_names)} letters from {task.examples} drawings; its answers:"
    )
    print_answers(ask(model, task, [str(folder / "queries")]))
    say("")
    say("Drawing the report.")
    write_report(
        out / "report.html",
        artifact=model,
        evaluations=evaluations,
        run=out,
        source=source,
        episodes=REPORT_EPISODES,
        contest=contest,
    )
    print_result("")
    print_next_steps(out, model)


def designs() -> list[EpisodeDesign]:
    """The tasks that the demo scores: letters of all new scripts, then letters of one script."""
    from quickstudy.data.design import EpisodeDesign

    return [
        EpisodeDesign(way=20, shot=1, queries=5),
        EpisodeDesign(way=20, shot=1, queries=5, within_group=True),
    ]


def train_demo(out: Path, minutes: float | None) -> None:
    """Train the default config, or go on with a training that was stopped."""
    from quickstudy.config import load_config, with_overrides

    resume = holds_run(out) and (out / "config.yaml").exists()
    run = load_config(out / "config.yaml") if resume else starting_config()
    if minutes is not None:
        run = with_overrides(run, [f"training.minutes={minutes}"])
    say(
        f"Going on with the training in {out}."
        if resume
        else f"Training on {run.data}, into {out}."
    )
    train_into(run, out, resume=resume, again=command("demo", "--out", out))


def starting_config() -> RunConfig:
    """What the demo trains: the defaults, for at most so long as a person waits for a demo."""
    from quickstudy.config import RunConfig, with_overrides

    limits = [f"training.minutes={MINUTES}", f"training.steps={STEPS}", f"validation.every={STEPS}"]
    return with_overrides(RunConfig(), limits)


def write_alphabet(folder: Path, source: PoolSource) -> None:
    """Draw a few letters of an unseen script as image files, dark on white as a person would scan them.

    Leaves ``support/LETTER/NUMBER.png`` and ``queries/LETTER-NUMBER.png``.
    """
    pool = source.pool("test")
    for which in letters_of(pool, SCRIPT)[:LETTERS]:
        drawings = pool.of_class(which)
        name = letter_name(pool.class_names[which])
        for number in range(SUPPORT + QUERIES):
            support = number < SUPPORT
            file = (
                folder / "support" / name / f"{number + 1}.png"
                if support
                else folder / "queries" / f"{name}-{number - SUPPORT + 1}.png"
            )
            save_drawing(file, drawings[number])


def letters_of(pool: Pool, script: str) -> Sequence[int]:
    """The classes of one script that are letters of its modern alphabet."""
    group = list(pool.group_names).index(script)
    found: list[int] = (pool.groups == group).nonzero().flatten().tolist()
    return [each for each in found if unicodedata.name(pool.class_names[each]).startswith(ALPHABET)]


def letter_name(character: str) -> str:
    """A name for a letter that suits a folder on every system.

    >>> letter_name("ბ")
    'ban'
    """
    return unicodedata.name(character).split(" LETTER ")[-1].lower().replace(" ", "-")


def save_drawing(file: Path, pixels: Tensor) -> None:
    """Save a bright-on-dark drawing, uint8 (1, height, width), as a dark-on-white PNG."""
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - pixels[0].numpy()).save(file)


def print_next_steps(out: Path, model: Artifact) -> None:
    """What the demo left, and three commands to try on it."""
    pictures = out / "new-alphabet"
    print_result(f"The report, with pictures: {out / 'report.html'}")
    print_result("Try next:")
    for remark, line in (
        (
            "all probabilities of an answer",
            command("predict", out / "new-alphabet.task", pictures / "queries", "--json"),
        ),
        (
            "five examples of each letter in place of one",
            command("evaluate", model.path, "--way", 20, "--shot", 5),
        ),
        (
            "your own task: any folder that holds a folder of pictures for each class",
            command("adapt", model.path, pictures / "support", "--out", out / "mine.task"),
        ),
    ):
        print_result(f"  # {remark}")
        print_result(f"  {line}")
