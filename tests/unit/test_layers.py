"""Layers against the formulas that they implement, and their derivatives against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import quickstudy.nn.attention
from quickstudy.functional import exact_derivatives
from quickstudy.nn.layers import (
    Attention,
    Block,
    Norm,
    Transformer,
    attention,
    isolated_attention,
)
from quickstudy.nn.positions import LearnedPositions, SinusoidalPositions, rotate

close = torch.testing.assert_close


def by_hand(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    weights = torch.where(seen, scores.exp(), 0)
    return weights / weights.sum(-1, keepdim=True) @ value


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("short", [0, 64])
def test_attention_is_softmax_of_scaled_products(
    causal: bool, padded: bool, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstudy.nn.attention, "SHORT", short)
    query, key, value = torch.randn(3, 2, 4, 5, 6, dtype=torch.float64)
    seen = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask = None
    if padded:
        mask = torch.arange(5) < torch.tensor([3, 5])[:, None, None, None]
        seen = seen & mask
    if causal:
        seen = seen & torch.ones(5, 5, dtype=torch.bool).tril()
    close(attention(query, key, value, mask=mask, causal=causal), by_hand(query, key, value, seen))


QUERIES = Float[Tensor, "*batch query width"]
KEYS = Float[Tensor, "*batch key width"]


def test_attention_keeps_its_shapes() -> None:
    @jaxtyped(typechecker=beartype)
    def typed(query: QUERIES, key: KEYS, value: KEYS) -> QUERIES:
        return attention(query, key, value)

    typed(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5))


def test_isolated_attention_is_one_sequence_for_each_query() -> None:
    query, own_key, own_value = torch.randn(3, 2, 3, 4, 6, dtype=torch.float64)
    key, value = torch.randn(2, 2, 3, 5, 6, dtype=torch.float64)
    mask = (torch.arange(5) < torch.tensor([0, 4])[:, None])[:, None, None]
    together = isolated_attention(query, key, value, own_key, own_value, mask=mask)
    for place in range(4):
        here = slice(place, place + 1)
        keys = torch.cat([key, own_key[:, :, here]], 2)
        values = torch.cat([value, own_value[:, :, here]], 2)
        seen = torch.cat([mask, torch.ones(2, 1, 1, 1, dtype=torch.bool)], -1)
        close(together[:, :, here], by_hand(query[:, :, here], keys, values, seen))


def test_multi_head_attention_is_that_of_torch() -> None:
    own = Attention(8, heads=2).double()
    stock = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        parts = (own.query, own.key, own.value)
        stock.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        stock.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        stock.out_proj.load_state_dict(own.out.state_dict())
    x, memory = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    close(own(x, memory), stock(x, memory, memory, need_weights=False)[0])
    close(own(x, own.keys_values(memory)), own(x, memory))


def test_rotary_products_depend_on_distance_only() -> None:
    query, key = torch.randn(2, 8, dtype=torch.float64)
    products = rotate(query.expand(7, 8)) @ rotate(key.expand(7, 8)).T
    for distance in range(-6, 7):
        same = products.diagonal(distance)
        close(same, same[:1].expand_as(same))
    close(rotate(query.expand(3, 8)).norm(dim=-1), query.norm().expand(3))


def test_sinusoidal_positions_follow_the_formula() -> None:
    table = SinusoidalPositions(6)(torch.zeros(4, 6, dtype=torch.float64))
    for place in range(4):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            assert table[place, 2 * pair].item() == pytest.approx(math.sin(angle))
            assert table[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle))


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="even width; found 5"):
        SinusoidalPositions(5)
    with pytest.raises(ValueError, match="width 6 and 4 heads"):
        Attention(6, heads=4)
    with pytest.raises(ValueError, match="5 tokens, but positions were learned for 4"):
        LearnedPositions(2, length=4)(torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match="no positions"):
        Attention(4, heads=1, rotary=True).isolated(*torch.zeros(3, 1, 1, 4), mask=torch.ones(1, 1))


@pytest.mark.parametrize("affine", [True, False])
def test_norm_is_layer_norm(affine: bool) -> None:
    own, stock = (kind(5, elementwise_affine=affine).double() for kind in (Norm, nn.LayerNorm))
    if affine:
        with torch.no_grad():
            own.weight.normal_()
            own.bias.normal_()
    stock.load_state_dict(own.state_dict())
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    close(own(x), stock(x))
    close(vmap(own)(x), stock(x))
    slopes = [torch.autograd.grad(norm(x).pow(3).sum(), x)[0] for norm in (own, stock)]
    close(*slopes)


def second_order_error(norm: nn.Module) -> float:
    """Relative error of an outer gradient that goes through vmap around an inner gradient, against a loop."""
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    weights = {name: value.detach() for name, value in norm.named_parameters()}

    def slope(x: Tensor) -> Tensor:
        loss = grad(lambda own: functional_call(norm, own, (x,)).pow(3).sum())
        return sum(value.square().sum() for value in loss(weights).values())

    (by_vmap,) = torch.autograd.grad(vmap(slope)(x).sum(), x)
    (by_loop,) = torch.autograd.grad(sum(slope(each) for each in x), x)
    return float((by_vmap - by_loop).norm() / by_loop.norm())


@pytest.mark.parametrize("kind", [Norm, lambda width: nn.GroupNorm(2, width)])
def test_norms_keep_second_derivatives_through_vmap(kind: type) -> None:
    assert second_order_error(kind(6).double()) < 1e-12


def test_norm_keeps_second_derivatives_through_many_gradients_at_once() -> None:
    norm, x = Norm(6).double(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    ways = torch.randn(3, 4, 6, dtype=torch.float64)
    out = norm(x).sin()
    slopes = torch.autograd.grad(out, x, ways, is_grads_batched=True, create_graph=True)[0]
    (at_once,) = torch.autograd.grad(slopes.square().sum(), norm.weight, retain_graph=True)
    looped = [torch.autograd.grad(out, x, way, create_graph=True)[0] for way in ways]
    (one_by_one,) = torch.autograd.grad(torch.stack(looped).square().sum(), norm.weight)
    close(at_once, one_by_one)


def test_the_stock_layer_norm_does_not_which_is_why_norm_exists() -> None:
    assert second_order_error(nn.LayerNorm(6).double()) > 1e-3


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_block_has_second_derivatives_under_the_maths_kernel(dropout: float) -> None:
    block = Block(8, heads=2, dropout=dropout).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with exact_derivatives():
        loss = block(x).square().sum()
        slopes = torch.autograd.grad(loss, list(block.parameters()), create_graph=True)
        sum(slope.square().sum() for slope in slopes).backward()
    assert all(value.grad.isfinite().all() for value in block.parameters())


def test_a_memory_read_token_by_token_is_a_masked_sequence() -> None:
    stack = Transformer(8, layers=3, heads=2).double().eval()
    support, queries = torch.randn(2, 4, 8).double(), torch.randn(2, 5, 8).double()
    exists = torch.arange(4) < torch.tensor([2, 4])[:, None]
    keys, values = stack.memorise(support, mask=exists[:, None, None])
    own = stack.isolated(queries, keys, values, mask=exists[:, None, None])
    seen = torch.zeros(2, 9, 9, dtype=torch.bool)
    seen[:, :, :4] = exists[:, None]
    seen[:, 4:, 4:] = torch.eye(5, dtype=torch.bool)
    whole = stack(torch.cat([support, queries], 1), mask=seen[:, None])
    close(own, whole[:, 4:])


@pytest.mark.parametrize("layers", [1, 3])
def test_one_stream_is_reading_and_then_asking(layers: int) -> None:
    stack = Transformer(8, layers=layers, heads=2).double()
    support, queries = torch.randn(2, 4, 8).double(), torch.randn(2, 5, 8).double()
    exists = torch.arange(4) < torch.tensor([0, 3])[:, None]
    between = (exists[:, None] | torch.eye(4, dtype=torch.bool))[:, None]
    seen = exists[:, None, None]
    weights = list(stack.parameters())
    two = stack.isolated(queries, *stack.memorise(support, mask=between), mask=seen)
    one = stack.together(support, queries, memory_mask=between, mask=seen)
    close(one, two)
    slopes = [torch.autograd.grad(each.pow(3).sum(), weights) for each in (one, two)]
    close(*slopes)


def test_dropout_only_drops_while_training() -> None:
    stack = Transformer(8, layers=1, heads=2, dropout=0.5)
    x = torch.randn(1, 4, 8)
    assert not torch.equal(stack(x), stack(x))
    stack.eval()
    assert torch.equal(stack(x), stack(x))
