"""Random functions by a Transformer neural process and by deep kernels: log-likelihood of a target against the best.

The protocol is that of Nguyen & Grover 2022, Transformer Neural Processes, section 5.1 and its published code:
functions from Gaussian processes with lengths from 0.1 to 0.6, scales from 0.1 to 1 and noise 0.02, inputs from -2
to 2, 3 to 46 known points. ``rbf`` is trained on that covariance alone, ``mixture`` and ``deep_kernel`` on RBF,
Matérn-5/2 and periodic ones, each as often; all are scored on each. A task's score is the mean over 20 targets, which
in expectation is that of the protocol's random number of them.

``deep_kernel`` is a Gaussian process whose covariances are learned and fitted to each task, and no Transformer.

A training is of one thread; it may be stopped at any time and goes on where it was when the script is run again, also
with more ``--steps``. The processor time of all its parts is recorded. What was trained and scored before stays in the
results.
Kinds of input features, nearness in attention and optimisers were compared after 80 seconds of training, on tasks of
another generator; the loss of deep kernels, their covariances and how many of them are kept, on 64 validation tasks of
each covariance.

python benchmarks/gaussian_processes.py [--only rbf] [--steps N] [--runs FOLDER] [--episodes N] [--exact N] [--smoke]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.artifact import Artifact
from quickstudy.build import build_source
from quickstudy.config import RunConfig, parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Split, World
from quickstudy.episode import Episode, tree_map
from quickstudy.evaluation import answer_batch, answering
from quickstudy.evaluation.measures import summary
from quickstudy.learners import Learner
from quickstudy.likelihood import Gaussian
from quickstudy.machine import hardware
from quickstudy.training import train
from record import earlier, record

SMOKE = ["training.steps=4", "validation.every=4", "validation.episodes=4"]
READING: dict[str, Any] = {
    "encoder": "raw",
    "episode": {"shot": [3, 46], "queries": 24, "tasks": 32, "same_shot": True},
    "validation": {"shot": [3, 46], "queries": 46, "episodes": 256, "every": 500},
    "learner": {
        "name": "neural_process",
        "width": 64,
        "layers": 6,
        "heads": 4,
        "expansion": 2,
        "relative": True,
    },
    "training": {
        "steps": 19000,
        "rate": 0.005,
        "optimizer": "muon",
        "weight_decay": 0.01,
        "warmup": 200,
        "schedule": "cosine",
        "average": 0.999,
    },
}
FITTING: dict[str, Any] = {
    "encoder": "raw",
    "learner": {
        "name": "deep_kernel",
        "rates": 1024,
        "slowest": 1.0,
        "fastest": 12.0,
        "objective": "evidence",
    },
    "episode": {"shot": [3, 46], "queries": 4, "tasks": 8},
    "validation": {"shot": [3, 46], "queries": 46, "episodes": 256, "every": 240},
    "training": {
        "steps": 240,
        "rate": 0.05,
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "warmup": 10,
        "schedule": "cosine",
        "average": 0.95,
        "threads": 1,
    },
}
CONFIGS = {
    "rbf": READING | {"data": "gaussian_process"},
    "mixture": READING | {"data": "gaussian_process,kernel=mixture"},
    "deep_kernel": FITTING | {"data": "gaussian_process,kernel=mixture"},
}

TARGETS = 20
SHOTS = ((3, 9), (10, 19), (20, 29), (30, 46))
NORMAL_95 = 1.959964
SLOWER = {"rbf": 1, "matern": 1, "periodic": 20}
"""How many times fewer tasks of each covariance are answered exactly: periodic ones take half a second."""


def trained(config: RunConfig, folder: Path | None) -> tuple[Artifact, float]:
    """The artifact of a training, or of what is left of it, and the processor seconds of all its parts.

    Args:
        config: of the training.
        folder: of the run, which may have begun; None keeps nothing.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            return trained(config, Path(place))
    clock = folder / "processor_seconds.json"
    parts = json.loads(clock.read_text()) if clock.exists() else []
    start = time.process_time()
    try:
        artifact = train(config, folder / "run", resume=True)
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        clock.write_text(json.dumps([*parts, time.process_time() - start]))
    return artifact, sum(parts) + time.process_time() - start


