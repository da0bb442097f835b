"""The classical rules of a learner of tables: fitted to a support set, judged by what they say without each example."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.episode import Context, Examples
from quickstudy.learners import classical
from quickstudy.nn.tables import Cells, Columns, cells_of, columns_of

TRUST = 4.0
"""How firmly the calibration of a rule holds to where it begins, in examples."""


class Seen(NamedTuple):
    """What every step of reading a support set needs of it."""

    columns: Columns
    cells: Cells
    targets: Tensor
    """(task, example, way): 0 or 1 for classes, values about their mean in deviations; 0 where masked"""
    counts: Tensor
    """Examples of each class, or of the task, (task, way)"""
    mask: Tensor
    """bool (task, example)"""
    of_values: bool
    """Whether the targets are values, not classes."""


class Rules(NamedTuple):
    """Rules fitted to a support set."""

    linear: Tensor
    """Weights of the logistic rules, (task, way, rule, column + 1); no rules where values are predicted"""
    dual: Tensor
    """Weights of the support in the kernel rules, (task, way, rule, example)"""
    lines: Tensor
    """What makes evidence of a rule's answer, ``a + b f``, (task, way, rule, 2)"""


def count_of(*, of_values: bool, noises: tuple[float, ...] = classical.NOISES) -> int:
    """How many rules there are."""
    kernel_rules = classical.KERNELS * len(noises)
    return kernel_rules if of_values else kernel_rules + 2 * len(classical.PENALTIES)


def seen_of(examples: Examples, context: Context, *, of_values: bool) -> Seen:
    """A support set, its columns and targets measured by itself."""
    x, y, mask = examples
    columns = columns_of(x, mask)
    way = context.classes.shape[1]
    exists = mask[..., None].to(x.dtype)
    if of_values:
        mean, scale = measure_of(y.to(x.dtype), mask)
        targets = (y.to(x.dtype) - mean) / scale * exists
        counts = exists.sum(1).expand(-1, way)
    else:
        targets = F.one_hot(y, way).to(x.dtype) * exists
        counts = targets.sum(1)
    return Seen(columns, cells_of(x, columns), targets, counts, mask, of_values)


def measure_of(y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the support's values, each (task, 1, way); 0 and 1 where there are none."""
    exists = mask[..., None]
    count = exists.sum(1, keepdim=True).clamp(min=1)
    # Divided by the largest first, so that no square overflows or vanishes.
    size = torch.where(exists, y, 0).abs().amax(1, keepdim=True) if y.shape[1] else y.sum(1, True)
    size = torch.where(size > 0, size, 1)
    y = torch.where(exists, y, 0) / size
    mean = y.sum(1, keepdim=True) / count
    variance = (torch.where(exists, y - mean, 0) ** 2).sum(1, keepdim=True) / count
    return mean * size, torch.where(variance > 0, variance.sqrt() * size, 1)


def fit(seen: Seen, noises: tuple[float, ...] = classical.NOISES) -> tuple[Rules, Tensor]:
    """The rules of a support set, and their left-out evidence (task, way, rule, example).

    Args:
        seen: the support set.
        noises: of the kernel rules, as in :func:`quickstudy.learners.classical.kernel_ridge`.
    """
    cells, targets, mask = seen.cells, seen.targets, seen.mask
    kernel = classical.kernels(cells, cells, seen.columns.useful)
    share = targets.sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)
    about = torch.zeros_like(share) if seen.of_values else share
    dual, shift, left_out = classical.kernel_ridge(
        kernel, (targets - about) * mask[..., None], mask, noises
    )
    if seen.of_values:
        lines = torch.stack([-shift, torch.ones_like(shift)], -1)
        linear = dual.new_zeros(*dual.shape[:2], 0, cells.plain.shape[2] + 1)
        return Rules(linear, dual, lines), left_out
    fits = [classical.logistic(each, targets, mask) for each in (cells.plain, cells.ranked)]
    linear, evidence = (torch.cat(parts, 2) for parts in zip(*fits, strict=True))
    # A probability moves by p (1 - p) where log-odds move by one.
    p = frequency(seen)[..., None]
    own = evidence.new_zeros(linear.shape[:3])
    offset = torch.cat([own, p.logit().expand_as(shift)], 2)
    slope = torch.cat([own + 1, (1 / (p * (1 - p))).expand_as(shift)], 2)
    evidence = torch.cat([evidence, left_out], 2)
    lines = classical.calibrated(evidence, targets, mask, offset, slope, trust=TRUST)
    a, b = lines.unbind(-1)
    evidence = a[..., None] + b[..., None] * evidence
    # Queries are answered without subtracting the shift of a kernel rule.
    a = a - F.pad(shift, (linear.shape[2], 0)) * b
    return Rules(linear, dual, torch.stack([a, b], -1)), evidence


def frequency(seen: Seen) -> Tensor:
    """How frequent each class is, (task, way), never 0 or 1."""
    return (seen.counts + 0.5) / (seen.mask.sum(1)[:, None] + 1)


def left_out_loss(left_out: Tensor, seen: Seen) -> Tensor:
    """What left-out evidence costs over all examples, in nats, (task, rule)."""
    targets, exists = seen.targets.transpose(1, 2)[:, :, None], seen.mask[:, None, None]
    if seen.of_values:
        count = seen.mask.sum(1, keepdim=True)
        error = torch.where(exists, (left_out - targets) ** 2, 0).sum((1, 3))
        return count * ((error + 1e-3) / (count * left_out.shape[1] + 1)).log() / 2
    wrong = F.softplus((1 - 2 * targets) * left_out)
    asked = exists & (seen.counts > 0)[..., None, None]
    # With two classes the second says again what the first said.
    return torch.where(asked, wrong, 0).sum((1, 3)) / 2


def doubt(left_out: Tensor, mixture: Tensor, seen: Seen) -> Tensor:
    """How far left-out answers are from values, (task, way), drawn to how far the mean is; 1 for classes."""
    if not seen.of_values:
        return torch.ones_like(seen.counts)
    mixed = (mixture[:, None, :, None] * left_out).sum(2).transpose(1, 2)
    error = torch.where(seen.mask[..., None], (mixed - seen.targets) ** 2, 0).sum(1)
    return ((error + 1) / (seen.counts + 1)).sqrt()


def evidence_of(rules: Rules, seen: Seen, cells: Cells) -> Tensor:
    """What each rule says of queries, (task, way, rule, query)."""
    kernel = classical.kernels(cells, seen.cells, seen.columns.useful)
    kernel = kernel.masked_fill(~seen.mask[:, None, None], 0)
    noises = rules.dual.shape[2] // classical.KERNELS
    dual = rules.dual.unflatten(2, (-1, noises)).permute(0, 2, 4, 1, 3).flatten(3)
    answers = (kernel @ dual).unflatten(3, (-1, noises)).permute(0, 3, 1, 4, 2).flatten(2, 3)
    if not seen.of_values:
        linear = [
            weights[..., :-1] @ each.transpose(1, 2)[:, None] + weights[..., -1:]
            for weights, each in zip(
                rules.linear.chunk(2, 2), (cells.plain, cells.ranked), strict=True
            )
        ]
        answers = torch.cat([*linear, answers], 2)
    a, b = rules.lines.unbind(-1)
    return a[..., None] + b[..., None] * answers
