"""Bayesian linear regression on learned features, under a learned prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.functional import full_precision, widened
from quickstudy.learners.base import Learner
from quickstudy.learners.conditional_process import check_values
from quickstudy.likelihood import Gaussian
from quickstudy.nn.encoders import Encoder

SPREAD = 10.0
"""Prior standard deviation of a weight before training, in those of the noise."""


class BayesianLinearState(NamedTuple):
    """The support as the encoder sees it; adding examples is learning more."""

    features: Tensor
    """(task, example, width of the encoder)"""
    y: Tensor
    """(task, example, values)"""
    mask: Tensor
    """bool (task, example)"""


class BayesianLinear(Learner):
    """Predicts numbers by the exact posterior of a linear map of learned features, whose prior is learned with them.

    ``y = Wᵀ z(x) + ε``, ``z = (f(x) / √width, 1)``, ``W ~ N(M, σ² D)`` and ``ε ~ N(0, σ²)``, M, the diagonal D and σ
    learned. With the rows ``a = D^½ z`` of A and the residuals ``R = Y - Z M`` of the support,

        mean(x) = Mᵀ z + aᵀ Aᵀ (A Aᵀ + I)⁻¹ R = Mᵀ z + aᵀ (Aᵀ A + I)⁻¹ Aᵀ R,
        var(x) = σ² (1 + aᵀ (Aᵀ A + I)⁻¹ a).

    Of the two forms, the one with fewer equations is solved: as many as examples, or as there are features. Without
    support, the answer is the prior.

    Harrison et al. 2018, Meta-Learning Priors for Efficient Online Bayesian Regression (ALPaCA). Differs from the
    paper: the prior's precision is diagonal, which features that are learned with it make up for, and σ is learned.

    Args:
        encoder: maps an example to a vector.
        values: numbers that a task predicts, each with weights and a noise of its own.
        noise: σ before training.

    Raises:
        ValueError: no values, or the noise is not positive; at adaptation, tasks with another number of values.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x = torch.tensor([[[0.0], [1.0], [2.0]]])
    >>> support = Examples(x, 3 * x - 1, torch.ones(1, 3, dtype=torch.bool))
    >>> context = Context(torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 0), torch.zeros(1, 1, 0))
    >>> learner = BayesianLinear(RawEncoder(1), values=1)
    >>> state = learner.adapt(support, context)
    >>> answer = learner.predict(state, torch.tensor([[[4.0]]]), context)[0, 0, 0].item()
    >>> abs(answer - 11) < 0.2
    True
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = BayesianLinearState
    likelihood: Gaussian

    def __init__(self, encoder: Encoder, *, values: int = 0, noise: float = 0.3) -> None:
        check_values(values)
        if noise <= 0:
            raise ValueError(f"The noise must be positive; found {noise}.")
        super().__init__(encoder, Gaussian())
        self.values = values
        self.center = nn.Parameter(torch.zeros(encoder.width + 1, values))
        self.log_spread = nn.Parameter(torch.full((encoder.width + 1,), math.log(SPREAD)))
        self.log_noise = nn.Parameter(torch.full((values,), math.log(noise)))

    def adapt(
        self, support: Examples, context: Context, state: BayesianLinearState | None = None
    ) -> BayesianLinearState:
        check_values(self.values, context)
        examples = support._replace(x=self.encode(support.x))
        if state is not None:
            examples = concatenate(Examples(*state), examples)
        return BayesianLinearState(*examples)

    def predict(self, state: BayesianLinearState, x: Inputs, context: Context) -> Tensor:
        check_values(self.values, context)
        asked = self._rows(self.encode(x))
        with full_precision(asked.device):
            known = self._rows(state.features) * state.mask[..., None]
            center, spread = widened(self.center), widened(self.log_spread).exp()
            residual = (state.y.to(known.dtype) - known @ center) * state.mask[..., None]
            mean, rows, queries = asked @ center, known * spread, asked * spread
            prior = queries.square().sum(-1)
            examples, width = rows.shape[1:]
            if examples <= width:
                factor = _factor(rows @ rows.mT)
                towards = rows @ queries.mT
                found = torch.cholesky_solve(towards, factor)
                mean = mean + found.mT @ residual
                left = prior - (towards * found).sum(1)
            else:
                factor = _factor(rows.mT @ rows)
                mean = mean + queries @ torch.cholesky_solve(rows.mT @ residual, factor)
                left = (queries * torch.cholesky_solve(queries.mT, factor).mT).sum(-1)
            noise = widened(self.log_noise).exp()
            deviation = noise * (1 + left.clamp(min=0)).sqrt()[..., None]
            return self.likelihood.outputs(mean, deviation)

    def _rows(self, features: Tensor) -> Tensor:
        """z, (task, example, width + 1)."""
        features = widened(features) / math.sqrt(features.shape[-1])
        return F.pad(features, (0, 1), value=1.0)


def _factor(products: Tensor) -> Tensor:
    """The Cholesky factor of ``products + I``."""
    one = torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
    return torch.linalg.cholesky(products + one)
