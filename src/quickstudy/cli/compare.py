"""``compare``: a model beside what else a person could use, on the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quickstudy.cli.console import percent, print_json, print_result, print_table, progress_bar, say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.evaluate import SplitName, comparison
from quickstudy.cli.fitting import DataFolder, TestedOn, source_of
from quickstudy.cli.many import refuse_many


def compare(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a model that reads texts.")
    ],
    data: TestedOn = None,
    data_dir: DataFolder = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Of logreg, logreg_names, prototypes, finetune and setfit, or folders of other models.",
        ),
    ] = "logreg,prototypes",
    way: Annotated[int | None, typer.Option(min=2, help="Classes of a task; default: 5.")] = None,
    shot: Annotated[int, typer.Option(min=1, help="Support examples of a class.")] = 5,
    queries: Annotated[int | None, typer.Option(min=1, help="Query examples of a class.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Tasks that each learns.")] = 20,
    split: Annotated[SplitName, typer.Option(help="Which classes to draw from.")] = SplitName.test,
    within_group: Annotated[
        bool, typer.Option("--within-group", help="Take a task's classes from one group.")
    ] = False,
    unlabelled: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Texts without a label that a task brings too, for those who learn from such.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Which tasks are drawn.")] = 0,
    drop_duplicates: Annotated[
        bool,
        typer.Option("--drop-duplicates", help="Leave out texts that the model has trained on."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw accuracy against time, as .svg or .png."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Let a model and what else could be used learn the same tasks, from texts to answers.

    Says how often each is right, how long it takes, and by how much the model is better on the same tasks, with 95 %
    intervals over tasks. logreg is logistic regression on the vectors of MiniLM, logreg_names the same with the names
    of classes as examples; finetune and setfit train MiniLM anew for every task, which takes a while.

    \b
    Examples:
      quickstudy compare runs/intents/artifact --data text:intents.csv --shot 5
      quickstudy compare text --data text:intents.csv --shot 5 --unlabelled 400
      quickstudy compare runs/intents/artifact --against logreg_names,setfit --episodes 10 --plot compared.svg
    """
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise WrongUse(f"A plot is drawn as .svg or .png; found {plot}. Rename it.")
    names = [name.strip() for name in against.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise WrongUse(f"--against needs names, each once, between commas; found {against!r}.")
    from quickstudy.artifact import load_artifact
    from quickstudy.data.design import fit_design
    from quickstudy.data.source import PoolSource
    from quickstudy.evaluation.alternatives import (
        ALTERNATIVES,
        Alternative,
        AlternativeError,
        ByArtifact,
        alternative,
    )
    from quickstudy.evaluation.compare import TextTasks
    from quickstudy.evaluation.compare import compare as run
    from quickstudy.labelling import check_semi_supervised
    from quickstudy.pretrained import place_of

    model = load_artifact(artifact)
    refuse_many(model, "compare")
    if unlabelled:
        check_semi_supervised(model)
    alternatives: dict[str, Alternative] = {}
    try:
        alternatives[str(artifact)] = ByArtifact(model)
        for name in names:
            other = name not in ALTERNATIVES and place_of(name).exists()
            alternatives[name] = ByArtifact(load_artifact(name)) if other else alternative(name)
    except AlternativeError as error:
        raise WrongUse(str(error)) from error
    source, _, _, shared = source_of(
        model, data, data_dir=data_dir, split=split.value, drop=drop_duplicates
    )
    source.prepare(model.learner.encoder)
    design = fit_design(
        source,
        split.value,
        way=way,
        shot=shot,
        queries=queries,
        within_group=within_group,
        most_way=5,
        examples=model.config.validation.examples,
        unlabelled=unlabelled,
    )
    assert isinstance(source, PoolSource)
    tasks = TextTasks(source, split.value, design, episodes=episodes, seed=seed)
    with progress_bar(f"Comparing {len(alternatives)} ways on {episodes} tasks") as advance:
        methods = run(alternatives, tasks, advance)
    scores = {
        "metric": "accuracy",
        "episodes": episodes,
        "way": design.way,
        "shot": design.shot,
        "queries": design.queries,
        "split": split.value,
        "seed": seed,
        "within_group": within_group,
        "unlabelled": unlabelled,
        "methods": methods,
    }
    if shared is not None:
        scores["overlap"] = shared
    if plot is not None:
        from quickstudy.report.compared import draw_comparison

        draw_comparison(methods, plot)
        say(f"The plot is in {plot}.")
    if as_json:
        print_json(scores)
    else:
        print_comparison(scores)


def print_comparison(scores: dict[str, Any]) -> None:
    """A row for each way of learning, and in a sentence each how the first fares against the others."""
    from quickstudy.evaluation.alternatives import ALTERNATIVES

    rows = []
    for name, found in scores["methods"].items():
        accuracy, learning, answering = (
            found[key] for key in ("accuracy", "fit_seconds", "predict_seconds")
        )
        rows.append(
            [
                ALTERNATIVES[name][0] if name in ALTERNATIVES else name,
                percent(accuracy["mean"], accuracy["ci95"]),
                f"{learning['mean']:.2f}",
                f"{answering['mean']:.2f}",
            ]
        )
    bare = f" and {scores['unlabelled']} texts without a label" if scores["unlabelled"] else ""
    print_table(
        ["", "accuracy (95 % interval)", "seconds to learn a task", "to answer it"],
        rows,
        title=f"{scores['way']}-way {scores['shot']}-shot{bare}, {scores['episodes']} tasks of the "
        f"{scores['split']} split",
    )
    for name, found in list(scores["methods"].items())[1:]:
        gap = {
            "against": name,
            "difference": found["difference"]["mean"],
            "ci95": found["difference"]["ci95"],
        }
        print_result(comparison(gap, percent, more_is_better=True))
