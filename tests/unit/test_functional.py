"""The door to derivatives: which weights adapt, inner steps against closed forms, and their cost."""

from __future__ import annotations

import ctypes
import weakref

import pytest
import torch
from torch import Tensor, nn

from quickstudy import functional
from quickstudy.functional import (
    adapted_names,
    exact_derivatives,
    first_order,
    inner_steps,
    keep_large_blocks,
    over_tasks,
    without_dropout,
)
from quickstudy.nn.encoders import VectorEncoder
from quickstudy.nn.layers import Transformer

close = torch.testing.assert_close


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


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_on_a_quadratic_have_a_closed_form(steps: int) -> None:
    """w_K = (I - ηA)^K w_0 + …, so the derivative of w_K in w_0 is (I - ηA)^K exactly."""
    curvature, slope = quadratic()

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return weights["w"] @ curvature @ weights["w"] / 2 + slope @ weights["w"]

    def run(start: Tensor) -> Tensor:
        return inner_steps(loss, {"w": start}, steps=steps, rate=0.2)["w"]

    start = torch.randn(4, dtype=torch.float64)
    power = torch.matrix_power(torch.eye(4, dtype=torch.float64) - 0.2 * curvature, steps)
    rest = -torch.linalg.solve(curvature, slope)
    close(run(start), rest + power @ (start - rest))
    close(torch.autograd.functional.jacobian(run, start), power)


def test_first_order_moves_the_same_and_passes_the_gradient_through() -> None:
    curvature, slope = quadratic()

    def adapt(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return inner_steps(
            lambda w: w["w"] @ curvature @ w["w"] / 2 + slope @ w["w"], weights, steps=3, rate=0.2
        )

    start = torch.randn(4, dtype=torch.float64, requires_grad=True)
    fast = first_order(adapt, {"w": start})["w"]
    close(fast, adapt({"w": start})["w"])
    outer = torch.randn(4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(fast @ outer, start)
    assert torch.equal(gradient, outer)


def test_first_order_keeps_nothing_of_the_inner_steps() -> None:
    """The second-order graph is not built and thrown away; it is not built."""
    kept: list[weakref.ref[Tensor]] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, slope: Tensor) -> Tensor:
            return slope

    def adapt(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = {name: Watched.apply(value) for name, value in weights.items()}
        kept.extend(weakref.ref(value) for value in moved.values())
        return moved

    start = {"w": torch.ones(2, requires_grad=True)}
    fast = first_order(adapt, start)
    assert fast["w"].requires_grad
    assert [reference() for reference in kept] == [None]


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


def test_dropout_is_off_and_comes_back() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    net[1].eval()

    def fail() -> None:
        with without_dropout(net):
            assert not any(part.training for part in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [part.training for part in net.modules()] == [True, True, False, False]


def test_the_allocator_setting_is_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name} is not here")

    monkeypatch.setattr(functional.ctypes, "CDLL", absent)
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
    assert told == {-3: functional.LARGEST_KEPT_BLOCK, -1: functional.LARGEST_KEPT_BLOCK}
