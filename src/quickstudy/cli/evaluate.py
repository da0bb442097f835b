"""``evaluate``: scores with intervals, on tasks that nobody has seen."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.console import percent, print_json, print_result, print_table, progress_bar, say
from quickstudy.cli.errors import WrongUse
from quickstudy.cli.fitting import DataFolder, TestedOn, source_of
from quickstudy.cli.many import refuse_many
from quickstudy.cli.mixed import print_sources, score_mixture
from quickstudy.cli.streams import print_streams, score_streams
from quickstudy.cli.unknown import print_unknown, score_unknown, teacher_of

if TYPE_CHECKING:
    from quickstudy.artifact import Artifact
    from quickstudy.data.design import EpisodeDesign
    from quickstudy.data.source import Split, TaskSource
    from quickstudy.evaluation import Contest


class SplitName(StrEnum):
    """The splits of a data set."""

    train = "train"
    validation = "validation"
    test = "test"


def evaluate(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a trained model.")
    ],
    data: TestedOn = None,
    data_dir: DataFolder = None,
    way: Annotated[
        int | None,
        typer.Option(min=2, metavar="NUMBER", help="Classes of a task; default: as in validation."),
    ] = None,
    shot: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Support examples of a class, 0 for a model that reads names; default: the same.",
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Query examples of a class; default: the same, if so many.",
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(min=2, metavar="NUMBER", help="Tasks to draw.")] = 600,
    split: Annotated[SplitName, typer.Option(help="Which classes to draw from.")] = SplitName.test,
    within_group: Annotated[
        bool,
        typer.Option("--within-group", help="Take a task's classes from one group (one script)."),
    ] = False,
    unlabelled: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Examples without a label that a task brings too, for a model that learns from such.",
        ),
    ] = 0,
    against: Annotated[
        Path | None,
        typer.Option(metavar="ARTIFACT2", help="A second model that meets the same tasks."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Which tasks are drawn.")] = 0,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Also learn which inputs are of no class, keep that in the model, and score it.",
        ),
    ] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Also score the model without its description, its modulation, or with 0, 1 and 5 inner steps.",
        ),
    ] = False,
    stream: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="NUMBER",
            help="Score each place in streams of so many tasks instead, with memory and without.",
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option(
            "--drop-duplicates", help="Leave out texts that the training holds too, or nearly."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a report, FILE.html.")
    ] = None,
) -> None:
    """Score a model on tasks of unseen classes.

    Scores come with 95 % intervals over tasks, beside what simpler methods reach on the same tasks and what the model
    says before it adapts, which must be chance.

    \b
    Examples:
      quickstudy evaluate runs/demo/artifact --way 20 --shot 1
      quickstudy evaluate runs/demo/artifact --data omniglot:data/omniglot --within-group
      quickstudy evaluate runs/demo/artifact --against runs/first/artifact --json
      quickstudy evaluate runs/streams/artifact --stream 10 --report streams.html
    """
    if stream is not None and (unknown or unlabelled):
        raise WrongUse(
            "--stream scores tasks that follow one another; leave --unknown and --unlabelled out."
        )
    from quickstudy.artifact import check_own, load_artifact
    from quickstudy.data.design import fit_design, span
    from quickstudy.data.mixture import Mixture
    from quickstudy.evaluation import ablations

    model = load_artifact(artifact)
    if unlabelled:
        from quickstudy.labelling import check_semi_supervised

        check_semi_supervised(model)
    if unknown:
        check_own(model)
    rival = None if against is None else load_artifact(against)
    if rival is not None and rival.inputs["kind"] != model.inputs["kind"]:
        raise WrongUse(
            f"The model {artifact} reads examples of the kind {model.inputs['kind']}, and {against} reads "
            f"{rival.inputs['kind']}; name one in --against that reads the same."
        )
    plainer = ablations(model.learner) if ablate else {}
    if ablate and not plainer:
        raise WrongUse(
            f"The model {artifact} has no part that could be left out; --ablate is for meta_transformer and for "
            "learners that adapt by gradients."
        )
    usual = model.config.validation
    source, spec, trained_on, shared = source_of(
        model, data, data_dir=data_dir, split=split.value, drop=drop_duplicates
    )
    source.prepare(model.learner.encoder)
    design = fit_design(
        source,
        split.value,
        way=way,
        shot=usual.shot if shot is None else shot,
        queries=queries,
        within_group=within_group,
        most_way=span(usual.way or usual.most_way)[1],
        examples=usual.examples,
        most_queries=usual.queries,
        unlabelled=unlabelled,
    )

    def write(path: Path, **shown: Any) -> None:
        from quickstudy.report import write_report

        say("Drawing the report.")
        write_report(path, artifact=model, **shown)
        say(f"The report is in {path}.")

    if stream is not None:
        found = score_streams(
            model,
            source,
            design,
            positions=stream,
            episodes=episodes,
            split=split.value,
            seed=seed,
            rival=rival,
            plainer=plainer,
        )
        if rival is not None:
            found["against"] = str(against)
        if as_json:
            print_json(found)
        else:
            print_streams(found)
        if report is not None:
            write(report, streams=found)
        return
    if unknown and not span(design.shot)[0]:
        raise WrongUse(
            "Whether an input is of no class is learned from examples; give --unknown a --shot of at least 1."
        )
    bank = getattr(model.learner, "bank", None)
    any_way = getattr(model.learner, "any_way", False)
    if bank is not None and not any_way and span(design.way)[1] > bank:
        raise WrongUse(
            f"The model {artifact} knows tasks of at most {bank} classes, but --way is {design.way}; choose {bank} or "
            "fewer, or train a model with a larger learner.bank."
        )
    if report is not None:
        refuse_many(model, "--report")
    if unknown and source.sources:
        raise WrongUse("--unknown is learned from one source; name one of the mixture with --data.")

    def contest_on(one: TaskSource) -> Contest:
        return contest_for(
            model,
            one,
            split=split.value,
            seed=seed,
            rival=rival,
            ablate=ablate,
            unlabelled=unlabelled > 0,
        )

    contest = contest_on(source)
    against_name = "" if rival is None else str(against)
    if isinstance(source, Mixture):
        scores = score_mixture(
            source,
            lambda one: score(
                contest_on(one), model, design, episodes=episodes, against_name=against_name
            ),
        )
    else:
        scores = score(contest, model, design, episodes=episodes, against_name=against_name)
    if unknown:
        own = source if spec == trained_on else teacher_of(model, trained_on, source)
        scores["unknown"] = score_unknown(
            model, source, design, split=split.value, seed=seed, episodes=episodes, learn_from=own
        )
    if shared is not None:
        scores["overlap"] = shared
    if as_json:
        print_json(scores)
    else:
        print_scores(scores)
        if unknown:
            print_unknown(scores["unknown"])
    if report is not None:
        write(report, evaluations=[scores], source=source, contest=contest)


def contest_for(
    model: Artifact,
    source: TaskSource,
    *,
    split: Split = "test",
    seed: int = 0,
    rival: Artifact | None = None,
    ablate: bool = False,
    unlabelled: bool = False,
) -> Contest:
    """A model, its baselines and perhaps a rival on the tasks of a source; examples are encoded once for all."""
    from quickstudy.build import build_encoder
    from quickstudy.evaluation import contest_of

    pretrained = model.learner.encoder.pretrained
    return contest_of(
        model.learner,
        source,
        split=split,
        seed=seed,
        against=None if rival is None else rival.learner,
        untrained=(lambda: build_encoder(model.config.encoder)) if pretrained else None,
        ablate=ablate,
        unlabelled=unlabelled,
    )


def score(
    contest: Contest,
    model: Artifact,
    design: EpisodeDesign,
    *,
    episodes: int,
    against_name: str = "",
) -> dict[str, Any]:
    """The scores of a model in a contest, behind a progress bar."""
    from quickstudy.data.design import sized
    from quickstudy.data.source import Prior
    from quickstudy.evaluation import evaluate as run_evaluation

    of_values = isinstance(contest.source, Prior) and contest.source.values
    way = "" if of_values else f"{sized(design.way, 'way')} "
    with progress_bar(f"Scoring {way}{sized(design.shot, 'shot')} tasks") as advance:
        return run_evaluation(
            model.learner,
            contest.source,
            split=contest.split,
            seed=contest.seed,
            design=design,
            episodes=episodes,
            against_name=against_name,
            progress=advance,
            contest=contest,
        )


def print_scores(scores: dict[str, Any]) -> None:
    """The scores for a person: this model, others on the same tasks, and what chance gives."""
    from quickstudy.data.design import sized
    from quickstudy.likelihood import SHARES
    from quickstudy.report.words import METHODS

    accuracy = scores["metric"] == "accuracy"
    share = scores["metric"] in SHARES
    number = percent if share else plain
    heads = ["", f"{scores['metric'].replace('_', ' ')} (95 % interval)"]
    columns = {
        "log_likelihood": ("log-likelihood, nats per query", plain),
        "coverage": ("values in 95 % intervals", percent),
        "macro_f1": ("macro F1", percent),
        "exact_match": ("all labels right", percent),
        "average_precision": ("mean average precision", percent),
    }
    sure = {name: column for name, column in columns.items() if name in scores}
    heads += [head for head, _ in sure.values()]

    def row(name: str, found: dict[str, Any]) -> list[str]:
        cells = [name, number(found["mean"], found["ci95"])]
        for measure, (_, written) in sure.items():
            one = found.get(measure)
            cells.append(written(one["mean"], one["ci95"]) if one else "")
        return cells

    rows = [row(METHODS["learner"], scores)]
    for name, each in scores.get("ablations", {}).items():
        rows.append(row(f"  {METHODS.get(name, name)}", each))
    for name, baseline in scores["baselines"].items():
        rows.append(row(METHODS.get(name, name), baseline))
    rows.append(row(METHODS["before_adaptation"], scores["before_adaptation"]))
    if accuracy and isinstance(scores["way"], int):
        rows.append(["chance", number(1 / scores["way"])])
    group = " within one group" if scores["within_group"] else ""
    way = f"{sized(scores['way'], 'way')} " if share else ""
    shot = sized(scores["shot"], "fold" if scores.get("support") == "folds" else "shot")
    bare = f" and {scores['unlabelled']} examples without a label" if scores["unlabelled"] else ""
    shape = f"{way}{shot}{bare}{group}"
    print_table(
        heads, rows, title=f"{shape}, {scores['episodes']} tasks of the {scores['split']} split"
    )
    if "sources" in scores:
        print_sources(scores, number)
    short = scores.get("below_exact")
    if short is not None:
        print_result(f"\n{plain(short['mean'], short['ci95'])} nats below Bayes-optimal")
    for name, each in scores.get("ablations", {}).items():
        gap = number(each["difference"]["mean"], each["difference"]["ci95"])
        print_result(f"From this model {METHODS.get(name, name)} to the whole: {gap}.")
    if scores["paired"] is not None:
        print_result(f"\n{comparison(scores['paired'], number, more_is_better=share)}")


def comparison(
    paired: dict[str, Any], number: Callable[[float, float], str], *, more_is_better: bool
) -> str:
    """In a sentence, how the model fares against another on the same tasks."""
    difference, half_width = paired["difference"], paired["ci95"]
    if abs(difference) <= half_width:
        verdict = "so no difference can be told"
    elif (difference > 0) == more_is_better:
        verdict = "so this model is better"
    else:
        verdict = "so the other model is better"
    gap = number(difference, half_width)
    return f"Against {paired['against']} on the same tasks the difference is {gap}, {verdict}."


def plain(value: float, half_width: float | None = None) -> str:
    """A number with its interval, where it is no share.

    >>> plain(0.12345, 0.0021)
    '0.1235 ± 0.0021'
    """
    return f"{value:.4g}" + ("" if half_width is None else f" ± {half_width:.2g}")
