"""Closed-form learners: a convex problem on the support's embeddings, solved inside the model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.functional import full_precision
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN, class_sums
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder


class RidgeState(NamedTuple):
    """The sufficient statistics of least squares; adding two of them is learning more."""

    gram: Tensor
    """Σ z zᵀ, (task, width + 1, width + 1)"""
    moments: Tensor
    """Σ z yᵀ, (task, width + 1, way); the last row counts the examples of each class"""


class Ridge(Learner):
    """Ridge regression from embeddings to one-hot classes, differentiated through its solution.

    ``logit(x) = α z(x)ᵀ (Σ z zᵀ + λ I)⁻¹ Σ z yᵀ`` with ``z = (f(x) / √width, 1)`` and y one-hot; λ and α are
    learned.

    Bertinetto et al. 2019, Meta-learning with differentiable closed-form solvers (R2D2). Differs from the
    paper: the primal form, whose sums make learning more an addition; embeddings are divided by √width, so
    that one λ suits every width; the paper's shift β of all logits is left out, because softmax cancels it; a
    class without examples is never the answer.

    Args:
        encoder: maps an example to a vector.
        penalty: initial λ.
        scale: initial α.
        label_smoothing: of the training loss.

    Raises:
        ValueError: penalty or scale is not positive.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 2, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = Ridge(RawEncoder(1), penalty=1e-6, scale=1.0)
    >>> state = learner.adapt(support, context)
    >>> learner.predict(state, torch.tensor([[[0.75]]]), context).detach().round(decimals=3)
    tensor([[[0.2500, 0.7500]]])
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = RidgeState

    def __init__(
        self,
        encoder: Encoder,
        *,
        penalty: float = 0.1,
        scale: float = 10.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        for name, value in (("penalty", penalty), ("scale", scale)):
            if value <= 0:
                raise ValueError(f"The {name} must be positive; found {value}.")
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings with a one behind them, (task, example, width + 1)."""
        features = self.encode(x)
        features = features.to(self.log_scale.dtype) / math.sqrt(features.shape[-1])
        return F.pad(features, (0, 1), value=1.0)

    def adapt(
        self, support: Examples, context: Context, state: RidgeState | None = None
    ) -> RidgeState:
        rows = self.embed(support.x)
        with full_precision(rows.device):
            kept = rows * support.mask[..., None]
            gram = kept.transpose(1, 2) @ kept
            moments = class_sums(kept, support, context.classes.shape[1])[0].transpose(1, 2)
        if state is None:
            return RidgeState(gram, moments)
        return RidgeState(state.gram + gram, state.moments + moments)

    def predict(self, state: RidgeState, x: Inputs, context: Context) -> Tensor:
        rows = self.embed(x)
        with full_precision(rows.device):
            identity = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
            factor = torch.linalg.cholesky(state.gram + self.log_penalty.exp() * identity)
            weights = torch.cholesky_solve(state.moments, factor)
            logits = rows @ weights * self.log_scale.exp()
        return logits.masked_fill(state.moments[:, -1:] == 0, UNSEEN)


class LinearState(NamedTuple):
    """The embedded support and the linear head that was fitted to it."""

    features: Tensor
    """(task, example, width)"""
    labels: Tensor
    """int64 (task, example)"""
    mask: Tensor
    """bool (task, example)"""
    weights: Tensor
    """(task, width, way)"""
    bias: Tensor
    """(task, 1, way)"""


class LinearHead(Learner):
    """A linear head fitted to the support's embeddings: multinomial logistic regression with an L2 penalty.

    ``min_{W, b} Σ_i -log softmax(Wᵀ f(x_i) + b)_{y_i} + λ/2 ‖W‖²``

    The usual baseline of fine-tuning the head, as in Chen et al. 2019, A Closer Look at Few-shot
    Classification, and Tian et al. 2020, Rethinking Few-shot Image Classification. Differs from the papers: a
    fixed number of accelerated gradient steps (Nesterov 1983) for all tasks of a batch at once, with the
    softmax gradient in closed form, so that the encoder can be trained through the fit as well. Without
    support all logits are equal.

    Args:
        encoder: maps an example to a vector.
        penalty: λ.
        steps: gradient steps.
        unit_length: scale embeddings to length one first.
        label_smoothing: of the training loss.

    Raises:
        ValueError: penalty or steps is not positive.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 2, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = LinearHead(RawEncoder(1))
    >>> learner.predict(learner.adapt(support, context), x, context).argmax(-1)
    tensor([[0, 1]])
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = LinearState

    def __init__(
        self,
        encoder: Encoder,
        *,
        penalty: float = 0.1,
        steps: int = 64,
        unit_length: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if penalty <= 0:
            raise ValueError(f"The penalty must be positive; found {penalty}.")
        if steps < 1:
            raise ValueError(f"The number of steps must be at least 1; found {steps}.")
        self.penalty, self.steps, self.unit_length = penalty, steps, unit_length

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width), of unit length if asked for."""
        features = self.encode(x)
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        return F.normalize(features, dim=-1) if self.unit_length else features

    def adapt(
        self, support: Examples, context: Context, state: LinearState | None = None
    ) -> LinearState:
        examples = support._replace(x=self.embed(support.x))
        if state is not None:
            examples = concatenate(Examples(state.features, state.labels, state.mask), examples)
        with full_precision(examples.x.device):
            weights, bias = fit_logistic(examples, context, penalty=self.penalty, steps=self.steps)
        return LinearState(*examples, weights, bias)

    def predict(self, state: LinearState, x: Inputs, context: Context) -> Tensor:
        rows = self.embed(x)
        with full_precision(rows.device):
            return rows @ state.weights + state.bias


def largest_eigenvalue_bound(gram: Tensor) -> Tensor:
    """A smooth upper bound on the largest eigenvalue: ``λ₁ ≤ (Σ_i λ_i⁸)^(1/8) = tr(G⁸)^(1/8)``.

    At most n^(1/8) too large (1.8 for n = 100), and differentiable where eigenvalues coincide.

    Args:
        gram: positive semidefinite, (…, n, n).

    Returns:
        (…, 1, 1); a tiny positive number for a matrix of zeros.

    >>> largest_eigenvalue_bound(torch.diag(torch.tensor([3.0, 1.0]))).item() < 3.001
    True
    """
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-12)
    scaled = gram / trace
    square = scaled @ scaled
    fourth = square @ square
    eighth = (fourth * fourth).sum((-2, -1), keepdim=True).clamp(min=1e-30)
    return trace * eighth ** (1 / 8)


def fit_logistic(
    examples: Examples, context: Context, *, penalty: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression to each task of a batch by accelerated gradient steps.

    With fewer examples than features the steps are taken on one coefficient a_i for each example, W = Σ_i x_i
    a_iᵀ, which are the same steps for less work: descent from zero never leaves the span of the examples.

    Args:
        examples: x are features (task, example, width).
        context: which classes exist.
        penalty: λ of ``λ/2 ‖W‖²`` beside the *sum* of the examples' losses; 1 / C of scikit-learn.
        steps: accelerated gradient steps from zero.

    Returns:
        Weights (task, width, way) and bias (task, 1, way), differentiable in the features.
    """
    features, labels, mask = examples
    exists = mask[..., None]
    count = exists.sum(1, keepdim=True).clamp(min=1).to(features.dtype)
    # A shift of the features is absorbed by the bias, and centred features need far fewer steps.
    centre = torch.where(exists, features, 0).sum(1, keepdim=True) / count
    rows = torch.where(exists, features - centre, 0)
    columns = rows.transpose(1, 2)
    way = context.classes.shape[1]
    target = F.one_hot(labels, way).to(features.dtype) * exists
    absent = ~context.classes[:, None]

    few = rows.shape[1] <= rows.shape[2]
    gram = rows @ columns if few else columns @ rows
    # The softmax has curvature of at most one half, and centred rows do not couple W with b.
    weight_rate = 1 / (largest_eigenvalue_bound(gram) / 2 + penalty)
    bias_rate = 2 / count
    root = (penalty * weight_rate).sqrt()
    most_momentum = (1 - root) / (1 + root)
    weights = rows.new_zeros(len(rows), rows.shape[1] if few else rows.shape[2], way)
    bias = rows.new_zeros(len(rows), 1, way)
    ahead, bias_ahead = weights, bias
    for step in range(steps):
        logits = (gram if few else rows) @ ahead + bias_ahead
        error = logits.masked_fill(absent, -math.inf).softmax(-1) * exists - target
        slope = (error if few else columns @ error) + penalty * ahead
        moved = ahead - weight_rate * slope
        bias_moved = bias_ahead - bias_rate * error.sum(1, keepdim=True)
        momentum = most_momentum.clamp(max=step / (step + 3))
        ahead = moved + momentum * (moved - weights)
        bias_ahead = bias_moved + momentum * (bias_moved - bias)
        weights, bias = moved, bias_moved
    if few:
        weights = columns @ weights
    return weights, bias - centre @ weights
