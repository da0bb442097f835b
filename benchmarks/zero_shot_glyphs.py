"""Letters of scripts never met, known by what Unicode calls them: with no example, and with one.

A MetaTransformer around a prototypical network is trained on letters and their Unicode names, of 20-way tasks with no
example or one of each class. What it learns of names is the only thing that can tell letters apart without an example;
scripts of the test are in no training task, nor are their names. Tasks come from all test scripts together. Settings
were chosen on the validation scripts.

python benchmarks/zero_shot_glyphs.py [--seeds 0] [--steps N] [--episodes N] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.build import build_source
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import Split
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.learners.base import Learner
from quickstudy.training import train
from record import record

SPLITS: tuple[Split, ...] = ("validation", "test")
CONFIG: dict[str, Any] = {
    "data": "glyphs",
    "learner": {"name": "meta_transformer", "names": True, "width": 128},
    "encoder": {"name": "image", "width": 64},
    "episode": {"way": 20, "shot": [0, 1], "queries": 2, "tasks": 4},
    "validation": {"way": 20, "shot": [0, 1], "queries": 2, "episodes": 60, "every": 100},
    "training": {"steps": 300},
}


def scores_of(learner: Learner, split: Split, episodes: int) -> dict[str, Any]:
    """Accuracy on 20-way tasks: by names alone, by one example alone, and by both."""
    source = build_source("glyphs")
    contest = contest_of(learner, source, split=split, baselines=False, ablate=True)
    none, one = (
        evaluate(
            learner,
            source,
            split=split,
            design=EpisodeDesign(20, shot, 5),
            episodes=episodes,
            contest=contest,
        )
        for shot in (0, 1)
    )
    found = {
        "names alone": none,
        "one example alone": one["ablations"]["without_description"],
        "one example and names": one,
    }
    return {
        name: {key: scores[key] for key in ("mean", "ci95", "before_adaptation") if key in scores}
        for name, scores in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=CONFIG["training"]["steps"])
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--smoke", action="store_true", help="two steps, and keep nothing")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.steps = chosen.episodes = 2
    torch.set_num_threads(1)
    runs = []
    for seed in chosen.seeds:
        training = CONFIG["training"] | {"steps": chosen.steps, "seed": seed}
        config = RunConfig.model_validate(CONFIG | {"training": training})
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            learner = train(config, Path(folder) / "run").learner
        seconds = time.process_time() - start
        scores = {split: scores_of(learner, split, chosen.episodes) for split in SPLITS}
        runs.append({"seed": seed, "training_processor_seconds": seconds, "scores": scores})
    record(
        "zero_shot_glyphs",
        {"config": CONFIG, "chance": 1 / 20, "runs": runs},
        keep=not chosen.smoke,
    )


if __name__ == "__main__":
    main()
