"""What it costs to condition a learner: a training step of the MetaTransformer against one of the learner it wraps.

A step is the loss of a batch of tasks, its gradient, and what the optimiser makes of it; the loss and its gradient
alone are beside it. So is the same with a memory of a quarter of the width. One thread, processor time, all
interleaved.

python benchmarks/conditioning.py [--smoke]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.synthetic import Sinusoid
from quickstudy.episode import Context, Episode, Examples
from quickstudy.learners import (
    MAML,
    InContext,
    Learner,
    MetaTransformer,
    ProtoNet,
    TransformerNeuralProcess,
)
from quickstudy.nn.encoders import Encoder, ImageEncoder, RawEncoder, VectorEncoder
from quickstudy.training.optimizer import optimizer_of
from record import interleaved, record

WAVES = {"shot": 10, "queries": 25, "tasks": 32}
SHAPES = {"5-way 1-shot": (5, 1, 15, 4), "60-way 1-shot": (60, 1, 3, 1)}
"""Way, shot, queries of a class, tasks."""
SMALL = {"width": 16, "slots": 2, "bottleneck": 8}
"""Of a memory."""


def images(way: int, shot: int, queries: int, tasks: int) -> Episode:
    """Tasks of random images of 28 by 28 pixels."""
    generator = torch.Generator().manual_seed(0)

    def examples(each: int) -> Examples:
        x = torch.randint(256, (tasks, way * each, 1, 28, 28), generator=generator)
        y = torch.arange(way).repeat_interleave(each).expand(tasks, -1)
        return Examples(x.to(torch.uint8), y, torch.ones(tasks, way * each, dtype=torch.bool))

    exists = torch.ones(tasks, way, dtype=torch.bool)
    names = torch.zeros(tasks, way, 0, dtype=torch.int64)
    return Episode(examples(shot), examples(queries), Context(exists, torch.zeros(tasks, 0), names))


def steps_of(learner: Learner, episode: Episode, name: str) -> dict[str, Callable[[], Any]]:
    """What is timed of a learner, by name."""
    optimizer = optimizer_of(learner, "muon", rate=0.001, weight_decay=0.01, fused=True)

    def gradient() -> None:
        optimizer.zero_grad()
        learner(episode).backward()

    def step() -> None:
        gradient()
        optimizer.step()

    return {name: step, f"{name}, gradient alone": gradient}


def compared(
    learner: Callable[..., Learner],
    encoder: Callable[[], Encoder],
    episode: Episode,
    *,
    rounds: int,
    values: int = 0,
) -> dict[str, Any]:
    """Seconds of a step with and without, and their ratios."""
    options = {"values": values} if values else {}
    torch.manual_seed(0)
    learners = {
        "without": learner(encoder(), **options),
        "with": MetaTransformer(encoder(), learner=learner, **options),
        "with a small memory": MetaTransformer(encoder(), learner=learner, **SMALL, **options),
    }
    steps: dict[str, Callable[[], Any]] = {}
    for name, each in learners.items():
        steps |= steps_of(each, episode, name)
    seconds = interleaved(steps, rounds=rounds)
    ratios = {
        f"{name}{part}": seconds[f"{name}{part}"] / seconds[f"without{part}"]
        for name in ("with", "with a small memory")
        for part in ("", ", gradient alone")
    }
    return {"seconds": seconds, "ratios": ratios}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    rounds = 1 if (smoke := parser.parse_args().smoke) else 25
    waves = Sinusoid().draw(
        "train",
        EpisodeDesign(1, WAVES["shot"], WAVES["queries"]),
        tasks=WAVES["tasks"],
        generator=torch.Generator().manual_seed(0),
    )
    found = {
        "neural_process, sine waves": compared(
            TransformerNeuralProcess, partial(RawEncoder, 1), waves, rounds=rounds, values=1
        ),
        "maml, sine waves": compared(
            partial(MAML, strategy="unroll"),
            partial(VectorEncoder, 1),
            waves,
            rounds=rounds,
            values=1,
        ),
    }
    for name, shape in SHAPES.items():
        for learner in (ProtoNet, InContext):
            key = f"{'protonet' if learner is ProtoNet else 'in_context'}, images, {name}"
            found[key] = compared(learner, ImageEncoder, images(*shape), rounds=rounds)
    figures = {"threads": 1, "small": SMALL, "waves": WAVES, "steps": found}
    record("conditioning", figures, keep=not smoke)


if __name__ == "__main__":
    main()
