"""Conditional neural processes: a task is the mean of what its examples say, each by itself."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Gaussian
from quickstudy.nn.encoders import Encoder


def perceptron(inputs: int, width: int, outputs: int, *, layers: int) -> nn.Sequential:
    """Linear maps with GELU between them, ``layers`` of them hidden."""
    sizes = [inputs, *(width for _ in range(layers))]
    stack: list[nn.Module] = []
    for before, after in pairwise(sizes):
        stack += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*stack, nn.Linear(sizes[-1], outputs))


def check_values(values: int, context: Context | None = None) -> None:
    """Refuse a number of values that cannot be predicted, or that is not what tasks have.

    Raises:
        ValueError: it is below 1, or the tasks have another number.
    """
    if values < 1:
        raise ValueError(
            f"This learner predicts numbers, so values must be at least 1; found {values}. Choose another learner to "
            "tell classes apart."
        )
    if context is not None and context.classes.shape[1] != values:
        raise ValueError(
            f"This learner predicts {values} values, but the tasks have {context.classes.shape[1]}; build it with "
            f"values={context.classes.shape[1]}, or, if these are classes, choose a learner that tells them apart."
        )


class ConditionalState(NamedTuple):
    """What the examples say, added up; adding two of them is learning more."""

    sums: Tensor
    """(task, width)"""
    counts: Tensor
    """(task, 1)"""


class ConditionalNeuralProcess(Learner):
    """Predicts numbers, with their uncertainty, from the mean of what the examples say.

    ``r = mean_i ρ([f(x_i); y_i])``, ``(μ(x), σ(x)) = φ([f(x); r])``, y ~ N(μ, σ²).

    Garnelo et al. 2018, Conditional Neural Processes. Differs from the paper: x goes through the learner's encoder
    first; σ is at least 0.01 rather than 0.1. Without support r is zero, and the answer is the prior that training has
    made of it.

    Args:
        encoder: maps an example to a vector.
        values: numbers that a task predicts.
        width: features of r, and of the hidden layers.
        layers: hidden layers of ρ and of φ.

    Raises:
        ValueError: an option is out of range; at adaptation, tasks with another number of values.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.randn(1, 4, 1)
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> one = torch.ones(1, 1, dtype=torch.bool)
    >>> context = Context(one, torch.zeros(1, 0), torch.zeros(1, 1, 0))
    >>> learner = ConditionalNeuralProcess(RawEncoder(2), values=1, width=8)
    >>> learner.predict(learner.adapt(support, context), torch.randn(1, 3, 2), context).shape
    torch.Size([1, 3, 2])
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = ConditionalState

    def __init__(
        self, encoder: Encoder, *, values: int = 0, width: int = 128, layers: int = 3
    ) -> None:
        check_values(values)
        if min(width, layers) < 1:
            raise ValueError(
                f"width and layers must be at least 1; found a width of {width} and {layers} layers."
            )
        likelihood = Gaussian()
        super().__init__(encoder, likelihood)
        self.values = values
        self.say = perceptron(encoder.width + values, width, width, layers=layers)
        self.answer = perceptron(
            encoder.width + width, width, likelihood.width(values), layers=layers
        )

    def adapt(
        self, support: Examples, context: Context, state: ConditionalState | None = None
    ) -> ConditionalState:
        check_values(self.values, context)
        features = self.encode(support.x)
        said = self.say(torch.cat([features, support.y.to(features.dtype)], -1))
        kept = support.mask[..., None]
        sums, counts = torch.where(kept, said, 0).sum(1), kept.to(said.dtype).sum(1)
        if state is None:
            return ConditionalState(sums, counts)
        return ConditionalState(state.sums + sums, state.counts + counts)

    def predict(self, state: ConditionalState, x: Inputs, context: Context) -> Tensor:
        features = self.encode(x)
        mean = (state.sums / state.counts.clamp(min=1))[:, None].expand(-1, features.shape[1], -1)
        outputs: Tensor = self.answer(torch.cat([features, mean], -1))
        return outputs
