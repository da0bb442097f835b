"""Worlds: endless regression tasks, and beside them the answers of one who knows how they were made."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.curves import SINUSOID, curve_posterior
from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.exact import Exact, normal
from quickstudy.data.source import DataError, Split, World
from quickstudy.episode import Context, Episode, Examples

SMALLEST_NOISE = 1e-5
"""What exact answers take for the noise of values that have none: about what rounding leaves of them."""
SMALLEST_KNOWN = 0.003
"""Noise below which sine waves are answered as if the prior of their coefficients were normal."""
FEWEST_QUERIES = 3
"""Of a task that draws their number."""


def numbers_in_examples(design: EpisodeDesign) -> int:
    """How many examples a task needs at most, its support and queries together."""
    return span(design.shot)[1] + design.queries


def split_up(
    x: Tensor,
    y: Tensor,
    design: EpisodeDesign,
    generator: torch.Generator,
    *,
    most_examples: int = 0,
) -> Episode:
    """Examples of functions as an episode: the first ones of each are the support, the others the queries.

    Args:
        x: (task, example, inputs).
        y: (task, example, values).
        design: whose shot may be a range; each task then draws its own, and the rest of its support is masked.
        generator: decides those shots, and the queries that are kept.
        most_examples: of a task, support and queries together; each task then keeps a random number of its queries,
            from 3 up, and the others are masked. 0 keeps all.

    Raises:
        DataError: so many examples leave no room for 3 queries.
    """
    low, shot = span(design.shot)
    tasks = len(x)
    mask = torch.ones(tasks, x.shape[1], dtype=torch.bool)
    shots = torch.full((tasks, 1), shot)
    if low < shot:
        shots = torch.randint(low, shot + 1, (tasks, 1), generator=generator)
        mask[:, :shot] = torch.arange(shot) < shots
    if most_examples:
        if min(most_examples - shot, design.queries) < FEWEST_QUERIES:
            raise DataError(
                f"Found tasks of {shot} support examples and {design.queries} queries, of which most_examples keeps "
                f"{most_examples} together; leave room for {FEWEST_QUERIES} queries."
            )
        room = (most_examples - shots).clamp(max=design.queries) - FEWEST_QUERIES + 1
        more = (torch.rand(tasks, 1, generator=generator) * room).long()
        mask[:, shot:] = torch.arange(design.queries) < FEWEST_QUERIES + more
    values = y.shape[2]
    return Episode(
        support=Examples(x[:, :shot], y[:, :shot], mask[:, :shot]),
        query=Examples(x[:, shot:], y[:, shot:], mask[:, shot:]),
        context=Context(
            classes=torch.ones(tasks, values, dtype=torch.bool),
            description=torch.zeros(tasks, 0),
            names=torch.zeros(tasks, values, 0, dtype=torch.int64),
        ),
    )


def linear_posterior(
    support: Tensor,
    y: Tensor,
    mask: Tensor,
    queries: Tensor,
    *,
    mean: Tensor,
    covariance: Tensor,
    noise: float,
) -> tuple[Tensor, Tensor]:
    """The posterior at the queries of ``y = wᵀ f + ε`` with ``w ~ N(m, S)`` and ``ε ~ N(0, σ²)``.

    Its mean is ``m + S Fᵀ (F S Fᵀ + σ² I)⁻¹ (y - F m)``, its covariance ``S - S Fᵀ (F S Fᵀ + σ² I)⁻¹ F S``, both times
    the features of the queries. Under another prior of the same mean and covariance, the mean is the best answer that
    is linear in y and the variance its expected squared error. Without noise and with as many examples as features, the
    mean is the solution of least squares.

    Args:
        support: features (task, example, feature).
        y: (task, example, values).
        mask: bool (task, example).
        queries: features (task, query, feature).
        mean: m, (feature,).
        covariance: S, (feature, feature).
        noise: σ, taken for at least 1e-5.

    Returns:
        Mean and standard deviation of the values with their noise, float64 (task, query, values).
    """
    rows, kept, asked = support.double(), mask[..., None], queries.double()
    mean, covariance = mean.to(rows), covariance.to(rows)
    expected = rows @ mean
    rest = torch.where(kept, y.double() - expected[..., None], 0)
    rows = torch.where(kept, rows, 0)
    spread = max(noise, SMALLEST_NOISE) ** 2
    identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    lower = torch.linalg.cholesky(rows @ covariance @ rows.mT + spread * identity)
    weights = mean[:, None] + covariance @ rows.mT @ torch.cholesky_solve(rest, lower)
    prior = ((asked @ covariance) * asked).sum(-1)
    told = torch.linalg.solve_triangular(lower, rows @ covariance @ asked.mT, upper=False)
    variance = (prior - told.square().sum(1)).clamp(min=0) + noise**2
    return asked @ weights, variance.sqrt()[..., None].expand(-1, -1, y.shape[2])


class Sinusoid(World):
    """Sine waves: ``y = A sin(x - φ) + ε``, A ~ U[0.1, 5], φ ~ U[0, π], x ~ U[-5, 5], ε ~ N(0, noise²).

    Finn et al. 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, section 5.1. Without noise, two
    examples determine the wave, and the exact answer is the linear regression on sin x and cos x that knows mean and
    covariance of their coefficients; of one example it is the best answer that is linear in y. With noise the answer is
    Bayes-optimal, :func:`quickstudy.data.curves.curve_posterior`, in about 15 ms for a task.

    Args:
        noise: standard deviation of ε.

    Raises:
        ValueError: the noise is negative.

    >>> world, design = Sinusoid(), EpisodeDesign(way=1, shot=5, queries=100)
    >>> episode = world.draw("test", design, tasks=2, generator=torch.Generator().manual_seed(0))
    >>> bool((world.exact(episode).mean - episode.query.y).abs().max() < 1e-3)
    True
    """

    kind = "vector"

    def __init__(self, *, noise: float = 0.0) -> None:
        check_noise(noise)
        self.noise = noise

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        amplitude = uniform((tasks, 1, 1), 0.1, 5.0, generator)
        phase = uniform((tasks, 1, 1), 0.0, math.pi, generator)
        x = uniform((tasks, numbers_in_examples(design), 1), -5.0, 5.0, generator)
        y = with_noise(amplitude * torch.sin(x - phase), self.noise, generator)
        return split_up(x, y, design, generator)

    def exact(self, episode: Episode) -> Exact:
        if self.noise >= SMALLEST_KNOWN:
            return curve_posterior(episode, [SINUSOID], noise=self.noise)
        support, query = episode.support, episode.query
        # y = A cos φ · sin x - A sin φ · cos x
        size, square = 5.1 / 2, (5**3 - 0.1**3) / (3 * 4.9)
        mean = torch.tensor([0.0, -size * 2 / math.pi])
        covariance = torch.diag(torch.tensor([square / 2, square / 2])) - torch.outer(mean, mean)

        def features(x: Tensor) -> Tensor:
            return torch.cat([x.double().sin(), x.double().cos()], dim=-1)

        told = linear_posterior(
            features(support.x),
            support.y,
            support.mask,
            features(query.x),
            mean=mean,
            covariance=covariance,
            noise=self.noise,
        )
        return normal(*told, query.y, dense=False)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "sinusoid",
            "licence": "none needed",
            "tasks": "endless",
            "noise": self.noise,
        }


class Linear(World):
    """Linear functions: ``y = wᵀ x + ε``, w ~ N(0, I), x ~ N(0, I), ε ~ N(0, noise²).

    Garg et al. 2022, What Can Transformers Learn In-Context?, section 3, whose tasks have 20 dimensions. The exact
    answer is the posterior mean: ridge regression with penalty noise², without noise the shortest w that fits.

    Args:
        dims: numbers in an example.
        noise: standard deviation of ε.

    Raises:
        ValueError: fewer than 1 dimension, or the noise is negative.

    >>> world, design = Linear(dims=3), EpisodeDesign(way=1, shot=3, queries=9)
    >>> episode = world.draw("test", design, tasks=2, generator=torch.Generator().manual_seed(0))
    >>> bool((world.exact(episode).mean - episode.query.y).abs().max() < 1e-3)
    True
    """

    kind = "vector"

    def __init__(self, *, dims: int = 8, noise: float = 0.0) -> None:
        check_noise(noise)
        if dims < 1:
            raise ValueError(f"The number of dimensions must be at least 1; found {dims}.")
        self.inputs, self.noise = dims, noise

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        weights = torch.randn(tasks, self.inputs, 1, generator=generator)
        x = torch.randn(tasks, numbers_in_examples(design), self.inputs, generator=generator)
        return split_up(x, with_noise(x @ weights, self.noise, generator), design, generator)

    def exact(self, episode: Episode) -> Exact:
        support = episode.support
        told = linear_posterior(
            support.x,
            support.y,
            support.mask,
            episode.query.x,
            mean=torch.zeros(self.inputs),
            covariance=torch.eye(self.inputs),
            noise=self.noise,
        )
        return normal(*told, episode.query.y, dense=self.noise > 0)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "linear",
            "licence": "none needed",
            "tasks": "endless",
            "dims": self.inputs,
            "noise": self.noise,
        }


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Numbers that are evenly distributed from ``low`` to ``high``."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def with_noise(y: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """``y + ε``, ε ~ N(0, noise²)."""
    return y + noise * torch.randn(y.shape, generator=generator) if noise else y


def check_noise(noise: float) -> None:
    """Refuse a standard deviation that is none.

    Raises:
        ValueError: it is negative or not finite.
    """
    if not 0 <= noise < math.inf:
        raise ValueError(f"The noise must be a standard deviation, 0 or more; found {noise}.")
