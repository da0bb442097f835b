"""The optimisers of the outer loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

ITERATION = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, which drives singular values into 0.7 … 1.2 rather than to 1 (Jordan 2024)."""

ITERATIONS = 5

SIZE = 0.4
"""A step's root mean square, in rates; AdamW's is about half of it."""


@torch.no_grad()
def orthogonalise(matrices: Sequence[Tensor]) -> list[Tensor]:
    """About the nearest matrices whose rows, or columns if they are fewer, are orthonormal: ``U Vᵀ`` for ``U S Vᵀ``.

    ``X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X``, from ``X = G / ‖G‖``. Every step is a polynomial of ``X Xᵀ`` times ``X``, so
    the polynomials are multiplied in the smaller dimension, those of equal size together, and each matrix is touched
    twice, whatever the steps.

    Args:
        matrices: each (row, column).

    Returns:
        Matrices of the same shapes, singular values in about 0.7 … 1.2; those below 1e-3 of the largest stay small.

    >>> (found,) = orthogonalise([torch.tensor([[3.0, 0.0], [0.0, 0.5]])])
    >>> bool((found.diagonal() - 1).abs().max() < 0.35), found[0, 1].item()
    (True, 0.0)
    """
    a, b, c = ITERATION
    wide = [each if each.shape[0] <= each.shape[1] else each.T for each in matrices]
    wide = [each / each.norm().clamp(min=1e-30) for each in wide]
    products: dict[int, Iterator[Tensor]] = {}
    for side in {len(each) for each in wide}:
        gram = torch.stack([each @ each.T for each in wide if len(each) == side])
        product: Tensor | None = None
        for left in reversed(range(ITERATIONS)):
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal(dim1=1, dim2=2).add_(a)
            product = factor if product is None else factor @ product
            if left:
                gram = factor @ gram @ factor
        assert product is not None
        products[side] = iter(product)
    found = [next(products[len(each)]) @ each for each in wide]
    return [f if f.shape == m.shape else f.T for f, m in zip(found, matrices, strict=True)]


class Muon(torch.optim.AdamW):
    """Momentum whose matrices are orthogonalised; everything else takes the step of AdamW.

    ``M ← μ M + (1 - μ) G``, ``θ ← (1 - η λ) θ - 0.4 η √max(n, m) · UVᵀ(μ M + (1 - μ) G)`` for a weight of n rows and
    m columns, so that each singular direction of a layer learns as fast as the others. The factor makes a step as
    large as two of AdamW's, so one rate serves both.

    Jordan 2024, Muon: An optimizer for hidden layers in neural networks; the factor from Liu et al. 2025, Muon is
    Scalable for LLM Training, where it is 0.2. Differs: the iteration keeps the precision of the weights; a convolution
    is the matrix of its output channels.

    Args:
        groups: parameter groups as for AdamW; those with ``orthogonal=True`` hold matrices and convolutions.
        momentum: μ.
        options: of AdamW.

    >>> weight = nn.Parameter(torch.eye(2))
    >>> optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1, weight_decay=0.0)
    >>> weight.grad = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> _ = optimizer.step()
    >>> bool(weight[0, 0] < 1), weight[0, 1].item()
    (True, 0.0)
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, momentum: float = 0.95, **options: Any
    ) -> None:
        super().__init__(
            [{"orthogonal": False, "momentum": momentum, **g} for g in groups], **options
        )

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; AdamW passes over what has no gradient, which is how it leaves the matrices alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        turned = [
            (weight, weight.grad, group)
            for group in self.param_groups
            if group["orthogonal"]
            for weight in group["params"]
            if weight.grad is not None
        ]
        self._turn(turned)
        for weight, _, _ in turned:
            weight.grad = None
        super().step()
        for weight, gradient, _ in turned:
            weight.grad = gradient
        return loss

    @torch.no_grad()
    def _turn(self, turned: Sequence[tuple[Tensor, Tensor, dict[str, Any]]]) -> None:
        matrices = []
        for weight, gradient, group in turned:
            state = self.state[weight]
            if not state:
                # AdamW expects a count of steps in every state that it loads.
                state["step"] = torch.zeros(())
                state["momentum"] = torch.zeros_like(weight)
            state["step"] += 1
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            matrices.append(gradient.lerp(momentum, group["momentum"]).flatten(1))
        for (weight, _, group), matrix in zip(turned, orthogonalise(matrices), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            size = SIZE * group["lr"] * math.sqrt(max(matrix.shape))
            weight.sub_(matrix.reshape(weight.shape), alpha=size)


@contextmanager
def uphill(weights: Iterable[Tensor], distance: float) -> Iterator[None]:
    """For a while, weights are where their loss is about the highest nearby: ``θ + ρ g / ‖g‖``, g their gradients.

    The gradient of that place belongs to the sharpness-aware step, ``θ ← θ - η ∇L(θ + ρ g / ‖g‖)``, which prefers
    minima whose surroundings are low as well.

    Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization; for the outer loop of
    meta-learning, Abbas et al. 2022, Sharp-MAML, whose upper level this is.

    Args:
        weights: those without a gradient stay, as all do where the gradient is zero.
        distance: ρ.

    >>> weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> weight.grad = weight.detach().clone()
    >>> with uphill([weight], 5.0):
    ...     print(weight.tolist())
    [6.0, 8.0]
    >>> weight.tolist()
    [3.0, 4.0]
    """
    moved = [weight for weight in weights if weight.grad is not None]
    gradients = [weight.grad for weight in moved if weight.grad is not None]
    kept = [weight.detach().clone() for weight in moved]
    with torch.no_grad():
        scale = distance / torch.nn.utils.get_total_norm(gradients).clamp(min=1e-12)
        for weight, gradient in zip(moved, gradients, strict=True):
            weight.add_(gradient * scale)
    try:
        yield
    finally:
        # Going back by the same way would round.
        with torch.no_grad():
            for weight, old in zip(moved, kept, strict=True):
                weight.copy_(old)


def optimizer_of(
    module: nn.Module,
    name: Literal["muon", "adamw"],
    *,
    rate: float,
    weight_decay: float,
    fused: bool,
) -> torch.optim.Optimizer:
    """The optimiser of a module's trainable weights; scales, shifts and other vectors are not decayed.

    Under ``muon`` the weights of linear and convolutional layers are orthogonalised, while embeddings, positions and
    vectors take AdamW's step.
    """
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    hidden = {part.weight for part in module.modules() if isinstance(part, layers)}
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if weight.ndim > 1]
    groups = [
        {"params": [w for w in matrices if w in hidden], "weight_decay": weight_decay},
        {"params": [w for w in matrices if w not in hidden], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    groups[0]["orthogonal"] = True
    return Muon(groups, lr=rate, fused=fused)
