"""Manners of attention in context: time and memory against the number of examples, and what they learn in equal time.

Each manner is that of a Transformer neural process on linear functions of 8 numbers: ``standard``, ``grouped`` (pairs
of heads share keys and values) and ``linear`` (by kernels). A step is the gradient of one task with so many examples
and 100 queries; its memory is what is kept for the gradient, each storage once, and the state is what an adapted task
keeps beside its examples. Errors are on fresh tasks, after training for equal processor time, of which the number of
steps is measured beforehand, beside those of the exact answer.

python benchmarks/attention.py [--seconds N] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from families import trained
from quickstudy.build import build_learner, build_source
from quickstudy.config import RunConfig, parse_config, with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.evaluation import evaluate
from quickstudy.learners.base import Learner
from quickstudy.nn.layers import Manner
from record import record

EXAMPLES = (100, 200, 500, 1000, 2000, 5000)
QUERIES = 100
COMMON: dict[str, Any] = {
    "data": "linear,dims=8,noise=0.1",
    "encoder": {"name": "raw", "inputs": 8},
    "learner": {
        "name": "neural_process",
        "width": 64,
        "layers": 4,
        "heads": 4,
        "waves": 0,
        "values": 1,
    },
    "episode": {"shot": [2, 40], "queries": 20, "tasks": 16, "same_shot": True},
    "validation": {"shot": 20, "queries": 20, "episodes": 100, "every": 250},
    "training": {"rate": 0.005, "weight_decay": 0.01, "schedule": "cosine", "average": 0.99},
}
SHOTS = (4, 10, 40)


def kept_bytes(run: Any) -> int:
    """Bytes that are kept for the gradient of a number, each storage once."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run().backward()
    return sum(found.values())


def step_of(learner: Learner, examples: int) -> dict[str, float]:
    """Processor seconds and bytes of one gradient, and bytes of the state."""
    world, design = build_source(COMMON["data"]), EpisodeDesign(1, examples, QUERIES)
    generator = torch.Generator().manual_seed(0)
    episode = world.draw("train", design, tasks=1, generator=generator)  # type: ignore[attr-defined]

    def loss() -> Tensor:
        return learner(episode)

    kept, start = kept_bytes(loss), time.process_time()
    loss().backward()
    spent = time.process_time() - start
    with torch.no_grad():
        state = learner.adapt(episode.support, episode.context)
    return {
        "processor_seconds": spent,
        "kept_megabytes": kept / 1e6,
        "state_megabytes": sum(each.nbytes for each in (state.keys, state.values)) / 1e6,
    }


def learned(config: RunConfig, folder: Path, seconds: float, *, smoke: bool) -> dict[str, Any]:
    """What a manner has learned in so many seconds."""
    if smoke:
        config = with_overrides(config, ["validation.episodes=4"])
    artifact, used = trained(config, folder, 0.5 if smoke else seconds)
    scores = {}
    for shot in SHOTS:
        score = evaluate(
            artifact.learner,
            build_source(config.data),
            design=EpisodeDesign(1, shot, 20),
            episodes=10 if smoke else 500,
        )
        scores[f"{shot}-shot"] = {
            "mean": score["mean"],
            "ci95": score["ci95"],
            "exact": score["baselines"]["exact"],
            "below_exact_nats": score["below_exact"],
        }
    return {
        "parameters": artifact.facts["training"]["parameters"],
        "training_processor_seconds": used,
        "training_steps": artifact.facts["training"]["steps"],
        "test": scores,
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120.0, help="of training; 0 for none")
    parser.add_argument("--runs", type=Path, default=Path("runs/attention"))
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    sizes = EXAMPLES[:2] if chosen.smoke else EXAMPLES
    found: dict[str, Any] = {}
    for manner in get_args(Manner):
        config = parse_config(COMMON | {"learner": COMMON["learner"] | {"attention": manner}})
        torch.manual_seed(0)
        learner = build_learner(config.learner, config.encoder)
        found[manner] = {"step_by_examples": {size: step_of(learner, size) for size in sizes}}
        print(manner, found[manner], flush=True)
        if chosen.seconds:
            with tempfile.TemporaryDirectory() as place:
                runs = Path(place) if chosen.smoke else chosen.runs
                found[manner] |= learned(config, runs / manner, chosen.seconds, smoke=chosen.smoke)
    figures = {
        "threads": 1,
        "queries": QUERIES,
        "budget_processor_seconds": chosen.seconds,
        "config": COMMON,
        "attention": found,
    }
    record("attention", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
