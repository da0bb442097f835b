"""A ProtoNet training step: all tasks in one batch against a loop over tasks, and its share of the matmul peak.

The model is a Transformer over 49 patches of 4 x 4 pixels with four layers; the task is 5-way 1-shot with 15 queries a
class, 4 tasks a step. Useful work is counted as matrix products only, three times the forward pass.
"""

from __future__ import annotations

import torch
from torch import nn

from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.episode import Inputs, take_tasks
from quickstudy.functional import keep_large_blocks
from quickstudy.learners import LEARNERS
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Transformer
from quickstudy.nn.positions import LearnedPositions
from record import interleaved, record
from sampling import Noise

TASKS, TOKENS, PATCH, LAYERS = 4, 49, 16, 4


class PatchEncoder(Encoder):
    """Patches, a Transformer, the mean over tokens: nothing but matrix products and what lies between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.bytes_per_example = 4 * TOKENS * 4 * width
        self.embed = nn.Linear(PATCH, width)
        self.positions = LearnedPositions(width, length=TOKENS)
        self.transformer = Transformer(width, layers=LAYERS, heads=4)

    def forward(self, x: Inputs) -> torch.Tensor:
        pixels = x.to(self.embed.weight.dtype) / 255
        patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4).flatten(1, 3).flatten(2)
        return self.transformer(self.positions(self.embed(patches))).mean(1)


def operations(width: int) -> float:
    """Floating-point operations of one image, forward and backward."""
    linear = 2 * TOKENS * (PATCH * width + LAYERS * 12 * width * width)
    return 3 * (linear + LAYERS * 4 * TOKENS * TOKENS * width)


def main() -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    episode = Episodes(Noise(), "train", EpisodeDesign(5, 1, 15), tasks=TASKS)[0]
    square = torch.randn(1024, 1024)
    widths = {}
    for width in (64, 256):
        torch.manual_seed(0)
        learner = LEARNERS["protonet"](PatchEncoder(width))
        parameters = list(learner.parameters())

        def batched(learner=learner, parameters=parameters):
            return torch.autograd.grad(learner(episode), parameters)

        def looped(learner=learner, parameters=parameters):
            total = None
            for task in range(TASKS):
                loss = learner(take_tasks(episode, slice(task, task + 1))) / TASKS
                part = torch.autograd.grad(loss, parameters)
                total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
            return total

        first, second = (torch.cat([g.flatten() for g in way()]) for way in (batched, looped))
        difference = ((first - second).norm() / second.norm()).item()
        seconds = interleaved(
            {"batched": batched, "looped": looped, "matmul": lambda: square @ square}, rounds=9
        )
        peak = 2 * 1024**3 / seconds["matmul"]
        work = TASKS * 80 * operations(width)
        widths[width] = {
            "speed_against_loop": seconds["looped"] / seconds["batched"],
            "share_of_matmul_peak": work / seconds["batched"] / peak,
            "episodes_per_second": TASKS / seconds["batched"],
            "gradient_difference": difference,
        }
    record("protonet_step", {"tasks": TASKS, "threads": 1, "widths": widths})


if __name__ == "__main__":
    main()
