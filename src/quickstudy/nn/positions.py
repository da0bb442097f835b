"""How tokens know their place: positions that are added to them, and positions that turn them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class SinusoidalPositions(nn.Module):
    """Fixed positions added to tokens: ``p[i, 2j] = sin(i / 10000^(2j/d))``, ``p[i, 2j+1] = cos(…)``.

    Vaswani et al. 2017, section 3.5.

    >>> SinusoidalPositions(8)(torch.zeros(1, 3, 8))[0, 0].tolist()
    [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"Sinusoidal positions need an even width; found {width}.")
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)[:, None]
        rates = torch.exp(
            torch.arange(0, self.width, 2, device=x.device, dtype=x.dtype)
            * (-math.log(1e4) / self.width)
        )
        angles = steps * rates
        return x + torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


class LearnedPositions(nn.Module):
    """Trained positions added to tokens, for at most ``length`` of them.

    >>> LearnedPositions(8, length=4)(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, width: int, *, length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions anew."""
        nn.init.normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] > len(self.table):
            raise ValueError(
                f"{x.shape[-2]} tokens, but positions were learned for {len(self.table)}; shorten the input."
            )
        return x + self.table[: x.shape[-2]]


class Turn(NamedTuple):
    """By what angles pairs of features are turned."""

    cos: Tensor
    """(…, token, width / 2)"""
    sin: Tensor
    """(…, token, width / 2)"""

    @classmethod
    def by(cls, angles: Tensor) -> Turn:
        """By these angles."""
        return cls(angles.cos(), angles.sin())

    def of(self, tokens: slice) -> Turn:
        """That of some of the tokens."""
        return Turn(self.cos[..., tokens, :], self.sin[..., tokens, :])


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Each pair of features (2j, 2j+1) turned by an angle of its own, so products depend on differences of angles only.

    Args:
        x: (…, token, width), width even.
        turn: of each pair.

    >>> quarter = Turn.by(torch.full((1, 1), math.pi / 2))
    >>> bool((turned(torch.tensor([[1.0, 0.0]]), quarter) - torch.tensor([[0.0, 1.0]])).abs().max() < 1e-6)
    True
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turn
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions: turn each pair of features (2j, 2j+1) of token i by the angle ``i / 10000^(2j/d)``.

    Su et al. 2021, RoFormer, equation 34. Applied to queries and keys, so their product depends on distance
    only.

    Args:
        x: (…, token, width), width even.
    """
    width = x.shape[-1]
    steps = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)[:, None]
    rates = torch.exp(
        torch.arange(0, width, 2, device=x.device, dtype=x.dtype) * (-math.log(1e4) / width)
    )
    return turned(x, Turn.by(steps * rates))
