"""What memory is worth: waves of one hidden amplitude and a narrow range of phases, two points of each, ten a stream.

The error at the tenth task against the first, with the memory that each task leaves to the next and without, on the
same tasks; and the share of the gap between the exact answers of who forgets and of who remembers that memory closes.

python benchmarks/streams.py [--runs FOLDER] [--streams N] [--smoke]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from gaussian_processes import trained
from quickstudy.build import build_source
from quickstudy.config import parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.evaluation.streams import evaluate_streams
from record import record

SMOKE = [
    "training.steps=2",
    "validation.every=2",
    "validation.episodes=2",
    "episode.tasks=2",
    "episode.stream=2",
    "validation.stream=2",
]
CONFIG = {
    "data": "shared_sinusoid",
    "learner": {
        "name": "meta_transformer",
        "learner": {"name": "neural_process", "width": 32, "layers": 2, "waves": 8},
        "width": 64,
        "slots": 4,
    },
    "encoder": "raw",
    "episode": {"shot": 2, "queries": 10, "tasks": 32, "stream": 5},
    "validation": {"shot": 2, "queries": 20, "episodes": 100, "every": 200, "stream": 10},
    "training": {
        "steps": 2400,
        "rate": 0.005,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "average": 0.99,
        "warmup": 50,
    },
}
POSITIONS, QUERIES = 10, 50


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("runs/streams"))
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    config = with_overrides(parse_config(CONFIG), SMOKE if chosen.smoke else [])
    artifact, seconds = trained(config, None if chosen.smoke else chosen.runs)
    found = evaluate_streams(
        artifact.learner,
        build_source(config.data),
        design=EpisodeDesign(1, 2, QUERIES),
        positions=2 if chosen.smoke else POSITIONS,
        streams=3 if chosen.smoke else chosen.streams,
    )
    last = found["positions"][-1]
    figures = {
        "threads": 1,
        "config": artifact.config.model_dump(mode="json"),
        "parameters": artifact.facts["training"]["parameters"],
        "training_processor_seconds": seconds,
        "validation": artifact.scores["validation"],
        "error_change_with_memory": found["last_against_first"]["with_memory"]["relative"],
        "error_change_without_memory": found["last_against_first"]["without_memory"]["relative"],
        "gap_closed_at_the_last_task": last["gap_closed"],
        "test": found,
    }
    record("streams", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
