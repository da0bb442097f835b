"""Compiled inner steps give the derivatives of plain ones, through every strategy."""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples
from quickstudy.functional import Compiled, InnerLoop, Weights, compiled, descend
from quickstudy.learners import fast_weights
from quickstudy.learners.gradient import MAML
from quickstudy.nn.encoders import VectorEncoder

TASKS, TOKENS, WIDTH = 3, 66, 4


class Small(nn.Module):
    """A stock norm, attention over more tokens than plain products are used for, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.layer(F.scaled_dot_product_attention(x, x, x).mean(-2))


def update(weights: Weights, slopes: Weights, shared: Weights, k: Any) -> Weights:
    return {name: value - shared["rate"][0] * slopes[name] for name, value in weights.items()}


def update_by_step(weights: Weights, slopes: Weights, shared: Weights, k: Any) -> Weights:
    rate = shared["rate"].index_select(0, torch.as_tensor(k)[None])
    return {name: value - rate * slopes[name] for name, value in weights.items()}


def loss(weights: Weights, shared: Weights, data: Any) -> Tensor:
    x, y = data
    return F.cross_entropy(torch.func.functional_call(MODEL, weights, (x,)), y)


MODEL = Small().double()
PLAIN = InnerLoop(loss, update, steps=3)
BY_STEP = PLAIN._replace(update=update_by_step)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TASKS, 5, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    return x, torch.randint(2, (TASKS, 5), generator=generator)


@pytest.fixture(scope="module")
def fast() -> InnerLoop:
    return compiled(PLAIN, backend="aot_eager")


@pytest.fixture(scope="module")
def fast_by_step() -> InnerLoop:
    return compiled(BY_STEP, steps_at_once=2, backend="aot_eager")


def gradient(loop: InnerLoop, data: Any, strategy: Any, tasks_at_once: int) -> list[Tensor]:
    """Of the ends' squares in what every task begins at and in the rates."""
    start = dict(MODEL.named_parameters())
    rate = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    weights = {name: value.expand(TASKS, *value.shape) for name, value in start.items()}
    ends = descend(
        loop, weights, {"rate": rate}, data, strategy=strategy, tasks_at_once=tasks_at_once
    )
    total = torch.stack([end.square().sum() for end in ends.values()]).sum()
    return list(torch.autograd.grad(total, [*start.values(), rate]))


def assert_same(
    fast: InnerLoop, plain: InnerLoop, data: Any, strategy: str, tasks_at_once: int
) -> None:
    found = gradient(fast, data, strategy, tasks_at_once)
    right = gradient(plain, data, strategy, 1)
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strategy", ["unroll", "sweep", "sqrt"])
def test_tasks_side_by_side(fast: InnerLoop, data: Any, strategy: str) -> None:
    assert_same(fast, PLAIN, data, strategy, TASKS)


@pytest.mark.slow
def test_kernels(data: Any) -> None:
    fast = compiled(PLAIN)
    for strategy in ("unroll", "sweep", "sqrt"):
        assert_same(fast, PLAIN, data, strategy, TASKS)
    assert_same(fast, PLAIN, data, "unroll", 1)


@pytest.mark.parametrize(("strategy", "tasks_at_once"), [("unroll", 1), ("first", 1), ("sweep", 2)])
def test_one_by_one_and_with_a_rest(
    fast_by_step: InnerLoop, data: Any, strategy: str, tasks_at_once: int
) -> None:
    assert_same(fast_by_step, BY_STEP, data, strategy, tasks_at_once)


def test_tells_what_compiling_costs_and_brings(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop = compiled(PLAIN, backend="aot_eager")
    with caplog.at_level(logging.INFO, "quickstudy"):
        gradient(loop, data, "unroll", TASKS)
        gradient(loop, data, "unroll", TASKS)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0] == "The inner step is being compiled, which may take minutes."
    assert told[1].startswith("The inner step was compiled in ")
    assert "it has paid after" in told[1] or told[1].endswith("so it does not pay.")


def test_without_gradients_nothing_is_compiled(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = compiled(PLAIN)

    def never(*_: Any) -> Weights:
        raise AssertionError("compiled")

    loop = PLAIN._replace(compiled=never)
    weights = {n: v.detach().expand(TASKS, *v.shape) for n, v in MODEL.named_parameters()}
    rate = {"rate": torch.ones(3, dtype=torch.float64)}
    with torch.no_grad():
        found = descend(loop, weights, rate, data)
        right = descend(PLAIN, weights, rate, data)
    for name, value in right.items():
        assert torch.equal(found[name], value)


def test_differences_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="not compiled; choose another one"):
        gradient(compiled(PLAIN), data, "fd", 1)


def test_a_loss_that_branches_is_explained(data: Any) -> None:
    def branching(weights: Weights, shared: Weights, data: Any) -> Tensor:
        total = torch.stack([value.sum() for value in weights.values()]).sum()
        return total if total > 0 else -total

    with pytest.raises(
        RuntimeError, match=r"The inner step cannot be compiled \(.*Data-dependent.*\)\. Leave"
    ):
        gradient(compiled(PLAIN._replace(loss=branching)), data, "unroll", 1)


def test_a_missing_compiler_is_explained(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("CXX", "no-such-compiler")

    def other(weights: Weights, shared: Weights, data: Any) -> Tensor:
        return torch.stack([value.cosh().sum() for value in weights.values()]).sum()

    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler, such as g\+\+"):
        gradient(compiled(PLAIN._replace(loss=other)), data, "unroll", 1)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learners compile as far as the graph of derivatives, which takes seconds rather than minutes."""
    for name, function in (("compiled", compiled), ("Compiled", Compiled)):
        monkeypatch.setattr(fast_weights, name, partial(function, backend="aot_eager"))


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "unroll", "rates": "step"},
        {"strategy": "sweep", "adapt": "norms", "tasks_at_once": 1},
    ],
)
def test_a_learner_that_compiles(options: dict[str, Any]) -> None:
    def learner(**more: Any) -> MAML:
        torch.manual_seed(0)
        encoder = VectorEncoder(3, width=4, layers=1)
        return MAML(encoder, steps=2, **options, **more).double()

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    part = Examples(x, torch.tensor([[0, 1, 2] * 2] * 2), torch.ones(2, 6, dtype=torch.bool))
    nothing = torch.zeros(2, 0), torch.zeros(2, 3, 0)
    episode = Episode(part, part, Context(torch.ones(2, 3, dtype=torch.bool), *nothing))
    plain, fast = learner(), learner(compile=True)
    for each in (plain, fast):
        each(episode).backward()
    for (name, one), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=name)
    assert all(part.training for part in fast.modules())
    assert copy.deepcopy(fast).fast.loop().loss.__self__ is not fast.fast
