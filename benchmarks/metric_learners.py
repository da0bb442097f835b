"""Metric and closed-form learners on glyphs: one encoder, one training, the same test tasks, paired against ProtoNet.

Every learner trains for the same number of steps on the same tasks from the same seed. Options of a learner that are
marked as choices are compared on validation tasks; test tasks are drawn once, for the option that was chosen.

python benchmarks/metric_learners.py [--only matching feat] [--smoke]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import Artifact
from quickstudy.build import build_source
from quickstudy.config import RunConfig, parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import PoolSource, Split
from quickstudy.evaluation import Contest, interval
from quickstudy.functional import keep_large_blocks
from quickstudy.training import train
from record import record

EPISODES = 600
STEPS = 150
CHOICES: dict[str, list[dict[str, Any]]] = {
    "protonet": [{}],
    "matching": [{}, {"layers": 1}],
    "relation": [{}],
    "feat": [{}],
    "deepsets": [{"set_function": "deepsets"}],
    "ridge": [{}],
}
NAMES = {"deepsets": "feat"}
"""What a row is called in LEARNERS, where that differs."""
DESIGNS = {"20-way 1-shot": EpisodeDesign(20, 1, 5), "20-way 5-shot": EpisodeDesign(20, 5, 5)}
SMOKE = ["training.steps=4", "validation.every=4", "validation.episodes=4"]


def config_of(name: str, options: dict[str, Any], *, steps: int, smoke: bool) -> RunConfig:
    config = parse_config({"learner": {"name": NAMES.get(name, name), **options}})
    limits = [f"training.steps={steps}", f"validation.every={steps}", "training.accelerator=cpu"]
    return with_overrides(config, [*limits, *(SMOKE if smoke else [])])


def trained(config: RunConfig) -> tuple[Artifact, float]:
    """The artifact of a training and its seconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        artifact = train(config, Path(folder) / "run")
        return artifact, time.process_time() - start


def scores_of(
    artifacts: dict[str, Artifact], source: PoolSource, split: Split, *, seed: int, tasks: int
) -> dict[str, dict[str, torch.Tensor]]:
    """The accuracy of each task, by design and learner."""
    contest = Contest(source, split=split, seed=seed)
    for name, artifact in artifacts.items():
        contest.enter(name, artifact.learner)
    return {shape: contest.scores(design, tasks) for shape, design in DESIGNS.items()}


def best_of(
    name: str, source: PoolSource, *, steps: int, smoke: bool
) -> tuple[Artifact, dict[str, Any]]:
    """The choice that does best on validation tasks, others than those that chose its weights, and what all did."""
    tried = []
    for options in CHOICES[name]:
        artifact, seconds = trained(config_of(name, options, steps=steps, smoke=smoke))
        found = scores_of(
            {"it": artifact}, source, "validation", seed=1, tasks=20 if smoke else 300
        )
        accuracy = {shape: interval(score["it"])[0] for shape, score in found.items()}
        facts = {
            "options": options,
            "training_processor_seconds": round(seconds),
            "validation_accuracy": accuracy,
        }
        tried.append((accuracy["20-way 1-shot"], artifact, facts))
        print(name, json.dumps(facts), flush=True)
    best = max(tried, key=lambda each: each[0])
    return best[1], {"chosen": best[2]["options"], "tried": [facts for _, _, facts in tried]}


def main() -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=CHOICES, nargs="+", default=list(CHOICES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    source = build_source("glyphs")
    assert isinstance(source, PoolSource)
    artifacts, facts = {}, {}
    for name in dict.fromkeys(["protonet", *chosen.only]):
        artifacts[name], facts[name] = best_of(name, source, steps=chosen.steps, smoke=chosen.smoke)
    if chosen.only != list(CHOICES) or chosen.smoke:
        return
    test: dict[str, Any] = {}
    found = scores_of(artifacts, source, "test", seed=0, tasks=EPISODES)
    for shape, scores in found.items():
        test[shape] = {}
        for name, score in scores.items():
            mean, ci95 = interval(score)
            test[shape][name] = {"mean": mean, "ci95": ci95}
            if name != "protonet":
                difference, half = interval(score - scores["protonet"])
                test[shape][name]["against_protonet"] = {"mean": difference, "ci95": half}
    config = config_of("protonet", {}, steps=chosen.steps, smoke=False).model_dump(mode="json")
    record(
        "metric_learners",
        {"threads": 1, "test_tasks": EPISODES, "config": config, "learners": facts, "test": test},
    )


if __name__ == "__main__":
    main()
