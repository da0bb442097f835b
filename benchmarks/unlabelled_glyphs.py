"""Meta-training without labels: the in-context learner on glyphs whose labels nobody reads, against its labelled twin.

Both take the same number of steps on 20-way 1-shot tasks from the same weights. The one without labels also chooses its
weights without any. They are scored on the same labelled tasks of scripts that neither has met.

python benchmarks/unlabelled_glyphs.py [--steps 800] [--smoke]
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
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.training import train
from record import record

DESIGNS = {"5-way 1-shot": EpisodeDesign(5, 1, 5), "20-way 1-shot": EpisodeDesign(20, 1, 5)}


def config_of(labels: str, steps: int) -> RunConfig:
    design = {"way": 20, "shot": 1, "queries": 5}
    return RunConfig.model_validate(
        {
            "data": "glyphs",
            "learner": {"name": "in_context"},
            "encoder": {"name": "image", "width": 64},
            "episode": {**design, "labels": labels},
            "validation": {**design, "episodes": 60, "every": max(1, steps // 4)},
            "training": {"steps": steps},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--smoke", action="store_true", help="two steps, and keep nothing")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.steps = chosen.episodes = 2
    torch.set_num_threads(1)
    source = build_source("glyphs")
    runs: dict[str, Any] = {}
    learners = {}
    for labels in ("given", "none"):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            artifact = train(config_of(labels, chosen.steps), Path(folder) / "run")
        learners[labels] = artifact.learner
        runs[labels] = {
            "config": artifact.config.model_dump(mode="json"),
            "processor_seconds_of_training": time.process_time() - start,
        }
    contests = {
        "given": contest_of(learners["given"], source, baselines=False),
        "none": contest_of(learners["none"], source, against=learners["given"]),
    }
    for labels, contest in contests.items():
        runs[labels]["test"] = {
            shape: evaluate(
                learners[labels], source, design=design, episodes=chosen.episodes,
                contest=contest, against_name="its labelled twin",
            )
            for shape, design in DESIGNS.items()
        }  # fmt: skip
    record("unlabelled_glyphs", {"threads": 1, "labels": runs}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
