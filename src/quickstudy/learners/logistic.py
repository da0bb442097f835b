"""Multinomial logistic regression of many tasks at once: fitted by Newton, differentiated where that comes to rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.episode import Context, Examples
from quickstudy.functional import conjugate_gradient
from quickstudy.learners.any_labels import one_sided
from quickstudy.learners.metric import UNSEEN

PRODUCTS = 12
"""Products with the Hessian for one Newton step. It is near the identity in the coordinates that are used, and what a
step leaves undone is done by the next."""

LAST_PRODUCTS = 32
"""Products for the derivative, which nothing puts right afterwards."""

HALVINGS = 8
"""How often a Newton step that does harm is halved at most."""


def fit_logistic(
    examples: Examples,
    context: Context,
    *,
    penalty: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression to each task of a batch by damped Newton steps.

    ``min_{W, b} Σ_i -n_i log softmax(Wᵀ x_i + b)_{y_i} + λ/2 ‖W‖²``, b without a penalty, over the classes that have
    examples. The derivative is that of the place where the steps come to rest, by the implicit function theorem, so no
    step is kept: ``dw = -H⁻¹ d∇`` with ∇ the gradient of the objective and H its Hessian.

    With fewer examples than features the steps are taken in the space that the examples span, which they cannot leave.
    Each step solves ``H u = ∇`` by conjugate gradients, in coordinates where H is the identity as long as all classes
    are equally likely.

    Args:
        examples: x are features (task, example, width), and the mask says for how many an example counts, n; 0 for
            padding.
        context: which classes exist.
        penalty: λ beside the *sum* of the examples' losses; 1 / C of scikit-learn.
        steps: most Newton steps.

    Returns:
        Weights (task, width, way) and bias (task, 1, way), differentiable in the features and n. The bias of a class
        without examples is :data:`quickstudy.learners.metric.UNSEEN`, for the best is minus infinity.
    """
    return fit_targets(examples.x, targets_of(examples, context), penalty=penalty, steps=steps)


def targets_of(examples: Examples, context: Context) -> Tensor:
    """For how many examples of each class an example counts: as the mask says for its own, 0 for others.

    Args:
        examples: x are features, whose kind of number the answer has.
        context: which classes exist.

    Returns:
        (task, example, way)
    """
    member = F.one_hot(examples.y, context.classes.shape[1]).to(examples.x.dtype)
    return member * examples.mask[..., None].to(member.dtype)


