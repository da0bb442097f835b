"""Norms of torch under vmap between two derivatives, which is where their fused kernels are wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.functional import InnerLoop, Weights, descend
from quickstudy.functional.norms import SeparateScales

CHANNELS = 6
KINDS: dict[str, Callable[[], nn.Module]] = {
    "layer": lambda: nn.LayerNorm(CHANNELS),
    "layer without shift": lambda: nn.LayerNorm(CHANNELS, bias=False),
    "batch": lambda: nn.BatchNorm1d(CHANNELS, track_running_stats=False),
    "batch, running statistics": lambda: nn.BatchNorm1d(CHANNELS).eval(),
    "instance": lambda: nn.InstanceNorm1d(CHANNELS, affine=True),
    "instance without scale": lambda: nn.InstanceNorm1d(CHANNELS),
    "group": lambda: nn.GroupNorm(2, CHANNELS),
    "root mean square": lambda: nn.RMSNorm(CHANNELS),
}
LAST = (nn.LayerNorm, nn.RMSNorm)
"""Norms of the last axis; the others take channels second."""


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inside, self.norm = nn.Linear(5, CHANNELS), KINDS[kind]()
        self.out = nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inside(x)
        if isinstance(self.norm, LAST):
            hidden = self.norm(hidden)
        else:
            hidden = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        return self.out(hidden.tanh())


@pytest.fixture(params=KINDS)
def net(request: pytest.FixtureRequest) -> Net:
    net = Net(request.param).double()
    for value in net.parameters():
        nn.init.normal_(value)
    return net


def test_side_by_side_is_one_after_the_other(net: Net) -> None:
    x = torch.randn(3, 4, 7, 5, dtype=torch.float64)
    own = dict(net.named_parameters())

    def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
        return {name: value - 0.3 * slopes[name] for name, value in weights.items()}

    def loss(weights: Weights, shared: Weights, x: Tensor) -> Tensor:
        return torch.func.functional_call(net, weights, (x,)).square().mean()

    found = []
    for tasks_at_once in (1, 2, 3):
        start = {name: value.expand(3, *value.shape) for name, value in own.items()}
        ends = descend(InnerLoop(loss, update, 4), start, {}, x, tasks_at_once=tasks_at_once)
        outer = sum(value.sin().sum() for value in ends.values())
        slopes = torch.autograd.grad(outer, list(own.values()))
        found.append(torch.cat([slope.flatten() for slope in slopes]))
    for other in found[1:]:
        assert (other - found[0]).norm() < 1e-13 * found[0].norm()


def test_outputs_stay_the_same(net: Net) -> None:
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    plain = torch.func.vmap(net)(x)
    with SeparateScales():
        torch.testing.assert_close(torch.func.vmap(net)(x), plain)
        torch.testing.assert_close(net(x[0]), plain[0])
