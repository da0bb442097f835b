"""Inner loops of many tasks, and the derivative of where they end in where they began.

An inner loop takes K steps ``w_{k+1} = u(w_k, g_k, φ)`` with ``g_k = ∇_w L(w_k, φ)``, where w are the fast weights of a
task and φ is what all tasks share. Five strategies give the same end and, but for the last two, the same derivative:

==========  =======================================================  ==============================
strategy    how the derivative is made                               memory, in weights of a task
==========  =======================================================  ==============================
``unroll``  by the graph of all steps                                K times a step's activations
``sweep``   backwards from the w_k, each step done again             K
``sqrt``    the same, most w_k made again from an earlier one         about √(2 K)
``fd``      as ``sweep``, second derivatives by central differences  K
``first``   slopes count as constants: first-order                   1
==========  =======================================================  ==============================

The backward sweep is ``v_k = (∂u/∂w)ᵀ v_{k+1} + H_k ḡ_k`` with ``ḡ_k = (∂u/∂g)ᵀ v_{k+1}``, H_k the Hessian of L at w_k.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from quickstudy.episode import leaves, tree_map
from quickstudy.functional.kernels import inside_transform
from quickstudy.functional.loops import InnerLoop, Weights, one_step, roll, with_exact_attention
from quickstudy.functional.norms import SeparateScales
from quickstudy.functional.sweep import Plan, Sweep

Strategy = Literal["unroll", "sweep", "sqrt", "fd", "first"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

SHARE_OF_MEMORY = 0.25
"""Of the memory of the device, what ``auto`` lets the graphs of the inner steps take."""

log = logging.getLogger(__name__)


def descend(
    loop: InnerLoop,
    weights: Weights,
    shared: Weights,
    data: Any,
    *,
    strategy: Strategy = "unroll",
    tasks_at_once: int = 1,
) -> Weights:
    """Where the inner loop of each task ends, differentiable in where it begins and in the shared weights.

    The loss may call any model of torch. Attention runs by the kernel that has second derivatives, and norms whose
    fused kernel is wrong under ``vmap`` are taken apart (:class:`quickstudy.functional.norms.SeparateScales`). The step
    of ``fd`` fits the digits of the weights and of automatic mixed precision: a loss that rounds to fewer spoils it.

    Args:
        loop: of one task.
        weights: where each task begins, (task, …).
        shared: what all tasks share, without a task axis.
        data: of each task, a tree of tensors (task, …).
        strategy: one of the table above; it makes no difference where gradients are switched off, and inside a
            transform such as ``torch.func.grad`` all but ``first`` are ``unroll``.
        tasks_at_once: tasks that go side by side by ``vmap``; 1 takes one after the other without it.

    Returns:
        Fast weights (task, …).

    Raises:
        ValueError: an unknown strategy; ``fd`` with compiled steps; data that require a gradient under another
            strategy than ``unroll``.
        RuntimeError: the loss branches on the values of a tensor, and several tasks go side by side.

    >>> def update(w, g, shared, k):
    ...     return {"a": w["a"] - 0.25 * g["a"]}
    >>> loop = InnerLoop(lambda w, shared, x: (w["a"] - x).square().sum(), update, steps=2)
    >>> start = torch.zeros(1, 1, requires_grad=True)
    >>> end = descend(loop, {"a": start}, {}, torch.ones(1, 1), strategy="sweep")["a"]
    >>> end.item(), torch.autograd.grad(end.sum(), start)[0].item()
    (0.75, 0.25)
    """
    if strategy not in STRATEGIES:
        raise ValueError(
            f"The strategy must be one of {', '.join(STRATEGIES)}; found {strategy!r}."
        )
    if loop.compiled is not None and strategy == "fd":
        raise ValueError(
            "The strategy 'fd' takes steps that are not compiled; choose another one, or give it the plain loop."
        )
    side_by_side = tasks_at_once > 1 or inside_transform()
    if side_by_side or strategy not in ("first", "fd"):
        loop = with_exact_attention(loop)
    # A transform makes the derivative itself, and none but the graph's can be made within one.
    if not torch.is_grad_enabled() or strategy in ("unroll", "first") or inside_transform():
        first = strategy == "first"
        with SeparateScales() if side_by_side else nullcontext(), _branches_explained():
            return roll(loop, weights, shared, data, loop.numbers, tasks_at_once, first=first)
    if any(leaf.requires_grad for leaf in leaves(data)):
        raise ValueError(
            f"The strategy {strategy!r} passes no gradient to the data of a task; detach them, or choose the strategy "
            "unroll."
        )
    plan = Plan(loop, tuple(weights), tuple(shared), data, strategy, tasks_at_once)
    with _branches_explained():
        found = Sweep.apply(plan, *weights.values(), *shared.values())
    return dict(zip(weights, found, strict=True))


@contextmanager
def _branches_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "data-dependent control flow" not in str(error):
            raise
        raise RuntimeError(
            "The loss branches on the values of a tensor, which cannot be done for several tasks side by side; take "
            "tasks_at_once=1, or take the branch away. Models of Hugging Face branch on a flat attention mask: give "
            "them quickstudy.nn.preparation.additive_mask in its place."
        ) from error


def graph_bytes(loop: InnerLoop, weights: Weights, shared: Weights, data: Any) -> int:
    """Bytes that the graph of one step of the first task keeps, beside the weights themselves."""
    own, first = tree_map(lambda leaf: leaf[0].detach(), (weights, data))
    own = {name: value.requires_grad_() for name, value in own.items()}
    known = {leaf.untyped_storage().data_ptr() for leaf in leaves((weights, shared, data))}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        end = one_step(with_exact_attention(loop), own, shared, first, loop.begin)
    del end
    return sum(kept.values())


def fitting_strategy(loop: InnerLoop, weights: Weights, shared: Weights, data: Any) -> Strategy:
    """The fastest exact strategy that fits a quarter of the device's memory: unroll, else sweep, else sqrt.

    One step of one task is taken to measure its graph. Inside a transform there is no choice.
    """
    if inside_transform():
        return "unroll"
    count = len(leaves(weights)[0])
    budget = SHARE_OF_MEMORY * device_memory(leaves(weights)[0].device)
    graph = graph_bytes(loop, weights, shared, data) * loop.steps * count
    sets = sum(value.nbytes for value in weights.values()) * loop.steps
    chosen: Strategy = "unroll" if graph <= budget else "sweep" if sets <= budget else "sqrt"
    log.info(
        "The graph of %d inner steps of %d tasks takes %.1f MB of at most %.0f; the strategy is %s.",
        loop.steps, count, graph / 1e6, budget / 1e6, chosen,
    )  # fmt: skip
    return chosen


def device_memory(device: torch.device) -> int:
    """Bytes of memory that a device has in all; unlimited where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 62
