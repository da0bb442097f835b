"""Does it pay to meta-train with examples that have no label? Glyphs, one encoder, one training time, test scripts.

Three trainings of so many processor seconds: prototypes on tasks without such examples; soft prototypes (Ren et al.
2018) on tasks with 60 of them; and the same where these are of twenty other classes as well. On the same test tasks
answer: these three; the first with the help of 100 examples without a label through soft prototypes and through a
linear head that guesses, both put on its encoder; and each of these without them. Once all of them are of the task's
classes, once of as many other classes too.

python benchmarks/soft_prototypes.py [--seconds 180] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from budget import seconds_of_steps
from quickstudy.artifact import Artifact
from quickstudy.build import build_source
from quickstudy.config import RunConfig, parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.derive import derive
from quickstudy.evaluation import Contest
from quickstudy.functional import keep_large_blocks
from quickstudy.training import train
from record import compared, record

COMMON: dict[str, Any] = {
    "data": "glyphs",
    "episode": {"way": 20, "shot": 1, "queries": 3},
    "validation": {"way": 20, "shot": 1, "queries": 3, "episodes": 60, "every": 100},
    "training": {"accelerator": "cpu"},
}
UNLABELLED = {"unlabelled": 60}
TRAININGS: dict[str, dict[str, Any]] = {
    "protonet": {"learner": "protonet"},
    "soft": {"learner": "soft_prototypes", "episode": UNLABELLED, "validation": UNLABELLED},
    "soft, distractors": {
        "learner": {"name": "soft_prototypes", "distractors": True},
        "episode": UNLABELLED | {"distractors": 20},
        "validation": UNLABELLED | {"distractors": 20},
    },
}
DESIGNS = {
    "of its classes": EpisodeDesign(20, 1, 5, unlabelled=100),
    "half of others": EpisodeDesign(20, 1, 5, unlabelled=100, distractors=20),
}
PROBE = 20


def config_of(name: str) -> RunConfig:
    own = TRAININGS[name]
    parts = {part: {**COMMON[part], **own.get(part, {})} for part in ("episode", "validation")}
    return parse_config({**COMMON, **own, **parts})


def trained(config: RunConfig, folder: Path, steps: int) -> tuple[Artifact, float]:
    """A training of so many steps, and the processor seconds that it took."""
    start = time.process_time()
    limits = [f"training.steps={steps}", f"validation.every={max(1, steps // 4)}"]
    found = train(with_overrides(config, limits), folder, progress=False)
    return found, time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    facts, learners = {}, {}
    configs = {name: config_of(name) for name in TRAININGS}
    each = seconds_of_steps(configs, probe=PROBE, settings=["validation.episodes=2"])
    seconds = 1.0 if chosen.smoke else chosen.seconds
    with tempfile.TemporaryDirectory() as place:
        for name, config in configs.items():
            steps = max(2, round(seconds / each[name]))
            artifact, used = trained(config, Path(place) / name, steps)
            learners[name] = artifact.learner
            facts[name] = {
                "training_processor_seconds": used,
                "training_steps": artifact.config.training.steps,
                "config": artifact.config.model_dump(mode="json"),
            }
            print(name, used, flush=True)
            if name == "protonet":
                for head in ("soft_prototypes", "linear_head"):
                    learners[f"protonet, {head}"] = derive(artifact, head).learner
    tests = {}
    for shape, design in DESIGNS.items():
        contest = Contest(build_source("glyphs"), split="test")
        for name, learner in learners.items():
            contest.enter(name, learner, without_unlabelled=f"{name}, without")
        scores = contest.scores(design, 4 if chosen.smoke else chosen.episodes)
        tests[shape] = compared(scores, "protonet, linear_head")
        print(shape, tests[shape]["accuracy"], flush=True)
    designs = {shape: design.__dict__ for shape, design in DESIGNS.items()}
    figures = {"threads": 1, "designs": designs, "trainings": facts, "tests": tests}
    record("soft_prototypes", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
