"""Bursts of logistic tasks: two classes by a random linear rule with noise, and the answers of who knows the prior."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.quasirandom import SobolEngine

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.known import ClassWorld
from quickstudy.data.source import Split
from quickstudy.data.synthetic import numbers_in_examples, split_up
from quickstudy.episode import Context, Episode, Examples, take_tasks, tree_map

POINTS = 2048
"""Rules that are tried of a task, from the prior and about the likeliest rule each."""
ROUNDS, HALVINGS = 20, 8
"""Steps of Newton's method to the likeliest rule, and how often each may be halved."""
TASKS_AT_ONCE = 8
"""Tasks answered in one piece, which bounds the memory."""


class Logistic(ClassWorld):
    """Bursts of logistic tasks: ``p(y = 1) = σ(wᵀ x + b)``, w ~ N(0, sharpness² I / dims), b ~ N(0, 1), x ~ N(0, I).

    A task is short and its rule is its own; what tasks share is the prior of their rules. A task whose support lacks a
    class is drawn anew, which changes no posterior.

    The exact answer is the mean of ``σ(wᵀ x + b)`` over the posterior of the rules, :func:`class_probabilities`, which
    has no closed form: with 2 dimensions, the log-probability of a class has a mean error below 0.001 nats, of an
    unlikely one 0.008 at most. That takes about 20 ms for a task.

    Args:
        dims: numbers in an example.
        sharpness: standard deviation of ``wᵀ x``; the larger, the less noise is in the classes.

    Raises:
        ValueError: fewer than 1 dimension, or a sharpness that is not positive.

    >>> world, design = Logistic(), EpisodeDesign(way=2, shot=8, queries=20)
    >>> episode = world.draw("test", design, tasks=3, generator=torch.Generator().manual_seed(0))
    >>> world.exact(episode).exp().sum(-1).allclose(torch.ones(3, 20))
    True
    """

    kind = "vector"
    way = 2
    fewest_shot = 2

    def __init__(self, *, dims: int = 2, sharpness: float = 4.0) -> None:
        if dims < 1:
            raise ValueError(f"The number of dimensions must be at least 1; found {dims}.")
        if not 0 < sharpness < math.inf:
            raise ValueError(f"The sharpness must be a positive number; found {sharpness}.")
        self.inputs, self.sharpness = dims, sharpness

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        return self.draw_known(design, tasks=tasks, generator=generator)[0]

    def draw_known(
        self, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> tuple[Episode, Tensor]:
        """Tasks as :meth:`draw` draws them, and their rules ``(w, b)``, (task, dims + 1)."""
        parts, found = [], 0
        while found < tasks:
            rule = torch.randn(tasks, self.inputs + 1, generator=generator)
            rule[:, :-1] *= self._scale
            shape = (tasks, numbers_in_examples(design), self.inputs)
            x = torch.randn(shape, generator=generator)
            chance = torch.sigmoid(x @ rule[:, :-1, None] + rule[:, -1, None, None])
            y = (torch.rand(chance.shape, generator=generator) < chance).to(x.dtype)
            episode = _of_classes(split_up(x, y, design, generator))
            whole = _member(episode.support).any(1).all(-1)
            parts.append(take_tasks((episode, rule), whole))
            found += int(whole.sum())
        both: tuple[Episode, Tensor] = tree_map(lambda *each: torch.cat(each)[:tasks], *parts)
        return both

    def exact(self, episode: Episode) -> Tensor:
        starts = range(0, episode.tasks, TASKS_AT_ONCE)
        parts = [take_tasks(episode, slice(start, start + TASKS_AT_ONCE)) for start in starts]
        found = [
            class_probabilities(
                self._features(part.support.x),
                _member(part.support).double() @ torch.tensor([-1.0, 1.0], dtype=torch.float64),
                self._features(part.query.x),
            )
            for part in parts
        ]
        return torch.cat(found).to(episode.query.x.dtype)

    def oracle(self, episode: Episode, rule: Tensor) -> Tensor:
        """Log-probabilities as :meth:`exact`, of one who is also told the rule of each task, as no learner is."""
        score = episode.query.x @ rule[:, :-1, None] + rule[:, -1, None, None]
        return torch.cat([F.logsigmoid(-score), F.logsigmoid(score)], -1)

    @property
    def _scale(self) -> float:
        return self.sharpness / math.sqrt(self.inputs)

    def _features(self, x: Tensor) -> Tensor:
        """Numbers whose weights have a standard normal prior, float64 (task, example, dims + 1)."""
        return F.pad(x.double() * self._scale, (0, 1), value=1.0)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "logistic",
            "licence": "none needed",
            "tasks": "endless",
            "dims": self.inputs,
            "sharpness": self.sharpness,
        }


