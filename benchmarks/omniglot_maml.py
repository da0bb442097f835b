"""Omniglot by MAML with the inner steps of its paper, scored on the test classes of Vinyals et al. (2016).

Finn et al. 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks: one step of 0.4 for 5-way 1-shot
tasks, five of 0.1 for 20-way ones, second order. Theirs is a convolutional network that is trained for 60,000 outer
steps of 32 and 16 tasks; here the default image encoder is trained for so many minutes on one thread. What else is
chosen below was chosen on the validation classes, from a few short runs each; both train on 20-way tasks. Runs of other
ways stay in the results.

python benchmarks/omniglot_maml.py FOLDER [--minutes 20] [--ways 5 20] [--set training.rate=0.003 ...] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.build import build_source
from quickstudy.config import RunConfig, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import TaskSource
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.machine import hardware
from quickstudy.training import train
from record import earlier, record

LEARNER = {"name": "maml", "head": "prototypes"}
PAPER_STEPS = {5: {"rate": 0.4, "steps": 1}, 20: {"rate": 0.1, "steps": 5}}
ENCODERS = {5: {"width": 64}, 20: {"width": 64, "stem": 16}}
TASKS = {"way": 20, "queries": 10, "tasks": 1}


def config_of(way: int, data: str, minutes: float, overrides: list[str]) -> RunConfig:
    config = RunConfig.model_validate(
        {
            "data": data,
            "learner": LEARNER | PAPER_STEPS[way],
            "encoder": {"name": "image"} | ENCODERS[way],
            "episode": TASKS,
            "validation": {"way": way, "queries": 5, "episodes": 200, "every": 1000},
            "training": {"minutes": minutes, "steps": 100_000, "rate": 0.004},
        }
    )
    return with_overrides(config, overrides)


def run(config: RunConfig, source: TaskSource, way: int, episodes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        artifact = train(config, Path(folder) / "run")
        seconds = time.process_time() - start
    contest = contest_of(artifact.learner, source, baselines=False)
    design = EpisodeDesign(way, 1, 5)
    test = evaluate(artifact.learner, source, design=design, episodes=episodes, contest=contest)
    kept = config.model_dump(mode="json")
    kept.pop("data")
    return {
        "config": kept,
        "training": artifact.facts["training"],
        "processor_seconds_of_training": seconds,
        "processor": hardware()["processor"],
        "validation": artifact.scores["validation"],
        "test": test,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--ways", type=int, nargs="+", choices=sorted(PAPER_STEPS), default=[5, 20])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    parser.add_argument("--smoke", action="store_true", help="two steps, and keep nothing")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.overrides += ["training.steps=2", "validation.episodes=2"]
        chosen.episodes = 2
    torch.set_num_threads(1)
    data = f"omniglot:{chosen.folder},protocol=vinyals"
    source = build_source(data)
    runs = earlier("omniglot_maml", "runs")
    for way in chosen.ways:
        config = config_of(way, data, chosen.minutes, chosen.overrides)
        runs[f"{way}-way 1-shot"] = run(config, source, way, chosen.episodes)
    figures = {"data": "omniglot:FOLDER,protocol=vinyals", "threads": 1, "runs": runs}
    record("omniglot_maml", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
