"""Sine waves from five points by learners of the gradient family: the error on fresh waves, and after each inner step.

Finn et al. 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, section 5.1: amplitudes from 0.1 to
5, phases from 0 to π, inputs from -5 to 5. Two points without noise determine a wave, so the best error is zero.

``head`` learns features on which a linear head descends with learned curvature (ANIL and Meta-Curvature, options of
MAML); ``all`` is MAML itself, every weight adapts, with a learned rate for each tensor. How many inner steps are taken
on test tasks is chosen on validation tasks.

python benchmarks/sinusoid.py [--seeds 0 1 2] [--only head] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import Artifact
from quickstudy.build import build_learner, build_source
from quickstudy.config import RunConfig, parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Split
from quickstudy.episode import Episode, tree_map
from quickstudy.evaluation import evaluate, interval, score_tasks
from quickstudy.learners.base import Learner
from quickstudy.training import train
from record import record

EPISODES, QUERIES = 1000, 100
STEPS = (10, 20, 30, 50, 100)
"""Inner steps to choose from for test tasks."""
SHOTS = (5, 10)
SMOKE = ["training.steps=4", "validation.every=4", "validation.episodes=4"]

COMMON = {
    "data": "sinusoid",
    "encoder": "vector",
    "episode": {"shot": 5, "queries": 50, "tasks": 16},
    "validation": {"shot": 5, "queries": 100, "episodes": 500, "every": 500},
}
CONFIGS = {
    "head": {
        "learner": {
            "name": "maml",
            "adapt": "head",
            "rates": "curvature",
            "rate": 0.02,
            "steps": 30,
        },
        "training": {"steps": 2500},
    },
    "all": {
        "learner": {"name": "maml", "rates": "tensor", "rate": 0.05, "steps": 5},
        "training": {"steps": 1500},
    },
}
SEEDS = {"head": 3, "all": 1}
"""Seeds of each config at most: the point of ``all`` is that it is close, and it takes longest."""


def config_of(name: str, seed: int, *, smoke: bool) -> RunConfig:
    config = parse_config(COMMON | CONFIGS[name])
    return with_overrides(config, [f"training.seed={seed}", *(SMOKE if smoke else [])])


def with_steps(artifact: Artifact, steps: int) -> Learner:
    """The trained learner, with another number of inner steps."""
    config = artifact.config
    learner = build_learner(config.learner | {"steps": steps}, config.encoder)
    learner.load_state_dict(artifact.learner.state_dict())
    return learner.eval()


def tasks_of(split: Split, shot: int, *, tasks: int) -> Episode:
    """Those of evaluate in the test split; in validation, others than those that chose the weights."""
    design = EpisodeDesign(1, shot, QUERIES)
    seed = 0 if split == "test" else 1
    drawn = Episodes(build_source("sinusoid"), split, design, length=tasks, seed=seed)
    return tree_map(lambda *parts: torch.cat(parts), *(drawn[i] for i in range(tasks)))


def error(
    learner: Learner, episode: Episode, *, adapted: bool = True
) -> dict[str, float] | dict[str, None]:
    """The mean squared error over tasks, its interval and the median; None where a task diverges."""
    scores = score_tasks(learner, [episode], adapted=adapted)
    if not scores.isfinite().all():
        return {"mean": None, "ci95": None, "median": None}
    mean, ci95 = interval(scores)
    return {"mean": mean, "ci95": ci95, "median": float(scores.median())}


def scores_of(artifact: Artifact, *, tasks: int) -> dict[str, Any]:
    """What is measured of one trained learner."""
    found: dict[str, Any] = {}
    for shot in SHOTS:
        validation, test = (tasks_of(split, shot, tasks=tasks) for split in ("validation", "test"))
        tried = {steps: error(with_steps(artifact, steps), validation) for steps in STEPS}
        finite = {steps: row["mean"] for steps, row in tried.items() if row["mean"] is not None}
        best = min(finite, key=finite.__getitem__)
        learner = with_steps(artifact, best)
        design = EpisodeDesign(1, shot, QUERIES)
        source = build_source("sinusoid")
        found[f"{shot}-shot"] = {
            "steps_chosen_on_validation_tasks": best,
            "validation_by_steps": tried,
            "test": evaluate(learner, source, design=design, episodes=tasks),
            "test_by_step": {
                steps: error(with_steps(artifact, max(1, steps)), test, adapted=steps > 0)
                for steps in range(11)
            },
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=CONFIGS, nargs="+", default=list(CONFIGS))
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    results: dict[str, Any] = {}
    for name in chosen.only:
        runs = []
        for seed in chosen.seeds[: 1 if chosen.smoke else SEEDS[name]]:
            config = config_of(name, seed, smoke=chosen.smoke)
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                artifact = train(config, Path(folder) / "run")
                seconds = time.process_time() - start
            scores = scores_of(artifact, tasks=20 if chosen.smoke else EPISODES)
            runs.append({"seed": seed, "training_processor_seconds": seconds, "scores": scores})
            print(name, seed, round(seconds), scores["5-shot"]["test"]["mean"], flush=True)
        results[name] = {"config": config.model_dump(mode="json"), "runs": runs}
        if len(runs) > 1:
            over = {}
            for shot in SHOTS:
                means = [run["scores"][f"{shot}-shot"]["test"]["mean"] for run in runs]
                mean, ci95 = interval(torch.tensor(means))
                over[f"{shot}-shot"] = {"mean": mean, "ci95_over_seeds": ci95}
            results[name]["over_seeds"] = over
    if not chosen.smoke:
        record("sinusoid", {"threads": 1, "learners": results})


if __name__ == "__main__":
    main()
