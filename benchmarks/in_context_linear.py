"""Linear functions in context: the error of a neural process against ridge regression and least squares.

Eight dimensions, 16 examples, noise 0.5: ``y = wᵀ x + ε``, w ~ N(0, I), x ~ N(0, I) (Garg et al. 2022, What Can
Transformers Learn In-Context?, with noise). Ridge regression with penalty noise² is Bayes-optimal here, so nobody can
be below 1. Errors are those of noisy values. The learner attends by plain products, which was chosen on validation
tasks over softmax after 800 steps.

python benchmarks/in_context_linear.py [--runs FOLDER] [--episodes N] [--smoke]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussian_processes import trained
from quickstudy.build import build_source
from quickstudy.config import parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import World
from quickstudy.episode import Episode
from quickstudy.evaluation import answer_batch, answering
from quickstudy.evaluation.measures import summary
from quickstudy.likelihood import Gaussian
from record import record

SMOKE = ["training.steps=4", "validation.every=4", "validation.episodes=4"]
SHOT, QUERIES, AT_ONCE = 16, 50, 50
CONFIG = {
    "data": "linear,dims=8,noise=0.5",
    "learner": {"name": "neural_process", "waves": 0, "attention": "products"},
    "encoder": "raw",
    "episode": {"shot": SHOT, "queries": 24, "tasks": 32, "same_shot": True},
    "validation": {"shot": SHOT, "queries": QUERIES, "episodes": 500, "every": 500},
    "training": {
        "steps": 3000,
        "rate": 0.005,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "average": 0.99,
        "warmup": 100,
    },
}


def least_squares(episode: Episode) -> Tensor:
    """What ordinary least squares says of the queries, float64 (task, query, values)."""
    support = episode.support
    found = torch.linalg.lstsq(support.x.double(), support.y.double()).solution
    return episode.query.x.double() @ found


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("runs/in_context_linear"))
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    config = with_overrides(parse_config(CONFIG), SMOKE if chosen.smoke else [])
    artifact, seconds = trained(config, None if chosen.smoke else chosen.runs)
    world = build_source(config.data)
    likelihood = artifact.learner.likelihood
    assert isinstance(world, World)
    assert isinstance(likelihood, Gaussian)
    count = 1 if chosen.smoke else chosen.episodes // AT_ONCE
    design = EpisodeDesign(1, SHOT, QUERIES)
    drawn = Episodes(world, "test", design, tasks=AT_ONCE, length=count, seed=0)
    errors: dict[str, list[Tensor]] = {}
    with answering(artifact.learner):
        for index in range(count):
            episode = drawn[index]
            answers = {
                "learner": likelihood.distribution(answer_batch(artifact.learner, episode))[0],
                "ridge": world.exact(episode).mean,
                "least_squares": least_squares(episode),
            }
            for name, each in answers.items():
                error = (each.double() - episode.query.y).square().mean((1, 2))
                errors.setdefault(name, []).append(error)
    found = {name: torch.cat(parts) for name, parts in errors.items()}
    best = found["ridge"].mean()
    figures: dict[str, Any] = {
        "threads": 1,
        "config": artifact.config.model_dump(mode="json"),
        "parameters": artifact.facts["training"]["parameters"],
        "training_processor_seconds": seconds,
        "tasks": len(found["ridge"]),
        "mean_squared_error": {name: summary(each) for name, each in found.items()},
        "times_the_error_of_ridge": float(found["learner"].mean() / best),
        "least_squares_times_the_error_of_ridge": float(found["least_squares"].mean() / best),
        "above_ridge": summary(found["learner"] - found["ridge"]),
    }
    record("in_context_linear", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