def episodes_of(kernel: str, split: Split, tasks: int, *, at_once: int) -> Iterator[Episode]:
    """The tasks of a split of a world, some at a time; task i is the same whatever their number."""
    design = EpisodeDesign(1, (3, 46), TARGETS)
    source = build_source(f"gaussian_process,kernel={kernel}")
    drawn = Episodes(source, split, design, length=tasks, seed=0)
    for start in range(0, tasks, at_once):
        which = range(start, min(start + at_once, tasks))
        yield tree_map(lambda *parts: torch.cat(parts), *(drawn[i] for i in which))


def answers(learner: Learner, episodes: Iterator[Episode]) -> dict[str, Tensor]:
    """Of each task (task,): log-likelihood of a target, squared error, share of targets in the 95 % interval, shot."""
    likelihood = learner.likelihood
    assert isinstance(likelihood, Gaussian)
    found: dict[str, list[Tensor]] = {}
    with answering(learner):
        for episode in episodes:
            outputs = answer_batch(learner, episode).double()
            mean, deviation = likelihood.distribution(outputs)
            inside = (episode.query.y - mean).abs() <= NORMAL_95 * deviation
            task = {
                "log_likelihood": -likelihood.task_nll(outputs, episode.query, episode.context),
                "mean_squared_error": likelihood.task_score(
                    outputs, episode.query, episode.context
                ),
                "coverage": inside.double().mean((1, 2)),
                "shot": episode.support.mask.sum(1).double(),
            }
            for name, values in task.items():
                found.setdefault(name, []).append(values)
    return {name: torch.cat(parts) for name, parts in found.items()}


def scores_of(learner: Learner, kernel: str, *, tasks: int, exact_tasks: int) -> dict[str, Any]:
    """What a learner makes of functions of one covariance, and how far from the best it is on the first tasks."""
    each = answers(learner, episodes_of(kernel, "test", tasks, at_once=50))
    shots = each.pop("shot")
    found: dict[str, Any] = {name: summary(values) for name, values in each.items()}
    found["tasks"] = tasks
    found["by_shot"] = {
        f"{low}-{high}": {
            name: summary(values[(shots >= low) & (shots <= high)]) for name, values in each.items()
        }
        for low, high in SHOTS
    }
    if exact_tasks:
        world = build_source(f"gaussian_process,kernel={kernel}")
        assert isinstance(world, World)
        best = torch.cat(
            [
                world.exact(episode).log_density.double().mean(1)
                for episode in episodes_of(kernel, "test", exact_tasks, at_once=10)
            ]
        )
        missed = best - each["log_likelihood"][:exact_tasks]
        found["who_knows_the_covariance"] = {
            "tasks": exact_tasks,
            "log_likelihood": summary(best),
            "learner_misses": summary(missed),
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=CONFIGS, nargs="+", default=list(CONFIGS))
    parser.add_argument("--steps", type=int, help="in place of those of the configuration")
    parser.add_argument("--runs", type=Path, default=Path("runs/gaussian_processes"))
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--exact", type=int, default=1000, help="tasks that are answered exactly")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    tasks, exact = (20, 2) if chosen.smoke else (chosen.episodes, chosen.exact)
    results = earlier("gaussian_processes", "trained_on")
    for name in chosen.only:
        config = parse_config(CONFIGS[name])
        if chosen.steps or chosen.smoke:
            config = with_overrides(
                config, SMOKE if chosen.smoke else [f"training.steps={chosen.steps}"]
            )
        artifact, seconds = trained(config, None if chosen.smoke else chosen.runs / name)
        learner = artifact.learner
        scores = {
            kernel: scores_of(learner, kernel, tasks=tasks, exact_tasks=exact // SLOWER[kernel])
            for kernel in SLOWER
        }
        results[name] = {
            "config": artifact.config.model_dump(mode="json"),
            "parameters": artifact.facts["training"]["parameters"],
            "best_step": artifact.facts["training"]["best_step"],
            "training_processor_seconds": seconds,
            "processor": hardware()["processor"],
            "scores": scores,
        }
    record("gaussian_processes", {"threads": 1, "trained_on": results}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
