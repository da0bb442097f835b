"""Random functions: tasks from Gaussian processes, and the answers of one who knows their prior."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.covariance import (
    KERNELS,
    LENGTHS,
    SCALES,
    Drawing,
    Kernel,
    correlation,
    distances,
    drawing,
)
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.exact import Exact, mixture
from quickstudy.data.source import Split, World
from quickstudy.data.synthetic import numbers_in_examples, split_up, uniform
from quickstudy.episode import Episode, take_tasks

LENGTH_NODES, SCALE_NODES = 48, 24
"""Of the quadrature over hyper-parameters; twice as many change no task's log density by more than a thousandth."""
TASKS_AT_ONCE = 8
"""Tasks answered in one piece, which bounds the memory."""


class Components(NamedTuple):
    """What each setting of the hyper-parameters says of the queries."""

    log_evidence: Tensor
    """(task, component), ``log p(support values)``, without its constant."""
    mean: Tensor
    """(task, component, query)"""
    variance: Tensor
    """(task, component, query), of values with their noise."""


class GaussianProcess(World):
    """Random functions: ``y = f(x) + ε``, f ~ GP(0, scale² k), x ~ U[-2, 2], ε ~ N(0, noise²).

    Length and scale of each task are drawn anew, ~ U[0.1, 0.6] and ~ U[0.1, 1]; the covariances are those of
    :func:`quickstudy.data.covariance.correlation`. The protocol is that of Nguyen & Grover 2022, Transformer Neural
    Processes, section 5.1 and its published code: 3 to 46 support examples, at least 3 queries, at most 49 together,
    which is ``most_examples=49`` with a design of shot [3, 46] and 46 queries. Without ``most_examples``, all queries
    of the design are asked, which changes no mean over the queries of a task, for each has the same distribution.

    The exact answer integrates over the hyper-parameters that one who sees only the support cannot know.

    Differs from the published code: each task draws its own number of examples, not each batch.

    Args:
        kernel: covariance of the functions.
        noise: standard deviation of ε.
        most_examples: examples of a task at most, support and queries together; each task then asks a random number of
            queries, from 3 up to what is left. 0 asks all of the design's.

    Raises:
        ValueError: the noise is below 0.001, where rounding would decide the answers.

    >>> world, design = GaussianProcess(), EpisodeDesign(way=1, shot=9, queries=20)
    >>> episode = world.draw("test", design, tasks=2, generator=torch.Generator().manual_seed(0))
    >>> world.exact(episode).log_density.shape
    torch.Size([2, 20])
    """

    kind = "vector"

    def __init__(
        self,
        *,
        kernel: Literal["rbf", "matern"] = "rbf",
        noise: float = 0.02,
        most_examples: int = 0,
    ) -> None:
        if not noise >= 1e-3:
            raise ValueError(
                f"The noise must be a standard deviation of at least 0.001; found {noise}."
            )
        self.kernel, self.noise, self.most_examples = kernel, noise, most_examples
        self.kernels: tuple[Kernel, ...] = (kernel,)

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        return self.draw_known(design, tasks=tasks, generator=generator)[0]

    def draw_known(
        self, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> tuple[Episode, Drawing]:
        """Tasks as :meth:`draw` draws them, and what they were drawn with."""
        known = drawing(self.kernels, tasks, generator)
        x = uniform((tasks, numbers_in_examples(design), 1), -2.0, 2.0, generator)
        covariance = known.scale[:, None, None] ** 2 * self._correlations(known, distances(x, x))
        covariance.diagonal(dim1=1, dim2=2).add_(self.noise**2)
        normal = torch.randn(*x.shape, generator=generator, dtype=covariance.dtype)
        y = (torch.linalg.cholesky(covariance) @ normal).to(x.dtype)
        return split_up(x, y, design, generator, most_examples=self.most_examples), known

    def exact(self, episode: Episode) -> Exact:
        return self._in_parts(episode, None)

    def oracle(self, episode: Episode, known: Drawing) -> Exact:
        """The posterior of one who is also told what each task was drawn with, as no learner is."""
        return self._in_parts(episode, known)

    def _in_parts(self, episode: Episode, known: Drawing | None) -> Exact:
        parts = []
        for start in range(0, episode.tasks, TASKS_AT_ONCE):
            which = slice(start, start + TASKS_AT_ONCE)
            few = take_tasks(episode, which)
            told = None if known is None else Drawing(*(each[which] for each in known))
            components = self._components(few, told)
            parts.append(mixture(*components, few.query.y))
        mean, deviation, log_density = zip(*parts, strict=True)
        return Exact(torch.cat(mean), torch.cat(deviation), torch.cat(log_density))

    def _components(self, episode: Episode, known: Drawing | None) -> Components:
        if known is None:
            settings = [uniform_settings(kernel, episode.tasks) for kernel in self.kernels]
        else:
            settings = [settings_of(kernel, known) for kernel in KERNELS]
        found = [posterior(each, episode, noise=self.noise) for each in settings]
        return Components(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)))

    def _correlations(self, known: Drawing, distance: Tensor) -> Tensor:
        """(task, example, example), each task by its own covariance."""
        found = torch.zeros_like(distance)
        for number, kernel in enumerate(KERNELS):
            which = known.kernel == number
            found[which] = correlation(kernel, distance[which], known.length[which, None, None])
        return found

    def describe(self) -> dict[str, Any]:
        return {
            "name": "gaussian_process",
            "licence": "none needed",
            "tasks": "endless",
            "kernel": self.kernel,
            "noise": self.noise,
        }


