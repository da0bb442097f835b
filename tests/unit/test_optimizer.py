"""The outer loop's optimiser against definitions: singular vectors, AdamW, and which weights are matrices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quickstudy.nn.encoders import ImageEncoder
from quickstudy.training.optimizer import Muon, optimizer_of, orthogonalise, uphill


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 99))
def test_singular_directions_stay_and_their_values_meet_at_one(
    rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonalise([matrix])[0] @ right.T
    found = inside.diagonal()
    assert torch.allclose(inside, torch.diag(found), atol=1e-9)
    assert bool((found < 1.25).all())
    assert bool((found[values > 0.05 * values[0]] > 0.6).all())


def test_the_gram_matrix_gives_what_the_plain_iteration_gives() -> None:
    matrix = torch.randn(8, 30, dtype=torch.float64)
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    other = torch.randn(8, 8, dtype=torch.float64)
    wide, square, high = orthogonalise([matrix, other, matrix.T])
    assert torch.allclose(wide, x, atol=1e-12)
    assert torch.allclose(high, x.T, atol=1e-12)
    assert torch.equal(square, orthogonalise([other])[0])


def test_nothing_to_learn_is_no_step() -> None:
    assert orthogonalise([torch.zeros(3, 5)])[0].abs().max() == 0


def test_matrices_follow_the_reference_and_vectors_follow_adamw() -> None:
    def layer() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(24, 16)

    ours, matrices, vectors = layer(), layer(), layer()
    optimizers = [
        optimizer_of(ours, "muon", rate=0.01, weight_decay=0.1, fused=True),
        torch.optim.Muon(
            [matrices.weight], lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW([vectors.bias], lr=0.01, weight_decay=0.0, fused=True),
    ]
    start = ours.weight.detach().clone()
    for step in range(4):
        x = torch.randn(99, 24, generator=torch.Generator().manual_seed(step))
        target = torch.randn(99, 16, generator=torch.Generator().manual_seed(99 - step))
        gradients = torch.autograd.grad((ours(x) - target).square().mean(), ours.parameters())
        for module in (ours, matrices, vectors):
            for weight, gradient in zip(module.parameters(), gradients, strict=True):
                weight.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(ours.bias, vectors.bias)
    moved, reference = ours.weight - start, matrices.weight - start
    # The reference computes in bfloat16.
    assert (moved - reference).norm() < 0.03 * reference.norm()


def test_which_weights_are_turned() -> None:
    encoder = ImageEncoder(16, layers=1)
    frozen = encoder.readout.weight
    frozen.requires_grad_(False)
    groups = optimizer_of(encoder, "muon", rate=0.1, weight_decay=0.5, fused=True).param_groups
    names = {parameter: name for name, parameter in encoder.named_parameters()}
    turned, other, vectors = ([names[p] for p in group["params"]] for group in groups)
    assert "transformer.blocks.0.attention.query.weight" in turned
    assert "stem.3.0.weight" in turned
    assert other == ["positions.table"]
    assert "transformer.norm.weight" in vectors
    assert "readout.weight" not in turned + other + vectors
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5, 0.0]
    assert [group["orthogonal"] for group in groups] == [True, False, False]


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_loaded_state_goes_on_where_it_was(name: str) -> None:
    def run(steps: range, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for step in steps:
            x = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = ImageEncoder(8, heads=2)
        return model, optimizer_of(model, name, rate=0.01, weight_decay=0.1, fused=True)

    whole, first, second = fresh(), fresh(), fresh()
    run(range(4), *whole)
    run(range(2), *first)
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    run(range(2, 4), *second)
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_closure_is_run_with_derivatives() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert weight.grad is not None
    assert bool((weight < 1).all())


def test_a_sharpness_aware_step_on_a_parabola_is_a_closed_form() -> None:
    rows = torch.randn(5, 5, dtype=torch.float64)
    curvature, start = rows @ rows.T, torch.randn(5, dtype=torch.float64)
    parts = nn.Parameter(start[:2].clone()), nn.Parameter(start[2:].clone())
    idle = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([*parts, idle], lr=0.1)

    def slope() -> None:
        optimizer.zero_grad()
        weight = torch.cat(parts)
        (0.5 * weight @ curvature @ weight).backward()

    slope()
    with uphill([*parts, idle], 0.3):
        slope()
    assert torch.equal(torch.cat(parts), start)
    optimizer.step()
    g = curvature @ start
    expected = start - 0.1 * curvature @ (start + 0.3 * g / g.norm())
    assert torch.allclose(torch.cat(parts), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(idle, torch.ones(3))


def test_the_scale_of_a_gradient_does_not_change_the_way_and_an_overflow_leads_back() -> None:
    """As under float16, whose gradients are scaled; a step whose gradient is not finite is skipped there."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    places = []
    for scale in (1.0, 2.0**16):
        weight.grad = scale * torch.tensor([0.3, -0.7], dtype=torch.float64)
        with uphill([weight], 0.1):
            places.append(weight.detach().clone())
    assert torch.allclose(*places, rtol=1e-14)
    weight.grad = torch.tensor([torch.inf, 1.0], dtype=torch.float64)
    with uphill([weight], 0.1):
        assert not weight.isfinite().all()
    assert weight.tolist() == [1.0, 2.0]


def test_where_nothing_slopes_uphill_is_here_and_a_failure_leads_back() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.zeros(2)
    with uphill([weight], 1.0):
        assert torch.equal(weight, torch.ones(2))
    weight.grad = torch.ones(2)

    def fail() -> None:
        with uphill([weight], 1.0):
            assert not torch.equal(weight, torch.ones(2))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(weight, torch.ones(2))
