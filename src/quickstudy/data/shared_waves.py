"""Streams of sine waves with one hidden amplitude and a narrow range of phases, and the answers of who remembers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.exact import Exact, normal_log_density
from quickstudy.data.predictive import quadrature
from quickstudy.data.source import Split, World
from quickstudy.data.synthetic import numbers_in_examples, split_up, uniform, with_noise
from quickstudy.episode import Episode, Examples, Stream

AMPLITUDES = (0.1, 5.0)
NEGLIGIBLE = 25.0
"""Nats below the likeliest setting at which one is left out."""
FINENESS = 2.0
"""Nodes of a quadrature for each standard deviation of the narrowest posterior that it may meet."""
GREGORY = (3 / 8, 7 / 6, 23 / 24)
"""What the ends of an interval count for in a sum over evenly spaced points that is exact for cubic polynomials."""


class SharedSinusoid(World):
    """Streams of sine waves: ``y = A sin(x - φ_t) + ε``, A ~ U[0.1, 5], φ_t ~ U[c, c + π/narrowing], c ~ U[0, π].

    Amplitude A and the start c of the range of phases are drawn once for a stream, the phase φ_t for each of its tasks;
    x ~ U[-5, 5], ε ~ N(0, noise²). A task by itself is nearly one of :class:`quickstudy.data.synthetic.Sinusoid`; after
    a few tasks, one who remembers knows nearly everything of the next.

    :meth:`exact` answers a task by itself, :meth:`exact_stream` as one who has seen the supports of all earlier tasks
    of the stream. Both are Bayes-optimal, by quadrature in float64, in about 10 ms for a task.

    Args:
        noise: standard deviation of ε.
        narrowing: how many times narrower the phases of a stream are than those of all.

    Raises:
        ValueError: the noise is below 0.02, where the quadrature would be too large, or the narrowing below 1.

    >>> world, design = SharedSinusoid(), EpisodeDesign(way=1, shot=2, queries=50)
    >>> generator = torch.Generator().manual_seed(0)
    >>> stream = world.draw_stream("test", design, tasks=2, positions=3, generator=generator)
    >>> [told.mean.shape for told in world.exact_stream(stream)][-1]
    torch.Size([2, 50, 1])
    """

    kind = "vector"

    def __init__(self, *, noise: float = 0.2, narrowing: int = 10) -> None:
        if not 0.02 <= noise < math.inf:
            raise ValueError(
                f"The noise must be a standard deviation of at least 0.02; found {noise}."
            )
        if narrowing < 1:
            raise ValueError(f"The narrowing must be at least 1; found {narrowing}.")
        self.noise, self.narrowing = noise, narrowing

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        stream = self.draw_stream(split, design, tasks=tasks, positions=1, generator=generator)
        return stream.episodes[0]

    def draw_stream(
        self,
        split: Split,
        design: EpisodeDesign,
        *,
        tasks: int,
        positions: int,
        generator: torch.Generator,
    ) -> Stream:
        amplitude = uniform((tasks, 1, 1), *AMPLITUDES, generator)
        start = uniform((tasks, 1, 1), 0.0, math.pi, generator)
        episodes = []
        for _ in range(positions):
            phase = start + uniform((tasks, 1, 1), 0.0, math.pi / self.narrowing, generator)
            x = uniform((tasks, numbers_in_examples(design), 1), -5.0, 5.0, generator)
            y = with_noise(amplitude * torch.sin(x - phase), self.noise, generator)
            episodes.append(split_up(x, y, design, generator))
        return Stream(tuple(episodes))

    def exact(self, episode: Episode) -> Exact:
        return self.exact_stream(Stream((episode,)))[0]

    def exact_stream(self, stream: Stream) -> tuple[Exact, ...]:
        shots = [episode.support.mask.shape[1] for episode in stream.episodes]
        grid = Grid.fitting(self.noise, self.narrowing, examples=sum(shots), most=max(shots))
        told: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in stream.episodes]
        for task in range(stream.tasks):
            memory = torch.zeros(len(grid.amplitude), len(grid.start), dtype=torch.float64)
            for found, episode in zip(told, stream.episodes, strict=True):
                fit = grid.fit(episode.support, task, noise=self.noise)
                found.append(_answer(*grid.settings(memory, fit), episode, task, self.noise))
                memory = memory + grid.evidence(fit)
        return tuple(
            Exact(*(torch.stack(each).to(episode.query.y) for each in zip(*found, strict=True)))
            for episode, found in zip(stream.episodes, told, strict=True)
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": "shared_sinusoid",
            "licence": "none needed",
            "tasks": "endless",
            "noise": self.noise,
            "narrowing": self.narrowing,
        }


def _answer(
    amplitude: Tensor, phase: Tensor, log_weight: Tensor, episode: Episode, task: int, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (query, 1), deviation (query, 1) and log density (query,), where A and φ are one of (setting,)."""
    x, y = (each[task, :, 0].double()[:, None] for each in (episode.query.x, episode.query.y))
    value, weight = amplitude * torch.sin(x - phase), log_weight.exp()
    mean = value @ weight
    variance = (value - mean[:, None]).square() @ weight + noise**2
    each = normal_log_density(y, value, torch.full_like(weight, noise**2))
    return mean[:, None], variance.sqrt()[:, None], (log_weight + each).logsumexp(1)


