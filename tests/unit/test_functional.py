"""The door to derivatives: which weights adapt, inner steps against closed forms, and their cost."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples, Task, collate
from quickstudy.functional import (
    InnerLoop,
    Weights,
    adapted_names,
    added_up,
    descend,
    exact_derivatives,
    fitting_strategy,
    keep_large_blocks,
    kernels,
    over_tasks,
    settle,
)
from quickstudy.functional import descent as descent_module
from quickstudy.functional.sweep import Plan
from quickstudy.learners import MAML
from quickstudy.nn.encoders import VectorEncoder
from quickstudy.nn.layers import Transformer

close = torch.testing.assert_close
Update = Callable[[Weights, Weights, Weights, int], Weights]


class Net(nn.Module):
    """A stem with a norm, and a stack of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8))
        self.transformer = Transformer(8, layers=3, heads=2)


@pytest.fixture(scope="module")
def encoder() -> Net:
    return Net()


def test_all_is_every_trainable_parameter(encoder: Net) -> None:
    assert adapted_names(encoder, "all") == tuple(dict(encoder.named_parameters()))


def test_head_is_nothing_of_the_encoder(encoder: Net) -> None:
    assert adapted_names(encoder, "head") == ()


def test_norms_are_scales_and_shifts(encoder: Net) -> None:
    names = adapted_names(encoder, "norms")
    assert len(names) == 2 * (1 + 2 * 3 + 1)
    assert {
        "stem.1.weight",
        "transformer.blocks.0.mlp_norm.bias",
        "transformer.norm.weight",
    } <= set(names)


def test_last_is_the_end_of_the_stack_and_what_follows(encoder: Net) -> None:
    names = adapted_names(encoder, "last:2")
    kept = ("transformer.blocks.1.", "transformer.blocks.2.", "transformer.norm.")
    every = tuple(name for name, _ in encoder.named_parameters())
    assert names == tuple(name for name in every if name.startswith(kept))