class Settings(NamedTuple):
    """Hyper-parameters to be tried on each task: every length with every scale."""

    kernel: Kernel
    length: Tensor
    """(task, length)"""
    scale: Tensor
    """(task, scale)"""
    log_prior: Tensor
    """(task, length, scale), minus infinity for what cannot be."""


def uniform_settings(kernel: Kernel, tasks: int) -> Settings:
    """The nodes of Gauss and Legendre for the prior of the hyper-parameters, which is uniform."""
    length, length_weight = quadrature(*LENGTHS, LENGTH_NODES)
    scale, scale_weight = quadrature(*SCALES, SCALE_NODES)
    weight = length_weight[:, None] * scale_weight
    return Settings(
        kernel,
        length.expand(tasks, -1),
        scale.expand(tasks, -1),
        weight.log().expand(tasks, -1, -1),
    )


def settings_of(kernel: Kernel, known: Drawing) -> Settings:
    """The one setting that each task was drawn with, if its covariance is this one."""
    right = (known.kernel == KERNELS.index(kernel)).double().log()
    return Settings(kernel, known.length[:, None], known.scale[:, None], right[:, None, None])


def quadrature(low: float, high: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre for the mean over an interval, float64.

    >>> node, weight = quadrature(0, 3, 4)
    >>> round(float((weight * node**2).sum()), 12)
    3.0
    """
    node, weight = np.polynomial.legendre.leggauss(nodes)
    return (
        low + (high - low) * torch.from_numpy(node + 1) / 2,
        torch.from_numpy(weight) / 2,
    )


def posterior(settings: Settings, episode: Episode, *, noise: float) -> Components:
    """What each setting says of the queries of each task.

    With ``K = U Λ Uᵀ`` the correlations of the support, which all scales share, and ``D = (s² Λ + σ²)⁻¹``,

        μ = s² k U D Uᵀ y,   v = s² + σ² - s⁴ k U D Uᵀ kᵀ,   log p(y) = ½ Σ log D - ½ yᵀ U D Uᵀ y + constant

    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, equations 2.23, 2.24 and 2.30.
    """
    support = episode.support
    kept = support.mask[:, None, :, None]
    length = settings.length[..., None, None]
    within = correlation(settings.kernel, distances(support.x, support.x)[:, None], length)
    values, vectors = torch.linalg.eigh(torch.where(kept & kept.mT, within, 0))
    across = correlation(settings.kernel, distances(support.x, episode.query.x)[:, None], length)
    # (task, length, eigenvector, query)
    across = vectors.mT @ torch.where(kept, across, 0)
    y = vectors.mT @ torch.where(support.mask[..., None], support.y.double(), 0)[:, None]
    y = y[..., 0][:, :, None]
    square = settings.scale.square()[:, None, :, None]
    inverse = 1 / (square * values.clamp(min=0)[:, :, None] + noise**2)
    log_evidence = 0.5 * (inverse.log() - y.square() * inverse).sum(-1)
    mean = square * ((y * inverse) @ across)
    told = square.square() * (inverse @ across.square())
    variance = (square + noise**2 - told).clamp(min=noise**2)
    return Components(
        (settings.log_prior + log_evidence).flatten(1),
        mean.flatten(1, 2),
        variance.flatten(1, 2),
    )
