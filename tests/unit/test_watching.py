"""An inner loop that goes wrong says where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.functional import InnerLoop, Weights
from quickstudy.functional.watching import first_divergence


def loop(rate: float, steps: int = 6) -> InnerLoop:
    def loss(weights: Weights, shared: Weights, x: Tensor) -> Tensor:
        return (weights["a"] * x).square().sum() + weights["b"].sum()

    def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
        return {name: value - rate * slopes[name] for name, value in weights.items()}

    return InnerLoop(loss, update, steps)


START = {"a": torch.ones(2, 3), "b": torch.zeros(2, 1)}


def test_a_loop_that_ends_well_has_nothing_to_say() -> None:
    assert first_divergence(loop(0.1), START, {}, torch.ones(2, 3)) is None


def test_a_rate_that_diverges_is_told_by_its_losses() -> None:
    """Each step multiplies the weight by 1 - 2 · 1e12, so its square leaves float32 in the second step."""
    data = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = first_divergence(loop(1e12), START, {}, data)
    assert (found.task, found.step, found.what) == (1, 3, "loss")
    assert found.losses == (3.0, pytest.approx(3 * (2e12) ** 2 - 1e12, rel=1e-5))
    assert "inner step 3 of task 1 made the loss infinite" in str(found)
    assert "were 3, 1.2e+25" in str(found)


def test_a_weight_that_breaks_first_is_named() -> None:
    data = torch.ones(2, 3)
    found = first_divergence(loop(float("inf")), START, {}, data)
    assert (found.task, found.step, found.what) == (0, 1, "a")
    assert "the weight a" in str(found)


def test_a_loss_that_begins_broken() -> None:
    found = first_divergence(loop(0.1), START, {}, torch.full((2, 3), torch.nan))
    assert (found.step, found.losses) == (1, ())
    assert "steps before were none" in str(found)
