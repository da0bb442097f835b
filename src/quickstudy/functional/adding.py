"""The gradient of many tasks a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.episode import Episode, take_tasks


def added_up(
    loss: Callable[[Episode], Tensor],
    episode: Episode,
    parameters: Sequence[Tensor],
    *,
    tasks_at_once: int,
) -> Tensor:
    """A loss that is a mean over tasks, its gradient made a few tasks at a time and added up.

    ``∇ mean_t L_t = Σ_pieces (n_piece / n) ∇ L_piece``. Each piece's graph is gone before the next one begins; the
    gradient is computed together with the loss and handed out by ``backward``. Under float16, whose gradients must be
    scaled before they are computed, and where gradients are switched off, the whole loss is computed at once.

    Args:
        loss: of a batch of tasks, the mean of theirs.
        episode: all tasks.
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
    device = parameters[0].device.type if parameters else "cpu"
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    if episode.tasks <= tasks_at_once or not torch.is_grad_enabled() or not parameters or half:
        return loss(episode)
    total: Tensor = _AddedUp.apply(loss, episode, tasks_at_once, *parameters)
    return total


class _AddedUp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Callable[[Episode], Tensor],
        episode: Episode,
        size: int,
        *parameters: Tensor,
    ) -> Tensor:
        total: Tensor | None = None
        gradients: list[Tensor | None] = [None] * len(parameters)
        for start in range(0, episode.tasks, size):
            piece: Episode = take_tasks(episode, slice(start, start + size))
            with torch.enable_grad():
                part = loss(piece) * (piece.tasks / episode.tasks)
                slopes = torch.autograd.grad(part, parameters, allow_unused=True)
            total = part.detach() if total is None else total + part.detach()
            for at, slope in enumerate(slopes):
                if slope is not None:
                    known = gradients[at]
                    gradients[at] = slope if known is None else known + slope
        ctx.gradients = gradients
        assert total is not None
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(g if g is None else g * upstream for g in ctx.gradients)
