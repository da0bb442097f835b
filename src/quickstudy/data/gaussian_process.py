"""Random functions: tasks from Gaussian processes, and the answers of one who knows their prior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from quickstudy.data.covariance import KERNELS, Drawing, Kernel, correlation, distances, drawing
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.exact import Exact, mixture, mixture_interval
from quickstudy.data.known import DensityWorld
from quickstudy.data.predictive import Components, told_by
from quickstudy.data.source import Split
from quickstudy.data.synthetic import numbers_in_examples, split_up, uniform
from quickstudy.episode import Episode, Examples, concatenate, take_tasks

TASKS_AT_ONCE = 8
"""Tasks answered in one piece, which bounds the memory."""


class GaussianProcess(DensityWorld):
    """Random functions: ``y = f(x) + ε``, f ~ GP(0, scale² k), x ~ U[-2, 2], ε ~ N(0, noise²).

    Each task is drawn with a length ~ U[0.1, 0.6], a scale ~ U[0.1, 1] and, if it is periodic, a period ~ U[0.1, 0.5];
    the covariances are those of :func:`quickstudy.data.covariance.correlation`, of a mixture each as often. The
    protocol is that of Nguyen & Grover 2022, Transformer Neural Processes, section 5.1 and its published code: 3 to 46
    support examples, at least 3 queries, at most 49 together, which is ``most_examples=49`` with a design of shot
    [3, 46] and 46 queries. Without ``most_examples``, all queries of the design are asked, which changes no mean over
    the queries of a task, for each has the same distribution.

    The exact answer integrates over what one who sees only the support cannot know: length and scale, period and
    covariance. That takes about 15 ms for a task, and for periodic functions 400 ms; of those, the log density of a
    query has an error of about 0.01 nats, of others below 0.001. The log density of all queries together, as a share of
    each, errs by up to 0.03 nats for periodic functions.

    Differs from the published code: each task draws its own number of examples, not each batch; the mixture is no part
    of it.

    Args:
        kernel: covariance of the functions; a mixture has functions of all kinds.
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
        kernel: Literal["rbf", "matern", "periodic", "mixture"] = "rbf",
        noise: float = 0.02,
        most_examples: int = 0,
    ) -> None:
        if not noise >= 1e-3:
            raise ValueError(
                f"The noise must be a standard deviation of at least 0.001; found {noise}."
            )
        self.kernel, self.noise, self.most_examples = kernel, noise, most_examples
        self.kernels: tuple[Kernel, ...] = KERNELS if kernel == "mixture" else (kernel,)

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

    def exact_joint(self, episode: Episode) -> Tensor:
        support, query, context = episode
        one = Examples(*(each[:, :1] for each in query))
        # p(queries | support) = p(queries and support) / p(support)
        evidence = [
            torch.cat([told.log_weight.logsumexp(1) for _, told in self._pieces(whole, None)])
            for whole in (
                Episode(concatenate(support, query), one, context),
                Episode(support, one, context),
            )
        ]
        gained = (evidence[0] - evidence[1]) / query.mask.sum(1).clamp(min=1)
        return gained.to(query.y.dtype)

    def exact_interval(self, episode: Episode, level: float = 0.95) -> tuple[Tensor, Tensor]:
        parts = [mixture_interval(*told, level) for _, told in self._pieces(episode, None)]
        low, high = (torch.cat(ends)[..., None] for ends in zip(*parts, strict=True))
        return low.to(episode.query.y.dtype), high.to(episode.query.y.dtype)

    def _in_parts(self, episode: Episode, known: Drawing | None) -> Exact:
        parts = [mixture(*told, few.query.y) for few, told in self._pieces(episode, known)]
        return Exact(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _pieces(
        self, episode: Episode, known: Drawing | None
    ) -> Iterator[tuple[Episode, Components]]:
        """Some tasks at a time, and what is said of them."""
        for start in range(0, episode.tasks, TASKS_AT_ONCE):
            which = slice(start, start + TASKS_AT_ONCE)
            few = take_tasks(episode, which)
            told = None if known is None else Drawing(*(each[which] for each in known))
            yield few, self._components(few, told)

    def _components(self, episode: Episode, known: Drawing | None) -> Components:
        kernels = self.kernels if known is None else KERNELS
        found = [told_by(kernel, episode, known, noise=self.noise) for kernel in kernels]
        return Components(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)))

    def _correlations(self, known: Drawing, distance: Tensor) -> Tensor:
        """(task, example, example), each task by its own covariance."""
        found = torch.zeros_like(distance)
        for number, kernel in enumerate(KERNELS):
            which = known.kernel == number
            length, period = known.length[which, None, None], known.period[which, None, None]
            found[which] = correlation(kernel, distance[which], length, period)
        return found

    def describe(self) -> dict[str, Any]:
        return {
            "name": "gaussian_process",
            "licence": "none needed",
            "tasks": "endless",
            "kernel": self.kernel,
            "noise": self.noise,
            "most_examples": self.most_examples,
        }
