"""The smallest learner with a memory, and streams on which it pays."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, Stream, Task, collate_streams
from quickstudy.learners.base import Learner
from quickstudy.likelihood import SquaredError, per_task_mean
from quickstudy.nn.encoders import RawEncoder

State = dict[str, Tensor]


class Recollecting(Learner):
    """Answers every query with the mean of the support and, times ``trust``, the sum of the means remembered.

    Args:
        fading: what is remembered fades by ``trust`` with each task.
    """

    order_free = True
    additive = False
    inner_loop = False
    state_type = dict

    def __init__(self, encoder: RawEncoder | None = None, *, fading: bool = False) -> None:
        super().__init__(encoder or RawEncoder(1), SquaredError())
        self.trust = nn.Parameter(torch.tensor(0.3))
        self.fading, self.at_once = fading, 0

    def adapt(self, support: Examples, context: Context, state: State | None = None) -> State:
        mean = per_task_mean(support.y[..., 0], support.mask)
        remembered = torch.zeros_like(mean) if state is None else state["memory"]
        return {"memory": remembered, "mean": mean}

    def predict(self, state: State, x: Inputs, context: Context) -> Tensor:
        found = state["mean"] + self.trust * state["memory"]
        return found[:, None, None].expand(-1, x.shape[1], 1)

    def carry(self, state: State) -> State:
        kept = self.trust * state["memory"] if self.fading else state["memory"]
        return {"memory": kept + state["mean"]}

    def together(self, episode: object) -> int:
        return self.at_once or 10**6


def streams(*, tasks: int, length: int, double: bool = False) -> Stream:
    """Streams of tasks whose values lie about a level that the stream shares."""
    kind = torch.float64 if double else torch.float32

    def task(level: Tensor) -> Task:
        x, y = torch.randn(7, 1, dtype=kind), level + torch.randn(7, 1, dtype=kind)
        return Task(x[:2], y[:2], x[2:], y[2:], way=1)

    return collate_streams(
        [[task(level) for _ in range(length)] for level in torch.randn(tasks, dtype=kind)]
    )
