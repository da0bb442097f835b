"""What it costs to condition a learner: a training step of the MetaTransformer against one of the learner it wraps.

A step is the loss of a batch of tasks and its gradient. One thread, processor time, the two interleaved.

python benchmarks/conditioning.py [--smoke]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

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
from record import interleaved, record

WAVES = {"shot": 10, "queries": 25, "tasks": 32}
SHAPES = {"5-way 1-shot": (5, 1, 15, 4), "60-way 1-shot": (60, 1, 3, 1)}
"""Way, shot, queries of a class, tasks."""


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


def step_of(learner: Learner, episode: Episode) -> Callable[[], Any]:
    weights = list(learner.parameters())

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(learner(episode), weights, allow_unused=True)

    return step


def compared(
    learner: Callable[..., Learner],
    encoder: Callable[[], Encoder],
    episode: Episode,
    *,
    rounds: int,
    values: int = 0,
) -> dict[str, Any]:
    """Seconds of a step with and without, and their ratio."""
    options = {"values": values} if values else {}
    torch.manual_seed(0)
    steps = {
        "without": step_of(learner(encoder(), **options), episode),
        "with": step_of(MetaTransformer(encoder(), learner=learner, **options), episode),
    }
    seconds = interleaved(steps, rounds=rounds)
    return {"seconds": seconds, "ratio": seconds["with"] / seconds["without"]}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    rounds = 1 if (smoke := parser.parse_args().smoke) else 15
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
    record("conditioning", {"threads": 1, "waves": WAVES, "steps": found}, keep=not smoke)


if __name__ == "__main__":
    main()