def fit_targets(
    features: Tensor,
    target: Tensor,
    *,
    penalty: float,
    steps: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The same where an example may count for several classes, for each as much as is said.

    ``min_{W, b} Σ_i Σ_c -t_ic log softmax(Wᵀ x_i + b)_c + λ/2 ‖W‖²``

    Args:
        features: x, (task, example, width).
        target: t, none of them negative, (task, example, way); all 0 for padding.
        penalty: λ.
        steps: most Newton steps.
        start: weights and bias that may be near, to begin with; it changes the way and not the end.

    Returns:
        As of :func:`fit_logistic`, differentiable in the features and targets.
    """
    share = target.sum(2, keepdim=True)
    exists = share > 0
    count = exists.sum(1, keepdim=True).clamp(min=1).to(features.dtype)
    # A shift of the features is absorbed by the bias, and centred rows do not couple it with the weights.
    centre = torch.where(exists, features, 0).sum(1, keepdim=True) / count
    rows = torch.where(exists, features - centre, 0)
    seen = target.sum(1, keepdim=True) > 0

    def slope_of(rows: Tensor, values: Tensor) -> Tensor:
        """∇, (task, width + 1, way), of weights and below them the bias."""
        error = _errors(rows @ values[:, :-1] + values[:, -1:], target, share, seen)
        slope = rows.transpose(1, 2) @ error + penalty * values[:, :-1]
        return torch.cat([slope, error.sum(1, keepdim=True)], 1)

    with torch.no_grad():
        span = Span.of(rows)
        problem = _Problem.of(span.rows, target, share, seen, penalty)
        begin = None
        if start is not None:
            weights, bias = (value.masked_fill(~seen, 0) for value in start)
            begin = span.inside(torch.cat([weights, bias + centre @ weights], 1))
        inside = _newton(problem, steps, begin)
        solve = problem.solver(problem.logits(inside))
        found = span.outside(inside)

    def turned(slope: Tensor) -> Tensor:
        """H⁻¹ of what the derivative passes back; beyond the span of the examples, H is λ."""
        within = span.inside(slope)
        beyond = slope - span.outside(within)
        beyond[:, -1] = 0
        return span.outside(solve(within, LAST_PRODUCTS)) + beyond / penalty

    if rows.requires_grad or target.requires_grad:
        slope = slope_of(rows, found)
        slope.register_hook(turned)
        # Worth nothing, but for its derivative.
        found = found - (slope - slope.detach())
    weights, bias = found[:, :-1], found[:, -1:]
    return weights, (bias - centre @ weights).masked_fill(~seen, UNSEEN)


def fit_labels(
    examples: Examples, context: Context, *, penalty: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression to each label of each task, all at once.

    ``min_{w_l, b_l} Σ_i n_i log(1 + exp(-±(w_lᵀ x_i + b_l))) + λ/2 ‖w_l‖²``, which is that of two classes with
    ``w = w_1 - w_0`` and twice the penalty, for at its least ``w_1 = -w_0`` and so ``‖w_0‖² + ‖w_1‖² = ‖w‖² / 2``.

    Args:
        examples: x are features (task, example, width), y 0 and 1 (task, example, label), and the mask says for how
            many an example counts, n; 0 for padding.
        context: which labels exist.
        penalty: λ; 1 / C of scikit-learn.
        steps: most Newton steps.

    Returns:
        Weights (task, width, label) and bias (task, 1, label), differentiable in the features and n. Those of a label
        that no example has, or all have, are :func:`one_sided`.
    """
    (tasks, count, width), way = examples.x.shape, context.classes.shape[1]

    def each_label(tensor: Tensor) -> Tensor:
        return tensor[:, None].expand(tasks, way, *tensor.shape[1:]).flatten(0, 1)

    counted = examples.mask.to(examples.x.dtype)
    alone = Examples(
        each_label(examples.x),
        examples.y.transpose(1, 2).reshape(tasks * way, count).long(),
        each_label(counted),
    )
    two = torch.ones(tasks * way, 2, dtype=torch.bool, device=counted.device)
    weights, bias = fit_logistic(
        alone, context._replace(classes=two), penalty=2 * penalty, steps=steps
    )
    weights = (weights[..., 1] - weights[..., 0]).view(tasks, way, width)
    bias = (bias[..., 1] - bias[..., 0]).view(tasks, 1, way)
    have, lack = (
        (each.to(counted.dtype) * counted[..., None]).sum(1)[:, None]
        for each in (examples.y, 1 - examples.y)
    )
    return weights.transpose(1, 2), one_sided(bias, have, lack)


def _errors(logits: Tensor, target: Tensor, share: Tensor, seen: Tensor) -> Tensor:
    """Probabilities less targets, as often as an example counts, (task, example, way)."""
    return _probabilities(logits, seen) * share - target


def _probabilities(logits: Tensor, seen: Tensor) -> Tensor:
    """Over the classes that have examples; evenly distributed where none has any."""
    none = ~seen.any(-1, keepdim=True)
    return logits.masked_fill(~(seen | none), -math.inf).softmax(-1)


class Span(NamedTuple):
    """Rows in coordinates of the space that they span, ``x_i = Q r_i``; the rows themselves where they are many."""

    rows: Tensor
    """r, (task, example, coordinate)"""
    basis: Tensor | None
    """Q, orthonormal, (task, width, coordinate)"""

    @classmethod
    def of(cls, rows: Tensor) -> Span:
        """The span of rows (task, example, width)."""
        if rows.shape[1] >= rows.shape[2]:
            return cls(rows, None)
        basis, triangle = torch.linalg.qr(rows.transpose(1, 2))
        return cls(triangle.transpose(1, 2), basis)

    def inside(self, values: Tensor) -> Tensor:
        """Weights and bias (task, width + 1, way) to (task, coordinate + 1, way)."""
        if self.basis is None:
            return values
        return torch.cat([self.basis.transpose(1, 2) @ values[:, :-1], values[:, -1:]], 1)

    def outside(self, values: Tensor) -> Tensor:
        """Weights and bias (task, coordinate + 1, way) to (task, width + 1, way)."""
        if self.basis is None:
            return values
        return torch.cat([self.basis @ values[:, :-1], values[:, -1:]], 1)


class _Problem(NamedTuple):
    """The objective of each task, and the coordinates in which its Hessian is near the identity.

    ``P = c Σ_i n_i r_i r_iᵀ + Λ = L Lᵀ`` with Λ the penalty and c = 1 / way, the curvature of a softmax whose classes
    are equally likely; ``H = L (1 + Zᵀ (D - c) Z) Lᵀ`` with ``Z = R L⁻ᵀ`` and D the curvature of each example.
    """

    rows: Tensor
    """r_i with a one behind it, (task, example, coordinate + 1)"""
    target: Tensor
    share: Tensor
    """n_i, (task, example, 1)"""
    seen: Tensor
    ridge: Tensor
    """Λ, (coordinate + 1, 1); zero for the bias"""
    curvature: Tensor
    """c, (task, 1, 1)"""
    factor: Tensor
    """L, (task, coordinate + 1, coordinate + 1)"""
    whitened: Tensor
    """Zᵀ, (task, coordinate + 1, example)"""

    @classmethod
    def of(
        cls, rows: Tensor, target: Tensor, share: Tensor, seen: Tensor, penalty: float
    ) -> _Problem:
        exists = share > 0
        rows = torch.cat([rows, exists.to(rows.dtype)], 2)
        ridge = rows.new_full((rows.shape[2], 1), penalty)
        ridge[-1] = 0
        curvature = 1 / seen.sum(2, keepdim=True).clamp(min=1).to(rows.dtype)
        matrix = curvature * (rows.transpose(1, 2) @ (share * rows)) + ridge.diagflat()
        # A task without examples has no curvature in the bias, and rounding may be more than a small penalty.
        none = (~exists.any(1, keepdim=True)).to(rows.dtype)
        largest = matrix.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        least = 4 * rows.shape[2] * torch.finfo(rows.dtype).eps * largest
        more = none + (least - penalty).clamp(min=0)
        matrix = matrix + more * torch.eye(rows.shape[2], device=rows.device).to(rows)
        factor = torch.linalg.cholesky(matrix)
        whitened = torch.linalg.solve_triangular(factor, rows.transpose(1, 2), upper=False)
        return cls(rows, target, share, seen, ridge, curvature, factor, whitened)

    def logits(self, values: Tensor) -> Tensor:
        return self.rows @ values

    def slope(self, logits: Tensor, values: Tensor) -> Tensor:
        """∇, (task, coordinate + 1, way)"""
        error = _errors(logits, self.target, self.share, self.seen)
        return self.rows.transpose(1, 2) @ error + self.ridge * values

    def objective(self, logits: Tensor, values: Tensor) -> Tensor:
        """(task,)"""
        log_p = logits.masked_fill(~self.seen, -math.inf).log_softmax(-1)
        loss = -(self.target * torch.where(self.target > 0, log_p, 0)).sum((-2, -1))
        return loss + (self.ridge * values * values).sum((-2, -1)) / 2

    def solver(self, logits: Tensor) -> Callable[[Tensor, int], Tensor]:
        """``v → H⁻¹ v`` with H at some logits, for v whose classes add up to zero; by so many products with H."""
        chances = _probabilities(logits, self.seen)
        shape = (len(logits), self.rows.shape[2], logits.shape[2])
        whitened, classes = self.whitened, self.seen.sum(2, keepdim=True).clamp(min=1)

        def mean_of_seen(each: Tensor) -> Tensor:
            return (each * self.seen).sum(2, keepdim=True) / classes

        def product(flat: Tensor) -> Tensor:
            u = flat.view(shape)
            moves = whitened.transpose(1, 2) @ u
            weighted = chances * moves
            # A shift of all classes alike is no part of ∇; in the bias it has no curvature at all. It has c here, and
            # what rounding makes of it is taken out at the end.
            apart = (moves - mean_of_seen(moves)) * self.seen
            bent = weighted - chances * weighted.sum(-1, keepdim=True) - self.curvature * apart
            return (u + whitened @ (self.share * bent)).flatten(1)

        def solve(slope: Tensor, products: int) -> Tensor:
            right = torch.linalg.solve_triangular(self.factor, slope, upper=False)
            u = conjugate_gradient(product, right.flatten(1), steps=products).view(shape)
            step = torch.linalg.solve_triangular(self.factor.transpose(1, 2), u, upper=True)
            return step - self.seen * mean_of_seen(step)

        return solve


def _newton(problem: _Problem, steps: int, start: Tensor | None = None) -> Tensor:
    """Where the objective is least, (task, coordinate + 1, way); sought from zero, or from where one says."""
    values = start
    if values is None:
        values = problem.rows.new_zeros(*problem.factor.shape[:2], problem.target.shape[2])
    logits = problem.logits(values)
    objective = problem.objective(logits, values)
    precision = torch.finfo(values.dtype).eps
    for _ in range(steps):
        slope = problem.slope(logits, values)
        step = problem.solver(logits)(slope, PRODUCTS)
        moved, length = problem.logits(step), torch.ones_like(slope[:, :1, :1])
        slack = objective + 64 * precision * (1 + objective)
        for _ in range(HALVINGS):
            ahead = logits - length * moved, values - length * step
            reached = problem.objective(*ahead)
            harm = reached > slack
            if not bool(harm.any()):
                break
            length = torch.where(harm[:, None, None], length / 2, length)
        decrement = (slope * step).sum((1, 2))
        logits, values = ahead
        if bool((decrement <= precision * (1 + objective)).all()):
            break
        objective = reached
    return values
