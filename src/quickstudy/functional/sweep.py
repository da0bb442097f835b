"""The derivative of an inner loop by a sweep backwards over its steps, which keeps weights and no graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.functional.kernels import inside_transform, same_autocast
from quickstudy.functional.loops import InnerLoop, Weights, one_step, pulled_back, roll, slopes_of


class Plan(NamedTuple):
    """What a sweep knows beside its tensors."""

    loop: InnerLoop
    weights: tuple[str, ...]
    shared: tuple[str, ...]
    data: Any
    strategy: str
    tasks_at_once: int

    @property
    def pieces(self) -> list[range]:
        """The steps; the weights at the begin of each piece are kept, and those within it are made again.

        On the way back what was kept for later pieces is gone, so earlier ones may be longer, by a step each.
        """
        left, found = self.loop.numbers, []
        length = math.ceil((math.sqrt(8 * len(left) + 1) - 1) / 2) if self.strategy == "sqrt" else 1
        while left:
            found.append(left[:length])
            left, length = left[length:], max(1, length - 1)
        return found


class Sweep(torch.autograd.Function):
    """Inner steps without a graph, and the sweep back through them."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        split = len(plan.weights)
        weights = dict(zip(plan.weights, tensors[:split], strict=True))
        shared = dict(zip(plan.shared, tensors[split:], strict=True))
        ctx.plan, ctx.autocast = plan, same_autocast(tensors[0].device.type)
        # Saved tensors would all stay until the whole way back is done.
        ctx.kept = []
        for steps in plan.pieces:
            ctx.kept.append({name: value.detach() for name, value in weights.items()})
            weights = _onward(plan, weights, shared, steps)
        ctx.save_for_backward(*shared.values())
        return tuple(weights.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        if len(ctx.kept) < len(plan.pieces):
            raise RuntimeError(
                f"The strategy {plan.strategy!r} lets go of its weights on the way back, and was asked for a "
                "gradient a second time; ask for all gradients at once, or choose the strategy unroll."
            )
        common = dict(zip(plan.shared, ctx.saved_tensors, strict=True))
        v = dict(zip(plan.weights, slopes, strict=True))
        total = {name: torch.zeros_like(value) for name, value in common.items()}
        pull = _pull_by_differences if plan.strategy == "fd" else _pull
        with ctx.autocast():
            for steps in reversed(plan.pieces):
                path = [ctx.kept.pop()]
                for k in steps[:-1]:
                    path.append(_onward(plan, path[-1], common, range(k, k + 1)))
                for k in reversed(steps):
                    at = path.pop()
                    one = partial(pull, plan.loop, k, common)
                    pieces = (
                        partial(_pull_compiled, plan, k, common) if plan.loop.compiled else None
                    )
                    v, parts = pulled_back(
                        one, at, plan.data, v, tasks_at_once=plan.tasks_at_once, pieces=pieces
                    )
                    total = {name: value + parts[name] for name, value in total.items()}
        return None, *v.values(), *total.values()


def _onward(plan: Plan, weights: Weights, shared: Weights, steps: range) -> Weights:
    """Some steps of every task, without a graph."""
    if plan.loop.compiled is None:
        return roll(plan.loop, weights, shared, plan.data, steps, plan.tasks_at_once)
    shared = {name: value.detach().requires_grad_() for name, value in shared.items()}
    for k in steps:
        # Kernels are compiled for steps that are differentiated; others would have to be compiled as well.
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        with torch.enable_grad():
            weights = roll(
                plan.loop, weights, shared, plan.data, range(k, k + 1), plan.tasks_at_once
            )
    return {name: value.detach() for name, value in weights.items()}


def _pull(
    loop: InnerLoop, k: int, shared: Weights, weights: Weights, data: Any, v: Weights
) -> tuple[Weights, Weights]:
    """Slopes of ⟨v, step k⟩ in the weights and in what is shared: reverse over reverse."""
    return _slopes_along(
        lambda own, common: one_step(loop, own, common, data, k), v, weights, shared
    )


def _pull_compiled(
    plan: Plan, k: int, shared: Weights, weights: Weights, data: Any, v: Weights
) -> tuple[Weights, Weights]:
    """The same of some tasks, (task, …), by compiled kernels; the slopes in what is shared are summed over them."""

    def step(own: Weights, common: Weights) -> Weights:
        return roll(plan.loop, own, common, data, range(k, k + 1), plan.tasks_at_once)

    return _slopes_along(step, v, weights, shared)


def _pull_by_differences(
    loop: InnerLoop, k: int, shared: Weights, weights: Weights, data: Any, v: Weights
) -> tuple[Weights, Weights]:
    """The same, with the Hessian's product as a central difference of slopes: first derivatives of the loss only.

    ``H ḡ ≈ (∇L(w + ε ḡ) - ∇L(w - ε ḡ)) / 2ε``; half the sum of both is the slope itself, up to ε².
    """
    none = {name: torch.zeros_like(value) for name, value in weights.items()}
    way, _ = _slopes_along(lambda slopes, _: loop.update(weights, slopes, shared, k), v, none, {})
    length = _product(way, way).sqrt()
    kind, device = length.dtype, length.device.type
    rounded = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else kind
    epsilon = 2 * max(torch.finfo(each).eps for each in (kind, rounded)) ** (1 / 3)
    epsilon = epsilon / length.clamp(min=torch.finfo(kind).tiny ** 0.5)
    ahead, behind = (
        _both_slopes(
            lambda own, common: loop.loss(own, common, data),
            {name: value + sign * epsilon * way[name] for name, value in weights.items()},
            shared,
        )
        for sign in (1, -1)
    )
    middle = {name: (ahead[0][name] + behind[0][name]) / 2 for name in weights}
    own, common = _slopes_along(lambda w, s: loop.update(w, middle, s, k), v, weights, shared)
    curved = [
        {name: value + (plus[name] - minus[name]) / (2 * epsilon) for name, value in direct.items()}
        for direct, plus, minus in zip((own, common), ahead, behind, strict=True)
    ]
    return curved[0], curved[1]


def _slopes_along(
    function: Callable[[Weights, Weights], Weights], v: Weights, weights: Weights, shared: Weights
) -> tuple[Weights, Weights]:
    """Slopes of ⟨v, function⟩ in both arguments, without a graph."""
    if inside_transform():
        return _both_slopes(lambda own, common: _product(v, function(own, common)), weights, shared)
    own, common = (
        {name: value.detach().requires_grad_() for name, value in tree.items()}
        for tree in (weights, shared)
    )
    with torch.enable_grad():
        end = function(own, common)
        moved = [name for name, value in end.items() if value.requires_grad]
        slopes = torch.autograd.grad(
            [end[name] for name in moved],
            [*own.values(), *common.values()],
            [v[name] for name in moved],
            allow_unused=True,
            materialize_grads=True,
        )
    first, second = slopes[: len(own)], slopes[len(own) :]
    return dict(zip(own, first, strict=True)), dict(zip(common, second, strict=True))


def _both_slopes(
    function: Callable[[Weights, Weights], Tensor], weights: Weights, shared: Weights
) -> tuple[Weights, Weights]:
    """Slopes of a scalar in both arguments, without a graph."""
    marked = {f"own {name}": value.detach() for name, value in weights.items()}
    marked |= {f"shared {name}": value.detach() for name, value in shared.items()}

    def part(tree: Weights, mark: str) -> Weights:
        found = {name: value for name, value in tree.items() if name.startswith(mark)}
        return {name.removeprefix(mark): value for name, value in found.items()}

    with torch.no_grad():
        slopes = slopes_of(lambda tree: function(part(tree, "own "), part(tree, "shared ")), marked)
    return part(slopes, "own "), part(slopes, "shared ")


def _product(first: Weights, second: Weights) -> Tensor:
    return torch.stack([(value * second[name]).sum() for name, value in first.items()]).sum()
