"""Omniglot, split of Vinyals et al. (2016): the in-context learner against ProtoNet, on the same encoder and tasks.

Both train from scratch on 60-way 1-shot tasks for the same processor time, and so the in-context learner, whose
steps cost more, takes fewer of them. Weights are chosen on the validation classes; both answer the same test tasks.

python benchmarks/omniglot_in_context.py FOLDER [--minutes 12] [--runs WHERE] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import load_artifact
from quickstudy.build import build_learner, build_source
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import TaskSource
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.functional import keep_large_blocks
from quickstudy.training import train
from record import interleaved, record

ENCODER = {"name": "image", "width": 64}
LEARNERS = {"protonet": {"name": "protonet"}, "in_context": {"name": "in_context"}}
TASKS = {"way": 60, "shot": 1, "queries": 3, "tasks": 1}
DESIGNS = {"5-way 1-shot": EpisodeDesign(5, 1, 5), "20-way 1-shot": EpisodeDesign(20, 1, 5)}


def seconds_of_steps(source: TaskSource) -> dict[str, float]:
    """Processor time of a loss and its gradient by each learner, interleaved."""
    episode = Episodes(source, "train", EpisodeDesign(60, 1, 3))[0]
    steps = {}
    for name, options in LEARNERS.items():
        torch.manual_seed(0)
        learner = build_learner(options, ENCODER)
        weights = list(learner.parameters())
        steps[name] = lambda learner=learner, weights=weights: torch.autograd.grad(
            learner(episode), weights
        )
    return interleaved(steps, rounds=7)


def config_of(name: str, data: str, steps: int, episodes: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": data,
            "learner": LEARNERS[name],
            "encoder": ENCODER,
            "episode": TASKS,
            "validation": {"way": 20, "queries": 5, "episodes": episodes, "every": 500},
            "training": {"steps": steps},
        }
    )


def run(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Train, unless an earlier call has, and tell how it went."""
    start = time.process_time()
    if not (folder / "artifact").exists():
        train(config, folder)
        (folder / "processor_seconds").write_text(str(time.process_time() - start))
    artifact = load_artifact(folder)
    kept = artifact.config.model_dump(mode="json")
    kept.pop("data")
    return {
        "config": kept,
        "training": artifact.facts["training"],
        "processor_seconds_of_training": float((folder / "processor_seconds").read_text()),
        "validation": artifact.scores["validation"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=12, help="of processor time, for each")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--runs", type=Path, help="keep the runs here, and go on with those there")
    parser.add_argument("--smoke", action="store_true", help="two steps, and keep nothing")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    keep_large_blocks()
    data = f"omniglot:{chosen.folder},protocol=vinyals"
    source = build_source(data)
    cost = seconds_of_steps(source)
    # What a step costs beside its gradient (its tasks, its optimiser) is the same for both.
    beside = 0.25 * cost["protonet"]
    runs = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.runs or Path(temporary)
        for name in LEARNERS:
            steps = int(60 * chosen.minutes / (cost[name] + beside))
            steps, validated = (2, 2) if chosen.smoke else (steps, 200)
            runs[name] = run(config_of(name, data, steps, validated), folder / name)
        learner, against = (
            load_artifact(folder / name).learner for name in ("in_context", "protonet")
        )
    contest = contest_of(learner, source, against=against, baselines=False)
    reverse = contest_of(against, source, baselines=False)
    episodes = 2 if chosen.smoke else chosen.episodes
    scores = {}
    for shape, design in DESIGNS.items():
        scores[shape] = {
            "in_context": evaluate(
                learner, source, design=design, episodes=episodes,
                contest=contest, against_name="protonet",
            ),
            "protonet": evaluate(
                against, source, design=design, episodes=episodes, contest=reverse
            ),
        }  # fmt: skip
    figures = {
        "data": "omniglot:FOLDER,protocol=vinyals",
        "threads": 1,
        "seconds_of_a_gradient": cost,
        "runs": runs,
        "test": scores,
    }
    record("omniglot_in_context", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
