"""The gradient of many tasks or queries a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.episode import Episode, Stream, take_tasks
from quickstudy.functional.kernels import inside_transform

Batch = TypeVar("Batch", bound=Episode | Stream)


def added_up(
    loss: Callable[[Batch], Tensor],
    batch: Batch,
    parameters: Sequence[Tensor],
    *,
    tasks_at_once: int,
) -> Tensor:
    """A loss that is a mean over tasks, its gradient made a few tasks at a time and added up.

    ``∇ mean_t L_t = Σ_pieces (n_piece / n) ∇ L_piece``. Each piece's graph is gone before the next one begins; the
    gradient is computed together with the loss and handed out by ``backward``. Under float16, whose gradients must be
    scaled before they are computed, where gradients are switched off, and inside a transform such as
    ``torch.func.grad``, the whole loss is computed at once.

    Args:
        loss: of a batch of tasks or of streams, the mean of theirs.
        batch: all of them.
        parameters: what the loss is differentiated in, by ``backward`` as well.
        tasks_at_once: tasks of a piece.

    Returns:
        A scalar, differentiable once.

    >>> from quickstudy.episode import Context, Examples
    >>> part = Examples(torch.arange(4.0)[:, None], torch.zeros(4, 1), torch.ones(4, 1))
    >>> tasks = Episode(part, part, Context(*torch.zeros(3, 4, 0)))
    >>> weight = torch.ones((), requires_grad=True)
    >>> added_up(lambda e: (weight * e.query.x).mean(), tasks, [weight], tasks_at_once=3).backward()
    >>> weight.grad.item()
    1.5
    """
    if batch.tasks <= tasks_at_once or not parameters or _whole(parameters):
        return loss(batch)

    def piece(start: int) -> Tensor:
        part: Batch = take_tasks(batch, slice(start, start + tasks_at_once))
        return loss(part) * (part.tasks / batch.tasks)

    pieces = [partial(piece, start) for start in range(0, batch.tasks, tasks_at_once)]
    return summed(pieces, parameters)


def summed(
    losses: Sequence[Callable[..., Tensor]],
    parameters: Sequence[Tensor],
    between: Sequence[Tensor] = (),
    *,
    each: Callable[..., Iterable[Any]] = map,
) -> Tensor:
    """``Σ_i L_i``, each gradient made before the next loss begins, as for :func:`added_up`.

    Args:
        losses: each a function of ``between`` to a scalar.
        parameters: leaves that the losses use as they are.
        between: tensors that were computed from other tensors; their own graph is passed once, by ``backward``.
        each: calls a function with each loss, in their order, such as the ``map`` of a pool of threads.

    Returns:
        A scalar, differentiable once.

    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> y = x * x
    >>> summed([lambda y: y, lambda y: 3 * y], [], [y]).backward()
    >>> x.grad.item()
    16.0
    """
    known = [*between, *parameters]
    if _whole(known):
        return torch.stack([loss(*between) for loss in losses]).sum()
    total: Tensor = _Summed.apply(losses, each, len(between), *known)
    return total


def _whole(tensors: Sequence[Tensor]) -> bool:
    """Whether gradients are not wanted, are a transform's, or may not be made before the whole loss is scaled."""
    device = tensors[0].device.type
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return half or not torch.is_grad_enabled() or inside_transform()


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        losses: Sequence[Callable[..., Tensor]],
        each: Callable[..., Iterable[Any]],
        between: int,
        *tensors: Tensor,
    ) -> Tensor:
        own = [t.detach().requires_grad_(t.requires_grad) for t in tensors[:between]]
        wanted = [t for t in (*own, *tensors[between:]) if t.requires_grad]
        total: Tensor | None = None
        gradients: list[Tensor | None] = [None] * len(wanted)

        def one(loss: Callable[..., Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            with torch.enable_grad():
                part = loss(*own)
                return part.detach(), torch.autograd.grad(part, wanted, allow_unused=True)

        for part, slopes in each(one, losses):
            total = part if total is None else total + part
            for at, slope in enumerate(slopes):
                if slope is not None:
                    known = gradients[at]
                    gradients[at] = slope if known is None else known + slope
        found = iter(gradients)
        ctx.gradients = [next(found) if tensor.requires_grad else None for tensor in tensors]
        assert total is not None
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(g if g is None else g * upstream for g in ctx.gradients)
