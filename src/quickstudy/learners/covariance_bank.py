"""What is expected of the covariances of tasks before any example, as training learns it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.learners.covariances import RATE
from quickstudy.learners.laplace import Prior

LENGTH = 1.0
"""Of the distance of two examples, or of the way within a turn: where values begin to differ, before training."""
AT_REST = 0.01
"""Trend of a covariance that turns, and circle of one that does not, before training."""
SCALE_AT_FIRST, NOISE_AT_FIRST = 0.5, 0.1
SPREAD = 0.7
"""Standard deviation of the logarithm of a setting, before training."""
NEIGHBOURS = 1.0
"""Standard deviation of a rate, as a share of its distance to the next one."""


class CovarianceBank(nn.Module):
    """Covariances that tasks may have, and how likely each is: two that fade with distance, and some that turn.

    The rates of those that turn are log-normal about given ones. All other settings of a kind are one log-normal, whose
    means and deviations are learned. Of those that fade, the second is rough.

    Args:
        rates: that turn.
        slowest: of the rates.
        fastest: of the rates; those between are equally far apart.
    """

    kind: Tensor
    log_rate: Tensor
    log_rate_spread: Tensor

    def __init__(self, rates: int, slowest: float, fastest: float) -> None:
        super().__init__()
        fades, turns = (1 / LENGTH, AT_REST), (AT_REST, 1 / LENGTH)
        kinds = [fades, fades, *[turns] * min(1, rates)]
        center = [(*shape, SCALE_AT_FIRST, NOISE_AT_FIRST) for shape in kinds]
        self.center = nn.Parameter(torch.tensor(center).log())
        self.log_spread = nn.Parameter(torch.full_like(self.center, SPREAD).log())
        shares = torch.tensor([1.0, 1.0, *[1 / max(1, rates)] * rates])
        self.log_share = nn.Parameter(shares.log())
        turning = torch.linspace(slowest, fastest, rates)
        apart = (fastest - slowest) / (rates - 1) if rates > 1 else slowest
        about = torch.cat([torch.ones(2), turning])
        self.register_buffer("log_rate", about.log())
        spread = NEIGHBOURS * apart / about
        self.register_buffer("log_rate_spread", spread.log())
        self.register_buffer("kind", torch.arange(len(shares)).clamp(max=2))

    def __len__(self) -> int:
        return len(self.kind)

    def prior(self, chosen: Tensor, dtype: torch.dtype = torch.float64) -> Prior:
        """Of the covariances with these numbers, (task or 1, covariance)."""
        kind = self.kind[chosen]
        rate, spread = (each[chosen][..., None] for each in (self.log_rate, self.log_rate_spread))
        center, log_spread = (
            torch.cat([each[..., :RATE], about, each[..., RATE:]], -1).to(dtype)
            for each, about in ((self.center[kind], rate), (self.log_spread[kind], spread))
        )
        share = self.log_share.log_softmax(0)[chosen]
        return Prior(center, log_spread, share.to(dtype), kind == 1)