def _of_classes(episode: Episode) -> Episode:
    """The same tasks, whose values 0 and 1 are two classes."""
    support, query, context = episode
    tasks = episode.tasks
    return Episode(
        support=Examples(support.x, support.y[..., 0].long(), support.mask),
        query=Examples(query.x, query.y[..., 0].long(), query.mask),
        context=Context(
            torch.ones(tasks, 2, dtype=torch.bool),
            context.description,
            torch.zeros(tasks, 2, 0, dtype=torch.int64),
        ),
    )


def _member(examples: Examples) -> Tensor:
    """Which examples exist and are of a class, bool (task, example, class)."""
    return F.one_hot(examples.y, 2).bool() & examples.mask[..., None]


def class_probabilities(support: Tensor, sign: Tensor, queries: Tensor) -> Tensor:
    """``log ∫ σ(±vᵀ f) p(v | support) dv``, the logistic regression of one who averages over all rules v ~ N(0, I).

    Points ``v_i``, half of them from the prior and half from the normal distribution about the likeliest rule that has
    the posterior's curvature there, stand for rules with weights ``p(support | v_i) p(v_i) / q(v_i)``, where q is the
    mixture of both; so no weight exceeds twice the likelihood, however skewed the posterior is. The points are those
    of a scrambled Sobol sequence, so an answer is the same each time.

    Owen & Zhou 2000, Safe and Effective Importance Sampling. Differs from the paper: quasi-random points, in place of
    random ones; no control variates.

    Args:
        support: features, float64 (task, example, feature).
        sign: 1 or -1 for the class of each example, 0 where there is none, float64 (task, example).
        queries: features, float64 (task, query, feature).

    Returns:
        Log-probabilities of the classes of sign -1 and 1, float64 (task, query, 2).

    >>> none, one = torch.zeros(1, 0, 2).double(), torch.ones(1, 1, 2).double()
    >>> class_probabilities(none, none[..., 0], one).exp().round(decimals=3).tolist()
    [[[0.5, 0.5]]]
    """
    width = support.shape[2]
    best, curvature = _likeliest(support, sign)
    lower = torch.linalg.cholesky(curvature)
    unit = SobolEngine(width, scramble=True, seed=0).draw(2 * POINTS, dtype=torch.float64)
    tiny = torch.finfo(torch.float32).eps / 4
    first, second = torch.special.ndtri(unit.clamp(tiny, 1 - tiny)).split(POINTS)
    away = torch.linalg.solve_triangular(lower.mT, second.T.expand(len(best), -1, -1), upper=True)
    points = torch.cat([first.expand(len(best), -1, -1), best[:, None] + away.mT], 1)
    prior = -0.5 * points.square().sum(-1)
    size = lower.diagonal(dim1=1, dim2=2).log().sum(1)[:, None]
    about = size - 0.5 * ((points - best[:, None]) @ lower).square().sum(-1)
    weight = _log_joint(points, support, sign) - torch.logaddexp(prior, about)
    weight = weight.log_softmax(1)[:, :, None]
    score = points @ queries.mT
    both = [torch.logsumexp(weight + F.logsigmoid(each), 1) for each in (-score, score)]
    return torch.stack(both, -1)


def _log_joint(points: Tensor, support: Tensor, sign: Tensor) -> Tensor:
    """``log p(support | v) p(v)`` of rules (task, point, feature), up to a constant for each task, (task, point)."""
    told = F.logsigmoid(sign[:, None] * (points @ support.mT)).sum(-1)
    return told - 0.5 * points.square().sum(-1)


def _likeliest(support: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest rule (task, feature), by Newton's method, and minus the second derivative there."""
    identity = torch.eye(support.shape[2], dtype=support.dtype)
    best = support.new_zeros(len(support), support.shape[2])
    size = 0.5 ** torch.arange(HALVINGS, dtype=support.dtype)[:, None]

    def curvature() -> Tensor:
        score = (support @ best[..., None])[..., 0]
        slope = torch.sigmoid(score) * torch.sigmoid(-score) * sign.abs()
        return support.mT @ (slope[..., None] * support) + identity

    for _ in range(ROUNDS):
        score = sign * (support @ best[..., None])[..., 0]
        gradient = ((sign * torch.sigmoid(-score))[:, None] @ support)[:, 0] - best
        step = torch.linalg.solve(curvature(), gradient)
        tried = best[:, None] + size * step[:, None]
        which = _log_joint(tried, support, sign).argmax(1)
        best = tried[torch.arange(len(best)), which]
    return best, curvature()
