"""Where a regularised inner loop comes to rest, and the derivative of that place by the implicit function theorem.

An inner loop that minimises ``L(w, φ) + λ/2 ‖w - θ‖²`` rests where ``∇L(w*, φ) + λ (w* - θ) = 0``. How w* moves with θ
and φ follows from this equation alone, however the place was found, so no step of the loop is kept:

``(∂w*/∂θ)ᵀ v = u``, ``(∂w*/∂φ)ᵀ v = -(1/λ) ∂_φ ⟨u, ∇L(w*, φ)⟩`` with ``(I + H/λ) u = v``,

H the Hessian of L at w*. The system is solved by conjugate gradients, which need products with H only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.episode import leaves
from quickstudy.functional.kernels import full_precision, inside_transform
from quickstudy.functional.loops import (
    InnerLoop,
    Weights,
    pulled_back,
    roll,
    slopes_of,
    with_exact_attention,
)


def conjugate_gradient(product: Callable[[Tensor], Tensor], right: Tensor, *, steps: int) -> Tensor:
    """Solve ``A u = v`` for a symmetric positive definite A that is known by its products only.

    Hestenes & Stiefel 1952, Methods of Conjugate Gradients for Solving Linear Systems, begun at u = v. The solution is
    exact after as many steps as A has different eigenvalues. A direction in which A turns out not to be positive ends
    the search, as in Steihaug 1983; what was found until then is returned.

    Args:
        product: u to A u.
        right: v, (…, width); each vector has a matrix A of its own, which ``product`` knows.
        steps: products with A, beside the first one.

    Returns:
        u, (…, width).

    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(lambda u: matrix @ u, torch.tensor([3.0, 4.0]), steps=2)
    tensor([1., 1.])
    """

    def dot(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).sum(-1, keepdim=True)

    found = right
    rest = right - product(found)
    way, size = rest, dot(rest, rest)
    for _ in range(steps):
        turned = product(way)
        curvature = dot(way, turned)
        # Tasks side by side cannot leave the loop one by one: one that is done goes nowhere from here on.
        on = (curvature > 0) & (size > 0)
        length = torch.where(on, size / curvature, 0)
        found = found + length * way
        rest = rest - length * turned
        left = dot(rest, rest)
        way = torch.where(on, rest + left / size * way, 0)
        size = left
    return found


def tied(loop: InnerLoop, penalty: float) -> InnerLoop:
    """The same loop with ``λ/2 ‖w - θ‖²`` beside its loss; its data are a pair of the loop's own data and θ.

    >>> loop = InnerLoop(lambda w, shared, x: (w["a"] * x).sum(), lambda w, g, shared, k: w, steps=1)
    >>> one = torch.ones(1)
    >>> tied(loop, 4.0).loss({"a": 3 * one}, {}, (one, {"a": one})).item()
    11.0
    """

    def loss(weights: Weights, shared: Weights, pair: Any) -> Tensor:
        data, start = pair
        far = torch.stack([(w - start[name]).square().sum() for name, w in weights.items()]).sum()
        return loop.loss(weights, shared, data) + penalty / 2 * far

    return loop._replace(loss=loss, compiled=None)


class Rest(NamedTuple):
    """What the implicit derivative knows beside its tensors."""

    loop: InnerLoop
    weights: tuple[str, ...]
    shared: tuple[str, ...]
    data: Any
    penalty: float
    solver_steps: int
    tasks_at_once: int


def settle(
    loop: InnerLoop,
    weights: Weights,
    shared: Weights,
    data: Any,
    *,
    penalty: float,
    solver_steps: int,
    tasks_at_once: int = 1,
) -> Weights:
    """Where each task rests between its loss and where it began, ``argmin_w L(w, φ) + λ/2 ‖w - θ‖²``.

    The steps of the loop find the place, without a graph; the derivative is that of the place where the loop would come
    to rest. Both are the same as far as the steps converge, for which a rate η must be below ``2 / (‖H‖ + λ)``.
    Attention runs by the kernel that has second derivatives.

    Rajeswaran et al. 2019, Meta-Learning with Implicit Gradients.

    Args:
        loop: of one task, without the penalty; every weight must move by its update.
        weights: θ, where each task begins, (task, …).
        shared: φ, what all tasks share, without a task axis.
        data: of each task, a tree of tensors (task, …).
        penalty: λ.
        solver_steps: of :func:`conjugate_gradient`; 0 takes u = v, the first-order gradient.
        tasks_at_once: tasks that go side by side by ``vmap``; 1 takes one after the other without it.

    Returns:
        Fast weights (task, …), differentiable once in θ and φ.

    Raises:
        ValueError: data that require a gradient; a call inside a function transform.

    >>> loop = InnerLoop(
    ...     lambda w, shared, x: 0.5 * (w["a"] - x).square().sum(),
    ...     lambda w, slopes, shared, k: {"a": w["a"] - 0.5 * slopes["a"]},
    ...     steps=1,
    ... )
    >>> start = torch.zeros(1, 1, requires_grad=True)
    >>> end = settle(loop, {"a": start}, {}, torch.ones(1, 1), penalty=1.0, solver_steps=1)["a"]
    >>> end.item(), torch.autograd.grad(end.sum(), start)[0].item()
    (0.5, 0.5)
    """
    if any(leaf.requires_grad for leaf in leaves(data)):
        raise ValueError(
            "The implicit derivative passes no gradient to the data of a task, which were found to require one; detach "
            "them, or descend with the strategy unroll."
        )
    if inside_transform():
        raise ValueError(
            "The implicit derivative cannot be made inside a transform such as torch.func.grad; call backward, or "
            "descend with the strategy unroll."
        )
    names = tuple(weights), tuple(shared)
    plan = Rest(with_exact_attention(loop), *names, data, penalty, solver_steps, tasks_at_once)
    found = _Implicit.apply(plan, *weights.values(), *shared.values())
    return dict(zip(weights, found, strict=True))


class _Implicit(torch.autograd.Function):
    """Inner steps without a graph, and the implicit function theorem where they end."""

    @staticmethod
    def forward(ctx: Any, plan: Rest, *tensors: Tensor) -> tuple[Tensor, ...]:
        split = len(plan.weights)
        start = dict(zip(plan.weights, tensors[:split], strict=True))
        shared = dict(zip(plan.shared, tensors[split:], strict=True))

        loop = tied(plan.loop, plan.penalty)
        data = (plan.data, start)
        end = roll(loop, start, shared, data, loop.numbers, plan.tasks_at_once)
        ctx.plan = plan
        ctx.save_for_backward(*shared.values(), *end.values())
        return tuple(end.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        plan, split = ctx.plan, len(ctx.plan.shared)
        shared = dict(zip(plan.shared, ctx.saved_tensors[:split], strict=True))
        end = dict(zip(plan.weights, ctx.saved_tensors[split:], strict=True))
        v = dict(zip(plan.weights, slopes, strict=True))

        def one(weights: Weights, data: Any, v: Weights) -> tuple[Weights, Weights]:
            return _solve(plan, weights, shared, data, v)

        with full_precision(slopes[0].device):
            u, total = pulled_back(one, end, plan.data, v, tasks_at_once=plan.tasks_at_once)
        return None, *u.values(), *total.values()


def _solve(
    plan: Rest, weights: Weights, shared: Weights, data: Any, v: Weights
) -> tuple[Weights, Weights]:
    """Slopes of ⟨v, w*⟩ of one task in where it began and in what is shared."""

    def join(tree: Weights) -> Tensor:
        return torch.cat([tree[name].flatten() for name in weights])

    def apart(flat: Tensor) -> Weights:
        parts = flat.split([value.numel() for value in weights.values()])
        pairs = zip(weights.items(), parts, strict=True)
        return {name: part.view(value.shape).to(value.dtype) for (name, value), part in pairs}

    def pull(way: Tensor, tree: Weights) -> Tensor:
        """⟨way, w + ∇L(w, φ) / λ⟩, whose slope in w is (I + H/λ) way."""
        common = {name: tree.get(f"shared {name}", value) for name, value in shared.items()}
        found = slopes_of(lambda w: plan.loop.loss(w, common, data), apart(tree["own"]))
        return way @ (tree["own"] + join(found) / plan.penalty)

    def product(way: Tensor) -> Tensor:
        return slopes_of(lambda tree: pull(way, tree), own)["own"]

    own = {"own": join(weights)}
    u = conjugate_gradient(product, join(v), steps=plan.solver_steps)
    if not shared:
        return apart(u), {}
    marked = own | {f"shared {name}": value for name, value in shared.items()}
    moved = slopes_of(lambda tree: pull(u, tree), marked)
    return apart(u), {name: -moved[f"shared {name}"] for name in shared}
