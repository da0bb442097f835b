"""Sine waves from five points in one forward pass: the error on fresh waves, where no gradient is taken.

Finn et al. 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, section 5.1, as in ``sinusoid.py``,
by a Transformer neural process. Two points without noise determine a wave, so the best error is zero.

python benchmarks/in_context_sinusoid.py [--runs FOLDER] [--episodes N] [--smoke]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from gaussian_processes import trained
from quickstudy.build import build_source
from quickstudy.config import parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.evaluation import evaluate
from record import record

SMOKE = ["training.steps=4", "validation.every=4", "validation.episodes=4"]
CONFIG = {
    "data": "sinusoid",
    "learner": {"name": "neural_process"},
    "encoder": "raw",
    "episode": {"shot": 5, "queries": 25, "tasks": 32, "same_shot": True},
    "validation": {"shot": 5, "queries": 50, "episodes": 500, "every": 500},
    "training": {
        "steps": 3000,
        "rate": 0.005,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "average": 0.99,
        "warmup": 100,
    },
}
QUERIES = 100


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("runs/in_context_sinusoid"))
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    config = with_overrides(parse_config(CONFIG), SMOKE if chosen.smoke else [])
    artifact, seconds = trained(config, None if chosen.smoke else chosen.runs)
    scores = evaluate(
        artifact.learner,
        build_source(config.data),
        design=EpisodeDesign(1, 5, QUERIES),
        episodes=20 if chosen.smoke else chosen.episodes,
    )
    figures = {
        "threads": 1,
        "config": artifact.config.model_dump(mode="json"),
        "parameters": artifact.facts["training"]["parameters"],
        "training_processor_seconds": seconds,
        "validation": artifact.scores["validation"],
        "test": scores,
    }
    record("in_context_sinusoid", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
