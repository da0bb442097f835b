"""Conjugate gradients and the implicit derivative of where an inner loop rests, against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quickstudy.functional import InnerLoop, Weights, conjugate_gradient, settle

close = torch.testing.assert_close


def positive(width: int, *lead: int) -> Tensor:
    rows = torch.randn(*lead, width, width, dtype=torch.float64)
    return rows @ rows.mT / width + 0.1 * torch.eye(width, dtype=torch.float64)


def test_conjugate_gradients_solve_a_system_in_as_many_steps_as_it_has_unknowns() -> None:
    matrix, right = positive(6), torch.randn(6, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, right)
    few, enough, many = (
        conjugate_gradient(lambda u: matrix @ u, right, steps=steps) for steps in (3, 6, 60)
    )
    assert (few - expected).norm() > 1e-4
    close(enough, expected, rtol=1e-8, atol=1e-8)
    close(many, expected, rtol=1e-12, atol=1e-12)


def test_conjugate_gradients_end_where_there_is_nothing_to_find() -> None:
    right = torch.randn(4, dtype=torch.float64)
    assert torch.equal(conjugate_gradient(lambda u: u, right, steps=3), right)
    assert not conjugate_gradient(lambda u: 2 * u, torch.zeros(4), steps=3).any()
    downhill = -torch.eye(4, dtype=torch.float64)
    assert torch.equal(conjugate_gradient(lambda u: downhill @ u, right, steps=3), right)


def descent(rate: float) -> InnerLoop:
    def loss(weights: Weights, shared: Weights, data: tuple[Tensor, Tensor]) -> Tensor:
        curvature, x = data
        w = torch.cat([weights["first"].flatten(), weights["second"]])
        return w @ curvature @ w / 2 - w @ (shared["scale"] * x)

    def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
        return {name: value - rate * slopes[name] for name, value in weights.items()}

    return InnerLoop(loss, update, steps=90)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_on_a_parabola_the_implicit_gradient_is_a_closed_form(chunk: int) -> None:
    penalty, curvature = 2.0, positive(6, 3)
    x = torch.randn(3, 6, dtype=torch.float64)
    start = {
        "first": torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True),
        "second": torch.randn(3, 2, dtype=torch.float64, requires_grad=True),
    }
    shared = {"scale": torch.randn(6, dtype=torch.float64, requires_grad=True)}
    end = settle(
        descent(0.15),
        start,
        shared,
        (curvature, x),
        penalty=penalty,
        solver_steps=6,
        tasks_at_once=chunk,
    )
    found = torch.cat([end["first"].flatten(1), end["second"]], 1)
    theta = torch.cat([start["first"].flatten(1), start["second"]], 1)
    system = curvature + penalty * torch.eye(6, dtype=torch.float64)
    expected = torch.linalg.solve(system, shared["scale"] * x + penalty * theta)
    close(found, expected, rtol=1e-10, atol=1e-10)
    inputs = [*start.values(), *shared.values()]
    own, known = (torch.autograd.grad(w.sin().sum(), inputs) for w in (found, expected))
    for one, other in zip(own, known, strict=True):
        close(one, other, rtol=1e-8, atol=1e-8)


def test_without_solver_steps_the_gradient_passes_through_as_it_is() -> None:
    start = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    parts = {"first": start[:, :4], "second": start[:, 4:]}
    data = positive(6, 2), torch.randn(2, 6, dtype=torch.float64)
    shared = {"scale": torch.ones((), dtype=torch.float64)}
    way = torch.randn(2, 4, dtype=torch.float64)
    for steps, same in ((0, True), (6, False)):
        loop = descent(0.1)._replace(steps=9)
        end = settle(loop, parts, shared, data, penalty=1.0, solver_steps=steps)
        (slope,) = torch.autograd.grad(end["first"], start, way)
        assert torch.equal(slope, nn.functional.pad(way, (0, 2))) is same


def test_nothing_is_kept_of_the_steps() -> None:
    start = {"w": torch.ones(2, 5, requires_grad=True)}
    for steps in (1, 30):
        loop = InnerLoop(
            lambda w, shared, x: (w["w"] * x).tanh().square().sum(),
            lambda w, slopes, shared, k: {"w": w["w"] - 0.1 * slopes["w"]},
            steps,
        )
        end = settle(loop, start, {}, torch.ones(2, 5), penalty=1.0, solver_steps=1)["w"]
        assert [tensor.shape for tensor in end.grad_fn.saved_tensors] == [(2, 5)]


def test_data_that_require_a_gradient_are_named() -> None:
    start = {"w": torch.ones(1, 2, requires_grad=True)}
    loop = InnerLoop(lambda w, s, x: (w["w"] * x).sum(), lambda w, g, s, k: w, 1)
    with pytest.raises(ValueError, match="no gradient to the data"):
        settle(loop, start, {}, torch.ones(1, 2, requires_grad=True), penalty=1.0, solver_steps=1)
