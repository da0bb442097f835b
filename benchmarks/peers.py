"""The outer gradient of second-order MAML by hand and with other libraries, one task after the other.

Each takes a model, the tasks (support and query of each, x before y), and gives a call that makes the gradient of the
mean query loss in the parameters of the model, in their order. Nothing here depends on a peer: where one cannot be
imported it is left out.
"""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Task = tuple[Tensor, Tensor, Tensor, Tensor]
Gradient = Callable[[], "list[Tensor]"]
Loss = Callable[[Tensor, Tensor], Tensor]


def summed(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    return [sum(each[1:], each[0]) for each in zip(*parts, strict=True)]


def plain_loop(
    model: nn.Module,
    tasks: list[Task],
    steps: int,
    *,
    rate: float,
    loss: Loss = F.cross_entropy,
    first: bool = False,
) -> Gradient:
    """The graph of all steps, as one writes it with ``functional_call`` and ``autograd.grad``."""
    start = {name: value for name, value in model.named_parameters() if value.requires_grad}

    def loss_at(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(torch.func.functional_call(model, own, (x,)), y)

    def one(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
        own = start
        for _ in range(steps):
            slopes = torch.autograd.grad(
                loss_at(own, x, y), list(own.values()), create_graph=not first
            )
            own = {
                name: value - rate * slope
                for (name, value), slope in zip(own.items(), slopes, strict=True)
            }
        end = loss_at(own, query_x, query_y) / len(tasks)
        return torch.autograd.grad(end, list(start.values()))

    return lambda: summed([one(*task) for task in tasks])


def with_learn2learn(
    learn2learn: ModuleType,
    model: nn.Module,
    tasks: list[Task],
    steps: int,
    *,
    rate: float,
    loss: Loss = F.cross_entropy,
) -> Gradient:
    maml, parameters = learn2learn.algorithms.MAML(model, lr=rate), list(model.parameters())

    def one(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
        own = maml.clone()
        for _ in range(steps):
            own.adapt(loss(own(x), y))
        return torch.autograd.grad(loss(own(query_x), query_y) / len(tasks), parameters)

    return lambda: summed([one(*task) for task in tasks])


def with_higher(
    higher: ModuleType,
    model: nn.Module,
    tasks: list[Task],
    steps: int,
    *,
    rate: float,
    loss: Loss = F.cross_entropy,
) -> Gradient:
    parameters = list(model.parameters())
    descent = torch.optim.SGD(parameters, lr=rate)

    def one(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
        with higher.innerloop_ctx(model, descent, copy_initial_weights=False) as (own, stepper):
            for _ in range(steps):
                stepper.step(loss(own(x), y))
            return torch.autograd.grad(loss(own(query_x), query_y) / len(tasks), parameters)

    return lambda: summed([one(*task) for task in tasks])


def with_torchopt(
    torchopt: ModuleType,
    model: nn.Module,
    tasks: list[Task],
    steps: int,
    *,
    rate: float,
    loss: Loss = F.cross_entropy,
) -> Gradient:
    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    descent = torchopt.MetaSGD(model, lr=rate)
    begin = [
        torchopt.extract_state_dict(each, by="reference", detach_buffers=True)
        for each in (model, descent)
    ]

    def one(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
        for _ in range(steps):
            descent.step(loss(model(x), y))
        slopes = torch.autograd.grad(loss(model(query_x), query_y) / len(tasks), parameters)
        for each, state in zip((model, descent), begin, strict=True):
            torchopt.recover_state_dict(each, state)
        return slopes

    return lambda: summed([one(*task) for task in tasks])


PEERS: dict[str, Callable[..., Gradient]] = {
    "learn2learn": with_learn2learn,
    "higher": with_higher,
    "torchopt": with_torchopt,
}


@functools.cache
def installed(name: str) -> ModuleType | None:
    """A peer, or ``None`` where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def peers_of(
    model: nn.Module, tasks: list[Task], steps: int, *, rate: float, loss: Loss = F.cross_entropy
) -> dict[str, Gradient]:
    """Those that are installed."""
    return {
        name: use(installed(name), model, tasks, steps, rate=rate, loss=loss)
        for name, use in PEERS.items()
        if installed(name)
    }
