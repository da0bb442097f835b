"""Inner loops as pure functions: one step, some steps, and many tasks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from quickstudy.episode import leaves, take_tasks, tree_map
from quickstudy.functional.kernels import exact_derivatives, inside_transform

Weights = dict[str, Tensor]
"""Fast weights: name to tensor."""

Result = TypeVar("Result")


class CompiledSteps(Protocol):
    """Some steps of every task by compiled kernels; the arguments are those of :func:`roll`."""

    def __call__(
        self,
        weights: Weights,
        shared: Weights,
        data: Any,
        steps: range,
        tasks_at_once: int,
        *,
        first: bool = False,
    ) -> Weights: ...


class InnerLoop(NamedTuple):
    """The inner loop of one task, as pure functions.

    Both are called under function transforms as well as outside, and again during the backward pass: they may depend on
    their arguments only. Parameters of a module that the loss uses belong to ``shared``, or get no gradient.
    """

    loss: Callable[[Weights, Weights, Any], Tensor]
    """Fast weights, shared weights, and the data of a task (a tree without a task axis), to a scalar."""
    update: Callable[[Weights, Weights, Weights, Any], Weights]
    """Fast weights, their slopes, shared weights and the number of the step, to new fast weights; affine in the slopes.

    The number is an int64 tensor of no axis where steps are compiled, so that one kernel serves them all. A step is
    descent rather than an adaptive rule such as Adam: a square root has no derivative where a gradient is zero, and the
    key bias of attention always has a gradient of zero."""
    steps: int
    begin: int = 0
    """Number of the first step; steps are counted on from there."""
    compiled: CompiledSteps | None = None
    """The same steps as :func:`quickstudy.functional.compiled` makes them."""

    @property
    def numbers(self) -> range:
        """The steps by their numbers."""
        return range(self.begin, self.begin + self.steps)


def with_exact_attention(loop: InnerLoop) -> InnerLoop:
    """The same loop, its loss by kernels that have a second derivative and a rule for ``vmap``.

    A sweep calls the loss again in the backward pass, outside of any context around the call that began it.
    """

    def loss(weights: Weights, shared: Weights, data: Any) -> Tensor:
        with exact_derivatives():
            return loop.loss(weights, shared, data)

    return loop._replace(loss=loss)


def slopes_of(loss: Callable[[Weights], Tensor], weights: Weights) -> Weights:
    """``∇ loss`` at some weights, with a graph where gradients are switched on; zero for a weight it does not use."""
    if inside_transform() or torch.is_inference_mode_enabled():
        return torch.func.grad(loss)(weights)
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        own = {
            n: w if graph and w.requires_grad else w.detach().requires_grad_()
            for n, w in weights.items()
        }
        found = torch.autograd.grad(
            loss(own),
            list(own.values()),
            create_graph=graph,
            allow_unused=True,
            materialize_grads=True,
        )
    return dict(zip(weights, found, strict=True))


def over_tasks(
    function: Callable[..., Result], *trees: Any, tasks_at_once: int, randomness: str = "different"
) -> Result:
    """``function`` of each task of some trees of tensors (task, …), its results stacked again.

    One task at a time runs as it is; more go side by side by ``vmap``. Random numbers differ between tasks. The layers
    of :mod:`quickstudy.nn` keep their derivatives exact through it.

    >>> over_tasks(lambda x: x.sum(), torch.ones(3, 2), tasks_at_once=1).tolist()
    [2.0, 2.0, 2.0]
    """
    if tasks_at_once == 1 and not inside_transform():
        count = len(leaves(trees)[0])
        parts = [function(*tree_map(lambda leaf, i=i: leaf[i], trees)) for i in range(count)]
        return tree_map(lambda *each: torch.stack(each), *parts)
    side_by_side: Callable[..., Result] = torch.func.vmap(
        function, randomness=randomness, chunk_size=tasks_at_once
    )
    return side_by_side(*trees)


def pulled_back(
    one: Callable[..., tuple[Weights, Weights]],
    *trees: Any,
    tasks_at_once: int,
    pieces: Callable[..., tuple[Weights, Weights]] | None = None,
) -> tuple[Weights, Weights]:
    """Slopes that ``one`` finds for each task: of its own weights, (task, …), and of what is shared, summed over tasks.

    The shared ones are as large as the weights for every task, so they are summed a piece at a time; ``pieces`` finds
    and sums them for several tasks in one call, where it is given.
    """

    def summed(*parts: Any) -> tuple[Weights, Weights]:
        own, shared = over_tasks(one, *parts, tasks_at_once=tasks_at_once)
        return own, {name: value.sum(0) for name, value in shared.items()}

    found: list[Weights] = []
    total: Weights = {}
    for start in range(0, len(leaves(trees)[0]), tasks_at_once):
        parts = take_tasks(trees, slice(start, start + tasks_at_once))
        own, sums = (pieces or summed)(*parts)
        found.append(own)
        total = {name: total[name] + value for name, value in sums.items()} if total else sums
    return tree_map(lambda *each: torch.cat(each), *found), total


def roll(
    loop: InnerLoop,
    weights: Weights,
    shared: Weights,
    data: Any,
    steps: range,
    tasks_at_once: int,
    *,
    first: bool = False,
) -> Weights:
    """Some steps of every task, with a graph where gradients are switched on."""
    if loop.compiled is not None and torch.is_grad_enabled() and not inside_transform():
        return loop.compiled(weights, shared, data, steps, tasks_at_once, first=first)

    def one(weights: Weights, data: Any) -> Weights:
        for k in steps:
            weights = one_step(loop, weights, shared, data, k, first=first)
        return weights

    return over_tasks(one, weights, data, tasks_at_once=tasks_at_once)


def one_step(
    loop: InnerLoop,
    weights: Weights,
    shared: Weights,
    data: Any,
    k: int | Tensor,
    *,
    first: bool = False,
) -> Weights:
    """One step of one task; with ``first`` its slopes count as constants.

    Raises:
        ValueError: the update gives other weights than it was given.
    """
    with torch.no_grad() if first else nullcontext():
        slopes = slopes_of(lambda own: loop.loss(own, shared, data), weights)
    found = loop.update(weights, slopes, shared, k)
    if found.keys() != weights.keys():
        names = sorted(found.keys() ^ weights.keys())
        raise ValueError(
            "An update gives every fast weight its new value, and nothing else; missing or unknown: "
            f"{', '.join(names)}."
        )
    # Whoever keeps weights as a tuple counts on their order.
    return {name: found[name] for name in weights}