def test_patterns_and_lists_of_choices(encoder: Net) -> None:
    assert adapted_names(encoder, "*.query.weight") == tuple(
        f"transformer.blocks.{layer}.attention.query.weight" for layer in range(3)
    )
    both = set(adapted_names(encoder, "norms, stem.0.*"))
    assert both == {*adapted_names(encoder, "norms"), "stem.0.weight", "stem.0.bias"}


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ("*.lora.*", r"No trainable parameter matches '\*.lora.\*'.*transformer.blocks.\*.expand"),
        ("", "No trainable parameter matches ''"),
        ("last:0", "n at least 1"),
        ("last:two", "n at least 1"),
        ("last:4", "has 3 layers"),
    ],
)
def test_a_choice_of_nothing_is_an_error(encoder: Net, subset: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted_names(encoder, subset)


def test_a_module_without_a_stack_has_no_last_layers() -> None:
    with pytest.raises(ValueError, match="no stack"):
        adapted_names(nn.Linear(2, 2), "last:1")


def test_frozen_parameters_never_adapt() -> None:
    encoder = VectorEncoder(2, width=8)
    encoder.embed.requires_grad_(False)
    assert not [name for name in adapted_names(encoder, "all") if name.startswith("embed")]
    with pytest.raises(ValueError, match="No trainable parameter"):
        adapted_names(encoder, "embed.*")
    encoder.requires_grad_(False)
    assert adapted_names(encoder, "all") == ()


def quadratic() -> tuple[Tensor, Tensor]:
    root = torch.randn(4, 4, dtype=torch.float64)
    return root @ root.T / 4, torch.randn(4, dtype=torch.float64)


EXACT = ["unroll", "sweep", "sqrt"]


def descent(rate: float = 0.2) -> Update:
    return lambda weights, slopes, shared, step: {
        name: value - rate * slopes[name] for name, value in weights.items()
    }


@pytest.mark.parametrize("strategy", [*EXACT, "fd"])
@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("chunk", [1, 2])
def test_steps_on_a_quadratic_have_a_closed_form(strategy: str, steps: int, chunk: int) -> None:
    """w_K = (I - ηA)^K w_0 + …, so the derivative of w_K in w_0 is (I - ηA)^K exactly."""
    curvature, slope = quadratic()

    def loss(weights: Weights, shared: Weights, data: object) -> Tensor:
        return weights["w"] @ curvature @ weights["w"] / 2 + slope @ weights["w"]

    loop = InnerLoop(loss, descent(), steps)

    def run(start: Tensor) -> Tensor:
        options = {"strategy": strategy, "tasks_at_once": chunk}
        return descend(loop, {"w": start}, {}, torch.zeros(3, 1), **options)["w"]

    start = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    power = torch.matrix_power(torch.eye(4, dtype=torch.float64) - 0.2 * curvature, steps)
    rest = -torch.linalg.solve(curvature, slope)
    close(run(start), rest + (start - rest) @ power)
    way = torch.randn(3, 4, dtype=torch.float64)
    (found,) = torch.autograd.grad(run(start), start, way)
    close(found, way @ power, rtol=1e-7 if strategy == "fd" else 1e-12, atol=1e-9)


@pytest.mark.parametrize("strategy", ["sweep", "sqrt"])
def test_a_second_way_back_is_refused(strategy: str) -> None:
    loop = InnerLoop(lambda w, shared, x: w["w"].square().sum(), descent(), 3)
    start = torch.ones(1, 2, requires_grad=True)
    end = descend(loop, {"w": start}, {}, torch.zeros(1, 1), strategy=strategy)["w"].sum()
    torch.autograd.grad(end, start, retain_graph=True)
    with pytest.raises(RuntimeError, match="asked for a gradient a second time; ask for all"):
        torch.autograd.grad(end, start)


@pytest.mark.parametrize("strategy", ["sweep", "sqrt"])
def test_few_sets_of_weights_are_alive_on_the_way_back(strategy: str) -> None:
    for steps in range(1, 120):
        loop = InnerLoop(lambda w, shared, x: w["w"].sum(), descent(), steps, begin=2)
        pieces = Plan(loop, ("w",), (), (), strategy, 1).pieces
        assert [k for piece in pieces for k in piece] == list(loop.numbers)
        alive = max(kept + len(piece) for kept, piece in enumerate(pieces))
        assert alive <= (math.sqrt(2 * steps) + 1 if strategy == "sqrt" else steps)


class Stock(nn.Module):
    """Layers as they come, whose fused kernels are wrong where vmap lies between two derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.norm(self.inside(x)))).square().mean()


def stock_loop(net: Stock, steps: int) -> tuple[InnerLoop, Weights, Weights]:
    def loss(weights: Weights, shared: Weights, x: Tensor) -> Tensor:
        own = {**weights, "out.weight": shared["out.weight"]}
        return torch.func.functional_call(net, own, (x,))

    def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
        rate = shared["rate"]
        return {n: w - rate[int(n.endswith("bias"))] * slopes[n] for n, w in weights.items()}

    weights = {name: value for name, value in net.named_parameters() if name != "out.weight"}
    rates = torch.tensor([0.3, 0.2], dtype=torch.float64, requires_grad=True)
    return InnerLoop(loss, update, steps), weights, {"out.weight": net.out.weight, "rate": rates}


@pytest.mark.parametrize(
    ("strategy", "chunk"),
    [("unroll", 1), ("sweep", 1), ("sweep", 2), ("sqrt", 1), ("sqrt", 3), ("fd", 1), ("fd", 2)],
)
def test_weights_shared_weights_and_rates_get_the_gradient_of_a_plain_loop(
    strategy: str, chunk: int
) -> None:
    net = Stock().double()
    loop, weights, shared = stock_loop(net, steps=5)
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    inputs = [*weights.values(), *shared.values()]

    def outer(ends: list[Weights]) -> Tensor:
        return sum(value.sin().sum() for end in ends for value in end.values())

    start = {name: value.expand(3, *value.shape) for name, value in weights.items()}
    options = {"strategy": strategy, "tasks_at_once": chunk}
    ends = descend(loop, start, shared, x, **options)
    found = torch.autograd.grad(outer([ends]), inputs)

    looped = []
    for data in x:
        own = dict(weights)
        for step in range(5):
            slopes = torch.autograd.grad(
                loop.loss(own, shared, data), list(own.values()), create_graph=True
            )
            own = loop.update(own, dict(zip(own, slopes, strict=True)), shared, step)
        looped.append(own)
    for one, other in zip(found, torch.autograd.grad(outer(looped), inputs), strict=True):
        close(one, other, **({"rtol": 1e-5, "atol": 1e-7} if strategy == "fd" else {}))


def test_first_order_passes_the_gradient_through_and_reaches_the_rates() -> None:
    loop, weights, shared = stock_loop(Stock().double(), steps=3)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    start = {name: value.expand(2, *value.shape) for name, value in weights.items()}
    first, second = (descend(loop, start, shared, x, strategy=s) for s in ("first", "unroll"))
    close(first, second)
    way = torch.randn_like(first["norm.weight"])
    slope, rates = torch.autograd.grad(
        first["norm.weight"], [weights["norm.weight"], shared["rate"]], way
    )
    close(slope, way.sum(0))
    moved = (first["norm.weight"] - start["norm.weight"]) / 0.3
    close(rates[0], (way * moved).sum())


def test_first_order_keeps_nothing_of_the_inner_steps() -> None:
    """The second-order graph is not built and thrown away; it is not built."""
    kept: list[weakref.ref[Tensor]] = []

    def loss(weights: Weights, shared: Weights, data: object) -> Tensor:
        inside = weights["w"].tanh()
        kept.append(weakref.ref(inside))
        return inside.square().sum()

    start = {"w": torch.ones(1, 2, requires_grad=True)}
    ends = {}
    for strategy in ("first", "sweep", "unroll"):
        loop = InnerLoop(loss, descent(), 1)
        ends[strategy] = descend(loop, start, {}, torch.zeros(1), strategy=strategy)["w"]
        assert ends[strategy].requires_grad
    assert [reference() is None for reference in kept] == [True, True, False]


@pytest.mark.parametrize(("strategy", "sets"), [("sweep", 16), ("sqrt", 4)])
def test_a_sweep_keeps_weights_only(strategy: str, sets: int) -> None:
    loop = InnerLoop(lambda w, s, x: (w["w"] * x).tanh().square().sum(), descent(), 16)
    start = {"w": torch.ones(2, 5, requires_grad=True)}
    end = descend(loop, start, {}, torch.ones(2, 5), strategy=strategy)["w"]
    assert [kept["w"].shape for kept in end.grad_fn.kept] == [(2, 5)] * sets
    assert not end.grad_fn.saved_tensors


def test_a_sweep_computes_in_the_precision_of_its_forward_pass() -> None:
    kinds = []

    def loss(weights: Weights, shared: Weights, x: Tensor) -> Tensor:
        product = x @ weights["w"]
        kinds.append(product.dtype)
        return product.float().square().sum()

    start = {"w": torch.ones(1, 2, 2, requires_grad=True)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        end = descend(
            InnerLoop(loss, descent(), 2), start, {}, torch.ones(1, 2, 2), strategy="sweep"
        )
    end["w"].sum().backward()
    assert set(kinds) == {torch.bfloat16}
    assert len(kinds) == 4


def test_a_strategy_that_cannot_be_is_named() -> None:
    loop = InnerLoop(lambda w, s, x: (w["w"] * x).sum(), descent(), 1)
    start = {"w": torch.ones(1, 2, requires_grad=True)}
    with pytest.raises(ValueError, match="one of unroll, sweep, sqrt, fd, first; found 'best'"):
        descend(loop, start, {}, torch.ones(1, 2), strategy="best")
    data = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(ValueError, match="passes no gradient to the data"):
        descend(loop, start, {}, data, strategy="sweep")
    with torch.no_grad():
        assert descend(loop, start, {}, data, strategy="sweep")["w"].tolist() == [
            [pytest.approx(0.8)] * 2
        ]


def test_the_strategy_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = InnerLoop(lambda w, s, x: (x @ w["w"]).tanh().square().sum(), descent(), 10)
    start, x = {"w": torch.ones(2, 5, 5)}, torch.ones(2, 100, 5)
    step = descent_module.graph_bytes(loop, start, {}, x)
    assert step >= 100 * 5 * 4
    weights = 2 * 5 * 5 * 4 * 10
    for memory, expected in ((2 * 10 * step, "unroll"), (weights, "sweep"), (weights - 1, "sqrt")):
        budget = 4 * memory
        monkeypatch.setattr(descent_module, "device_memory", lambda device, b=budget: b)
        assert fitting_strategy(loop, start, {}, x) == expected


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_gradients_that_are_added_up_are_those_of_the_whole(pieces: int) -> None:
    torch.manual_seed(3)
    net, unused = nn.Linear(4, 1), nn.Linear(1, 1)
    part = Examples(torch.randn(3, 2, 4), torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool))
    tasks = Episode(part, part, Context(*torch.zeros(3, 3, 0)))
    seen = []

    def loss(episode: Episode) -> Tensor:
        seen.append(episode.tasks)
        return net(episode.query.x).tanh().mean()

    weights = [*net.parameters(), *unused.parameters()]
    total = added_up(loss, tasks, weights, tasks_at_once=pieces)
    (3 * total).backward()
    assert seen == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[pieces]
    whole = loss(tasks)
    close(total, whole)
    expected = torch.autograd.grad(3 * whole, list(net.parameters()))
    close([value.grad for value in net.parameters()], list(expected))
    assert unused.weight.grad is None
    with torch.no_grad():
        close(added_up(loss, tasks, weights, tasks_at_once=pieces), whole)
    assert seen[-1] == 3


def test_tasks_may_go_in_chunks() -> None:
    x = torch.randn(5, 3)
    for chunk in (1, 2, 5, 9):
        close(over_tasks(lambda row: row.sum(), x, tasks_at_once=chunk), x.sum(1))


def test_exact_derivatives_gives_attention_a_second_derivative() -> None:
    x = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)

    def energy(x: Tensor) -> Tensor:
        with exact_derivatives():
            return nn.functional.scaled_dot_product_attention(x, x, x).square().sum()

    assert torch.autograd.gradgradcheck(energy, x)


def test_the_allocator_setting_is_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name} is not here")

    monkeypatch.setattr(kernels.ctypes, "CDLL", absent)
    assert keep_large_blocks() is False


def test_the_allocator_is_told_both_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[int, int] = {}

    class Library:
        @staticmethod
        def mallopt(option: int, value: int) -> int:
            told[option] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert keep_large_blocks() is True
    assert told == {-3: kernels.LARGEST_KEPT_BLOCK, -1: kernels.LARGEST_KEPT_BLOCK}


@pytest.mark.parametrize("strategy", ["unroll", "first", "sweep", "sqrt", "fd"])
def test_the_order_in_which_an_update_names_the_weights_means_nothing(strategy: str) -> None:
    def loss(w: Weights, shared: Weights, x: Tensor) -> Tensor:
        return (w["a"] - x).square().sum() + (w["b"] + x).square().sum()

    def update(w: Weights, g: Weights, shared: Weights, k: int) -> Weights:
        return {"b": w["b"] - 0.1 * g["b"], "a": w["a"] - 0.1 * g["a"]}

    start = {name: torch.zeros(1, 1, requires_grad=True) for name in "ab"}
    end = descend(InnerLoop(loss, update, 2), start, {}, torch.ones(1, 1), strategy=strategy)  # type: ignore[arg-type]
    assert {name: round(value.item(), 6) for name, value in end.items()} == {"a": 0.36, "b": -0.36}
    rest = settle(
        InnerLoop(loss, update, 200), start, {}, torch.ones(1, 1), penalty=1.0, solver_steps=2
    )
    close(rest["a"], torch.full((1, 1), 2 / 3))
    close(rest["b"], torch.full((1, 1), -2 / 3))


@pytest.mark.parametrize("names", ["a", "abc"])
def test_an_update_gives_every_weight_and_no_other(names: str) -> None:
    def update(w: Weights, g: Weights, shared: Weights, k: int) -> Weights:
        return dict.fromkeys(names, g["a"])

    start = {name: torch.zeros(1, 1) for name in "ab"}
    loop = InnerLoop(lambda w, shared, x: w["a"].sum() + w["b"].sum(), update, 1)
    with pytest.raises(ValueError, match=f"missing or unknown: {'b' if names == 'a' else 'c'}"):
        descend(loop, start, {}, torch.ones(1, 1))


@pytest.mark.parametrize("strategy", ["auto", "unroll", "sweep", "sqrt"])
def test_a_transform_takes_the_derivative_of_a_whole_step(strategy: str) -> None:
    torch.manual_seed(0)
    learner = MAML(VectorEncoder(4, width=8, layers=1), steps=2, strategy=strategy).double()  # type: ignore[arg-type]
    y = torch.arange(3)
    tasks = [Task(*(torch.randn(3, 4).double(), y) * 2, way=3) for _ in range(2)]
    episode = collate(tasks)
    weights = {name: value.detach() for name, value in learner.named_parameters()}
    found = torch.func.grad(lambda w: torch.func.functional_call(learner, w, (episode,)))(weights)
    learner(episode).backward()
    for name, value in learner.named_parameters():
        close(found[name], torch.zeros_like(value) if value.grad is None else value.grad)


def test_where_a_loop_rests_has_no_derivative_inside_a_transform() -> None:
    loop = InnerLoop(lambda w, shared, x: (w["a"] - x).square().sum(), descent(), 3)

    def end(start: Tensor) -> Tensor:
        found = settle(loop, {"a": start}, {}, torch.ones(1, 1), penalty=1.0, solver_steps=1)
        return found["a"].sum()

    with pytest.raises(
        ValueError, match=r"inside a transform such as torch\.func\.grad; call backward"
    ):
        torch.func.grad(end)(torch.zeros(1, 1))
