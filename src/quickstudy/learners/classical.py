"""Classical answers to a table in closed form, and what each would have said of a support example without it.

What a model says of an example that it was fitted to is no measure of what it says of others. Leaving one example out
has a closed form for kernel ridge regression and a very good approximation for logistic regression, so one fit gives
both the answers and their honest score.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.nn.tables import Cells

PENALTIES = (0.3, 3.0, 30.0)
"""Of logistic regression; 1 / C of scikit-learn."""
NEWTON_STEPS = 8
NOISES = (0.03, 0.3)
"""Variance of the noise in kernel ridge regression, in units of the kernel's diagonal."""
KERNELS = 5
BUMPS = 7
"""Bumps over the ranks of a column, out of which the additive kernel is made."""
LEAST_CURVATURE = 1e-4
"""Below it a certain answer would let a Newton step run away."""


def logistic(
    features: Tensor, targets: Tensor, mask: Tensor, penalties: tuple[float, ...] = PENALTIES
) -> tuple[Tensor, Tensor]:
    """Logistic regression of each class against the rest, and its left-out answers to the support.

    ``w = argmin Σ_i log(1 + exp(-±η_i)) + λ/2 ‖w‖²`` with ``η = wᵀ x + b`` by Newton's method; without example i its
    evidence would be ``η_i + g_i (p_i - t_i) / (1 - g_i p_i (1 - p_i))`` with ``g_i = x_iᵀ H⁻¹ x_i``.

    Rad & Maleki 2020, A scalable estimate of the out-of-sample prediction error via approximate leave-one-out. Differs
    from the paper: the bias stays that of all examples, because leaving one out moves it against the one left out.

    Args:
        features: (task, example, column).
        targets: 0 or 1, (task, example, way).
        mask: bool (task, example).
        penalties: λ.

    Returns:
        Weights with the bias behind them, (task, way, penalty, column + 1), and left-out evidence (task, way, penalty,
        example).
    """
    tasks, _, columns = features.shape
    way, count = targets.shape[2], len(penalties)
    exists = mask[:, None, None].to(features.dtype)
    rows = torch.cat([features, torch.ones_like(features[..., :1])], -1) * mask[..., None]
    rows = rows[:, None, None]
    wanted = targets.transpose(1, 2)[:, :, None]
    ridge = features.new_tensor(penalties)[:, None].expand(count, columns + 1).clone()
    ridge[:, -1] = 1e-3  # a bias that is all but free, and a solution where a class has no examples
    weights = features.new_zeros(tasks, way, count, columns + 1)
    for _ in range(NEWTON_STEPS):
        p = (rows @ weights[..., None])[..., 0].sigmoid()
        curvature = (p * (1 - p)).clamp(min=LEAST_CURVATURE) * exists
        hessian = rows.transpose(-1, -2) @ (rows * curvature[..., None]) + ridge.diag_embed()
        slope = (rows.transpose(-1, -2) @ ((p - wanted) * exists)[..., None])[..., 0]
        step = torch.linalg.solve_ex(hessian, slope + ridge * weights)[0]
        weights = weights - step
    evidence = (rows @ weights[..., None])[..., 0]
    p = evidence.sigmoid()
    curvature = (p * (1 - p)).clamp(min=LEAST_CURVATURE) * exists
    # Of the columns alone, about their weighted mean: the bias is not left out.
    total = curvature.sum(-1, keepdim=True).clamp(min=LEAST_CURVATURE)
    centre = (curvature[..., None] * rows[..., :-1]).sum(-2, keepdim=True) / total[..., None]
    centred = (rows[..., :-1] - centre) * exists[..., None]
    hessian = centred.transpose(-1, -2) @ (centred * curvature[..., None])
    hessian = hessian + ridge[:, :-1].diag_embed()
    solved = torch.linalg.solve_ex(hessian, centred.transpose(-1, -2))[0]
    leverage = (centred * solved.transpose(-1, -2)).sum(-1)
    left_out = evidence + leverage * (p - wanted) / (1 - leverage * curvature).clamp(min=0.02)
    return weights, left_out


def kernels(cells: Cells, others: Cells, useful: Tensor) -> Tensor:
    """How alike rows of tables are, by five measures, each (task, row, other) with 1 or about 1 on the diagonal.

    Two linear ones, of plain and of ranked columns; one that adds up what single columns say; a Gaussian one; and one
    that falls with the sum of differences in rank, which is that of a forest of random trees (Balog et al. 2016, The
    Mondrian Kernel).

    Args:
        cells: (task, row, column).
        others: (task, other, column).
        useful: bool (task, column).

    Returns:
        (task, kernel, row, other).
    """
    columns = useful.sum(-1)[:, None, None].clamp(min=1).to(cells.plain.dtype)
    plain, other = cells.plain, others.plain
    dot = plain @ other.transpose(1, 2) / columns
    square, other_square = ((each * each).sum(-1) for each in (plain, other))
    distance = (square[..., None] + other_square[:, None]) / columns - 2 * dot
    ranked_dot = cells.ranked @ others.ranked.transpose(1, 2) / columns
    bumps, other_bumps = _bumps(cells, useful), _bumps(others, useful)
    additive = bumps @ other_bumps.transpose(1, 2) / columns
    share, other_share = (
        torch.special.ndtr(each.ranked) * useful[:, None] for each in (cells, others)
    )
    trees = (-3 * torch.cdist(share, other_share, p=1) / columns).exp()
    return torch.stack([dot, ranked_dot, additive, (-distance / 2).exp(), trees], 1)