class Grid(NamedTuple):
    """Nodes of amplitude A, of the start c of a stream's phases and of the phase φ of a task, on which to integrate.

    The starts are the edges of cells that a stream's range of phases holds a whole number of, so that integrals over
    such a range are sums over cells; within a cell there are two nodes of Gauss and Legendre.
    """

    amplitude: Tensor
    """(amplitude,)"""
    log_share: Tensor
    """(amplitude,), log of the weight of each."""
    start: Tensor
    """(start,)"""
    start_share: Tensor
    """(start,), weight of each."""
    phase: Tensor
    """(cell, 2)"""
    width: int
    """Cells in the range of a stream."""

    @staticmethod
    def fitting(noise: float, narrowing: int, *, examples: int, most: int) -> Grid:
        """A grid fine enough for posteriors after so many examples of a stream, and ``most`` of a task."""
        low, high = AMPLITUDES
        nodes = 12 + math.ceil(FINENESS * (high - low) * math.sqrt(examples) / noise)
        amplitude, share = quadrature(low, high, nodes)
        narrowest = noise / (high * math.sqrt(max(1, most)))
        width = max(2, math.ceil(FINENESS * math.pi / narrowing / narrowest))
        count, size = narrowing * width, math.pi / (narrowing * width)
        start = torch.arange(count + 1, dtype=torch.float64) * size
        start_share = torch.ones_like(start)
        if count >= 6:
            start_share[:3] = torch.tensor(GREGORY)
            start_share[-3:] = torch.tensor(GREGORY[::-1])
        left = torch.arange(count + width, dtype=torch.float64)[:, None] * size
        within = 0.5 + torch.tensor([-0.5, 0.5], dtype=torch.float64) / math.sqrt(3)
        return Grid(amplitude, share.log(), start, start_share, left + size * within, width)

    def fit(self, support: Examples, task: int, *, noise: float) -> Tensor:
        """``log N(y; A sin(x - φ), σ²)`` of a task's support but for a constant, (amplitude, cell, 2)."""
        kept = support.mask[task]
        square = cross = torch.zeros_like(self.phase)
        for x, y in zip(support.x[task, kept, 0].double(), support.y[task, kept, 0], strict=True):
            wave = torch.sin(x - self.phase)
            square, cross = square + wave.square(), cross + y.double() * wave
        amplitude = self.amplitude[:, None, None]
        return (cross - 0.5 * amplitude * square) * amplitude / noise**2

    def settings(self, memory: Tensor, fit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Amplitude, phase and log share, each (setting,), of what a task may be; what is negligible is left out.

        Args:
            memory: log-likelihood of earlier tasks, (amplitude, start).
            fit: of this task, (amplitude, cell, 2).
        """
        ways = (memory - memory.max()).exp() * self.start_share
        # A cell is in the ranges that start at its left edge or up to width - 1 cells before.
        ways = torch.nn.functional.pad(ways, (self.width, self.width - 1)).cumsum(1)
        ways = (ways[:, self.width :] - ways[:, : -self.width])[:, : fit.shape[1]]
        log_weight = self.log_share[:, None, None] + ways.clamp(min=0).log()[..., None] + fit
        kept = log_weight > log_weight.max() - NEGLIGIBLE
        amplitude, phase = torch.broadcast_tensors(self.amplitude[:, None, None], self.phase)
        return amplitude[kept], phase[kept], log_weight[kept].log_softmax(0)

    def evidence(self, fit: Tensor) -> Tensor:
        """The log-likelihood of a task whose phase is somewhere in the range of its stream, (amplitude, start)."""
        most = fit.amax((1, 2), keepdim=True)
        cells = torch.nn.functional.pad((fit - most).exp().sum(2).cumsum(1), (1, 0))
        held = cells[:, self.width :] - cells[:, : -self.width]
        return most[..., 0] + held.clamp(min=torch.finfo(held.dtype).tiny).log()
