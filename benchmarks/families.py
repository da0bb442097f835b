"""Five families of curves in one run: what it is worth to know which family a task is of before learning from it.

The tasks are those of Vuorio et al. 2019, Multimodal Model-Agnostic Meta-Learning (MMAML): sine waves, lines,
parabolas, absolute values and hyperbolic tangents, noise 0.3, 5 known points. All methods are trained on the same tasks
for the same processor time, by what a step of each takes where all take turns, and asked about the same test tasks. A
step is of 64 tasks with 10 queries each: on validation tasks, all methods learn more in their time from these than from
32 tasks with 25. Some learn sooner than others, so there are several such times, each with trainings of its own:

- ``in_context``: a Transformer neural process, which reads the points and answers;
- ``maml``: MAML with a learned inner rate for each tensor;
- ``mmaml``: the same MAML, whose weights a MetaTransformer shapes for each task before the inner steps;
- ``meta_in_context``: the same neural process, shaped likewise;
- ``bayesian_linear``: linear regression on learned features under a learned prior, solved (ALPaCA);
- ``meta_bayesian_linear``: the same regression on features that a MetaTransformer shapes for each task.

The exact answer, of who knows the families, is beside them, and by how much each method is above it on the same tasks:
no learner can be below it, so a ratio of errors says little where the best ones come near. Tasks on which inner steps
diverge are counted, and left out of the mean of their method.

Of each method, the outer rate, and of MAML the number of inner steps at the test, is chosen on validation tasks: rates
are tried for a fifth of the budget, the best is trained for the whole of it, and if that diverges or ends worse than
the trial did, the next best is trained, too. With more seeds than one, the best is trained again with the others, and
the error of a task is the mean of theirs. What is trained already is kept in the folder of the runs, and so is what a
step takes.

Times that were measured before stay in the results.

python benchmarks/families.py [--seconds N …] [--seeds N] [--rates R …] [--runs FOLDER] [--tasks N] [--smoke]
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from budget import seconds_of_steps
from quickstudy.artifact import Artifact, load_artifact
from quickstudy.build import build_learner, build_source
from quickstudy.config import RunConfig, parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Split, World
from quickstudy.episode import Episode, take_tasks, tree_map
from quickstudy.evaluation import interval, score_tasks
from quickstudy.evaluation.measures import summary
from quickstudy.learners.base import Learner
from quickstudy.training import TrainingError, train
from record import earlier, record

COMMON = {
    "data": "families",
    "episode": {"shot": 5, "queries": 10, "tasks": 64, "same_shot": True},
    "validation": {"shot": 5, "queries": 25, "episodes": 256, "every": 250},
    "training": {"weight_decay": 0.01, "schedule": "cosine", "average": 0.99, "warmup": 50},
}
SMALL: dict[str, Any] = {"width": 16, "slots": 2, "bottleneck": 8}
"""A memory that fits the size of what it shapes; chosen on validation tasks after equally many steps."""
PROCESS: dict[str, Any] = {"name": "neural_process", "width": 64, "layers": 4, "heads": 4}
MAML: dict[str, Any] = {"name": "maml", "rates": "tensor", "rate": 0.001, "steps": 5}
FEATURES: dict[str, Any] = {"name": "vector", "width": 64, "layers": 3}
CONFIGS: dict[str, dict[str, Any]] = {
    "in_context": {"learner": PROCESS, "encoder": "raw"},
    "maml": {"learner": MAML, "encoder": {"name": "vector", "width": 64, "layers": 2}},
    "mmaml": {
        "learner": {"name": "meta_transformer", "bottleneck": 32, "learner": MAML},
        "encoder": {"name": "vector", "width": 64, "layers": 2},
    },
    "meta_in_context": {
        "learner": {"name": "meta_transformer", **SMALL, "learner": PROCESS},
        "encoder": "raw",
    },
    "bayesian_linear": {"learner": "bayesian_linear", "encoder": FEATURES},
    "meta_bayesian_linear": {
        "learner": {"name": "meta_transformer", "learner": "bayesian_linear"},
        "encoder": FEATURES,
    },
}
RATES = {"others": (0.002, 0.006), "maml": (0.0005, 0.001, 0.002)}
"""Outer rates to choose from; above these, the rates that MAML learns for its inner steps let some tasks diverge."""
STEPS = (1, 5, 10)
"""Inner steps at the test to choose from."""
TRIED = 0.2
"""Share of the budget that each rate is tried for."""
PROBE = 30
"""Steps that are timed."""
QUERIES = 50


def config_of(name: str, *, smoke: bool) -> RunConfig:
    config = parse_config(COMMON | CONFIGS[name])
    return with_overrides(config, ["validation.episodes=4"] if smoke else [])


def paces(runs: Path, names: Sequence[str], *, smoke: bool) -> dict[str, float]:
    """Processor seconds of a step of each method, as measured before where trainings are kept."""
    file = runs / "step_seconds.json"
    known = dict(json.loads(file.read_text())) if file.exists() and not smoke else {}
    missing = [name for name in names if name not in known]
    if not missing:
        return known
    measured = [*missing, *list(known)[:1]]
    configs = {name: config_of(name, smoke=smoke) for name in measured}
    found = seconds_of_steps(configs, probe=2 if smoke else PROBE)
    # What was measured at another time, when the processor was faster or slower, says by how much.
    scale = known[measured[-1]] / found[measured[-1]] if known else 1.0
    known |= {name: scale * found[name] for name in missing}
    if not smoke:
        runs.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known))
    return known


def trained(config: RunConfig, folder: Path, steps: int) -> tuple[Artifact, float]:
    """A training of so many steps, and the processor seconds that it took."""
    if (folder / "artifact").exists():
        return load_artifact(folder / "artifact"), float((folder / "seconds").read_text())
    start = time.process_time()
    artifact = train(with_overrides(config, [f"training.steps={steps}"]), folder, progress=False)
    used = time.process_time() - start
    (folder / "seconds").write_text(str(used))
    return artifact, used


def tasks_of(split: Split, *, tasks: int) -> Episode:
    """Test tasks, or validation tasks other than those that chose the weights."""
    design = EpisodeDesign(1, 5, QUERIES)
    world = build_source("families")
    drawn = Episodes(world, split, design, length=tasks, seed=0 if split == "test" else 1)
    return tree_map(lambda *parts: torch.cat(parts), *(drawn[i] for i in range(tasks)))


def errors(learner: Learner, episode: Episode) -> Tensor:
    """Mean squared error of each task."""
    pieces = [take_tasks(episode, slice(at, at + 50)) for at in range(0, episode.tasks, 50)]
    return score_tasks(learner, pieces)


def with_steps(artifact: Artifact, steps: int | None) -> Learner:
    """The trained learner, with another number of inner steps."""
    if steps is None:
        return artifact.learner.eval()
    options = dict(artifact.config.learner)
    inner = options["learner"] if options["name"] == "meta_transformer" else options
    changed = {**inner, "steps": steps}
    options = options | ({"learner": changed} if inner is not options else changed)
    learner = build_learner(options, artifact.config.encoder)
    learner.load_state_dict(artifact.learner.state_dict())
    return learner.eval()


class Outcome(NamedTuple):
    """A training of the whole budget, and how it does on validation tasks by the number of inner steps."""

    artifact: Artifact
    seconds: float
    inner: int | None
    by_inner: dict[int | None, float]


def finite(error: float) -> float:
    """Who diverges on one task has no mean error, and is the worst."""
    return error if math.isfinite(error) else math.inf


def told(errors: Tensor, most: float) -> dict[str, Any]:
    """The errors of tasks in a line; of those on which a method diverges, how many they are."""
    known = errors[errors <= most]
    found = {**summary(known), "median": float(errors.nan_to_num(math.inf).median())}
    return found | {"diverged": len(errors) - len(known)}


def shown(errors: Mapping[Any, float]) -> dict[Any, float | None]:
    """As JSON holds it: none for who diverges."""
    return {key: error if math.isfinite(error) else None for key, error in errors.items()}


def contestant(
    name: str,
    runs: Path,
    *,
    steps: int,
    rates: Sequence[float],
    validation: Episode,
    test: Episode,
    most: float,
    seeds: int,
    smoke: bool,
) -> tuple[dict[str, Any], Tensor]:
    """What is to be recorded of a method, and the error of each test task, in the mean over the seeds."""
    config = config_of(name, smoke=smoke)
    by_rate = {}
    for rate in rates if len(rates) > 1 else ():
        tried = with_overrides(config, [f"training.rate={rate}"])
        try:
            artifact, _ = trained(tried, runs / f"{name}-{rate}", max(2, round(TRIED * steps)))
        except TrainingError:
            by_rate[rate] = math.inf
            continue
        by_rate[rate] = finite(float(errors(artifact.learner.eval(), validation).mean()))
    best: Outcome | None = None
    chosen = rates[0]
    for rate in sorted(by_rate, key=by_rate.__getitem__) or rates:
        tried = with_overrides(config, [f"training.rate={rate}"])
        try:
            artifact, used = trained(tried, runs / f"{name}-{rate}-whole", steps)
        except TrainingError:
            continue
        by_inner = {
            inner: finite(float(errors(with_steps(artifact, inner), validation).mean()))
            for inner in (STEPS if "maml" in name else (None,))
        }
        inner = min(by_inner, key=by_inner.__getitem__)
        if best is None or by_inner[inner] < best.by_inner[best.inner]:
            best, chosen = Outcome(artifact, used, inner, by_inner), rate
        if by_inner[inner] <= min(by_rate.values(), default=math.inf):
            break
    assert best is not None, f"{name} diverges at all rates"
    artifact, used, inner, by_inner = best
    each = [errors(with_steps(artifact, inner), test)]
    for seed in range(1, seeds):
        again = with_overrides(config, [f"training.rate={chosen}", f"training.seed={seed}"])
        try:
            other, _ = trained(again, runs / f"{name}-{chosen}-whole-{seed}", steps)
        except TrainingError:
            each.append(torch.full_like(each[0], math.nan))
            continue
        each.append(errors(with_steps(other, inner), test))
    # A training that diverges tells nothing of the others.
    found = torch.stack([one for one in each if not one.isnan().all()]).mean(0)
    return {
        "test_by_seed": shown({seed: float(one.mean()) for seed, one in enumerate(each)}),
        "training_processor_seconds": used,
        "validation_by_rate": shown(by_rate),
        "inner_steps": inner,
        "validation_by_inner_steps": shown(by_inner),
        "parameters": artifact.facts["training"]["parameters"],
        "training_steps": artifact.facts["training"]["steps"],
        "test": told(found, most),
        "config": artifact.config.model_dump(mode="json"),
    }, found


def side_by_side(
    names: Sequence[str],
    runs: Path,
    *,
    seconds: float,
    step_seconds: Mapping[str, float],
    rates: Sequence[float] | None,
    validation: Episode,
    test: Episode,
    best: Tensor,
    seeds: int,
    smoke: bool,
) -> dict[str, Any]:
    """All methods after so many processor seconds of training, and by how much they are above others and the best."""
    methods, each = {}, {}
    # Who errs by more than answering nought does on any task has diverged.
    most = float(test.query.y.square().mean((1, 2)).max())
    for name in names:
        methods[name], each[name] = contestant(
            name,
            runs,
            steps=max(2, round(seconds / step_seconds[name])),
            rates=rates or RATES["maml" if "maml" in name else "others"],
            validation=validation,
            test=test,
            most=most,
            seeds=seeds,
            smoke=smoke,
        )
        print(f"{seconds:g} s", name, json.dumps(methods[name]["test"]), flush=True)
    paired = {}
    for name in each.keys() - {"in_context"} if "in_context" in each else ():
        known = each[name] <= most
        own, plain = each[name][known], each["in_context"][known]
        difference, half = interval(own - plain)
        ratio = float(own.mean() / plain.mean())
        paired[name] = {"minus_in_context": difference, "ci95": half, "ratio": ratio}
    return {
        "methods": methods,
        "step_seconds": dict(step_seconds),
        "paired": dict(sorted(paired.items())),
        "diverged_above": most,
        "above_exact": {
            name: summary((found[: len(best)] - best)[found[: len(best)] <= most])
            for name, found in each.items()
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 180.0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method")
    parser.add_argument("--rates", type=float, nargs="+", help="to choose from, of all methods")
    parser.add_argument("--runs", type=Path, default=Path("runs/families"))
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--exact", type=int, default=2000, help="tasks that are answered exactly")
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    count = 20 if chosen.smoke else chosen.tasks
    validation, test = (
        tasks_of(split, tasks=tasks)
        for split, tasks in (("validation", min(count, 400)), ("test", count))
    )
    known = take_tasks(test, slice(5 if chosen.smoke else chosen.exact))
    world = build_source("families")
    assert isinstance(world, World)
    best = (world.exact(known).mean - known.query.y).square().mean((1, 2)).double()
    step_seconds = paces(chosen.runs, chosen.only, smoke=chosen.smoke)
    print(step_seconds, flush=True)
    for seconds in [0.5] if chosen.smoke else chosen.seconds:
        with tempfile.TemporaryDirectory() as place:
            runs = Path(place) if chosen.smoke else chosen.runs / f"{seconds:g}"
            found = side_by_side(
                chosen.only,
                runs,
                seconds=seconds,
                step_seconds=step_seconds,
                rates=chosen.rates,
                validation=validation,
                test=test,
                best=best,
                seeds=chosen.seeds,
                smoke=chosen.smoke,
            )
        budgets = earlier("families", "budgets") | {f"{seconds:g}": found}
        figures = {
            "threads": 1,
            "tasks": count,
            "exact": {**summary(best), "tasks": len(best)},
            "noise": 0.3**2,
            "budgets": dict(sorted(budgets.items(), key=lambda each: float(each[0]))),
        }
        record("families", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