def _bumps(cells: Cells, useful: Tensor) -> Tensor:
    """Smooth bumps over the ranks of each column, (task, row, column · bump)."""
    centres = torch.linspace(0, 1, BUMPS, dtype=cells.ranked.dtype, device=cells.ranked.device)
    share = torch.special.ndtr(cells.ranked)[..., None]
    bumps = (-0.5 * ((share - centres) * (BUMPS - 1)) ** 2).exp()
    return (bumps * useful[:, None, :, None]).flatten(2) / math.sqrt(BUMPS / 2.5)


def kernel_ridge(
    kernel: Tensor, targets: Tensor, mask: Tensor, noises: tuple[float, ...] = NOISES
) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel ridge regression about the mean, and its left-out answers to the support.

    ``f(x) = m + Σ_i a_i k(x, x_i) - c`` with ``a = (K̃ + λ I)⁻¹ (t - m)``, K̃ the kernel about its mean, in which
    ``Σ a_i = 0``; without example i the answer to it would be ``t_i - a_i / [(K̃ + λ I)⁻¹]_ii``.

    Args:
        kernel: (task, kernel, example, example).
        targets: (task, example, way), about their mean m and 0 where masked.
        mask: bool (task, example).
        noises: λ.

    Returns:
        a (task, way, kernel · noise, example), c (task, way, kernel · noise), and left-out answers about the mean
        (task, way, kernel · noise, example).
    """
    exists = mask.to(kernel.dtype)
    both = exists[:, None, :, None] * exists[:, None, None]
    share = exists / exists.sum(-1, keepdim=True).clamp(min=1)
    rows = (kernel * both) @ share[:, None, :, None]
    whole = share[:, None, None] @ rows
    centred = (kernel - rows - rows.transpose(-1, -2) + whole) * both
    identity = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    noise = kernel.new_tensor(noises)[:, None, None]
    # Padding answers for nobody, whatever is on its diagonal.
    padded = centred[:, :, None] + identity * (noise + (1 - exists)[:, None, None, None])
    inverse = torch.linalg.inv_ex(padded.flatten(1, 2))[0]
    dual = inverse @ targets[:, None]
    left_out = targets[:, None] - dual / inverse.diagonal(dim1=-2, dim2=-1)[..., None]
    shift = (dual.unflatten(1, (-1, len(noises))) * rows[:, :, None]).sum(-2).flatten(1, 2)
    return dual.permute(0, 3, 1, 2), shift.transpose(1, 2), left_out.permute(0, 3, 1, 2)


def calibrated(
    evidence: Tensor, targets: Tensor, mask: Tensor, offset: Tensor, slope: Tensor, *, trust: float
) -> Tensor:
    """The line ``a + b e`` that makes log-odds of left-out evidence e.

    Platt 1999, Probabilistic outputs for support vector machines. Differs from the paper: a and b are drawn to where
    one would begin, as by ``trust`` examples' worth of doubt, and b stays positive.

    Args:
        evidence: (task, way, rule, example).
        targets: 0 or 1, (task, example, way).
        mask: bool (task, example).
        offset: where a begins, (task, way, rule).
        slope: where b begins, likewise.
        trust: how firmly.

    Returns:
        a and b, (task, way, rule, 2).
    """
    exists = mask[:, None, None].to(evidence.dtype)
    wanted = targets.transpose(1, 2)[:, :, None]
    e = evidence * slope[..., None]
    start = offset
    a, b = offset, torch.ones_like(offset)
    for _ in range(NEWTON_STEPS):
        p = (a[..., None] + b[..., None] * e).sigmoid()
        error = (p - wanted) * exists
        curvature = (p * (1 - p)).clamp(min=LEAST_CURVATURE) * exists
        slope_a = error.sum(-1) + trust * (a - start) / 4
        slope_b = (error * e).sum(-1) + trust * (b - 1)
        aa = curvature.sum(-1) + trust / 4
        bb = (curvature * e * e).sum(-1) + trust
        ab = (curvature * e).sum(-1)
        size = aa * bb - ab * ab
        a, b = (
            a - (bb * slope_a - ab * slope_b) / size,
            (b - (aa * slope_b - ab * slope_a) / size).clamp(min=0.05),
        )
    return torch.stack([a, b * slope], -1)
