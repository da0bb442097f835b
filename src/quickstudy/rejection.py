"""None of these: how far a query is from all classes of its task, and the threshold above which it is of no class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from quickstudy.durable import ArtifactError
from quickstudy.episode import Context, Examples
from quickstudy.learners.metric import PrototypeState, class_sums
from quickstudy.likelihood import Categorical

ScoreName = Literal["probability", "similarity", "energy", "mahalanobis"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)

PRIOR = 16.0
"""So many examples the variances from training classes count for, beside those of the task itself."""

SHARE_KEPT = 0.95
"""Of the queries that are of a class, the share that is answered with one, unless another is asked for."""

FACT = "rejection"
"""Under which an artifact keeps its threshold among its facts."""


def output_scores(outputs: Tensor, context: Context) -> dict[ScoreName, Tensor]:
    """How unlikely outputs make it that a query is of any class of its task; more is less likely.

    ``probability``: ``1 - max_c p_c`` (Hendrycks & Gimpel 2017, A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples); ``similarity``: ``-max_c logit_c`` (Hendrycks et al. 2022, Scaling
    Out-of-Distribution Detection for Real-World Settings); ``energy``: ``-log Σ_c exp logit_c`` (Liu et al. 2020,
    Energy-based Out-of-distribution Detection). The last two need logits whose level means something, as distances do.

    Args:
        outputs: logits (task, query, way) of a learner that answers classes.
        context: of the tasks.

    Returns:
        For each score (task, query).

    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> found = output_scores(torch.zeros(1, 1, 2), context)
    >>> {name: round(score.item(), 3) for name, score in found.items()}
    {'probability': 0.5, 'similarity': -0.0, 'energy': -0.693}
    """
    logits = Categorical.mask(outputs.double(), context)
    return {
        "probability": 1 - logits.softmax(-1).amax(-1),
        "similarity": -logits.amax(-1),
        "energy": -logits.logsumexp(-1),
    }


def check_share(share_kept: float) -> None:
    """Refuse what is no share of queries to keep.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 < share_kept < 1:
        raise ValueError(f"The share kept must lie between 0 and 1; found {share_kept}.")


def threshold_that_keeps(scores: Tensor, share: float) -> float:
    """The smallest of some scores (score,) that so large a share of them does not exceed.

    Of n scores it is number ``⌈(n + 1) share⌉``, so that a further one of their like keeps to it as often as was said
    (Vovk et al. 2005, Algorithmic Learning in a Random World), or the largest, where n is small.

    >>> threshold_that_keeps(torch.arange(100.0), 0.95), threshold_that_keeps(torch.arange(3.0), 0.95)
    (95.0, 2.0)
    """
    place = min(len(scores), -int(-(len(scores) + 1) * share // 1))
    return float(scores.sort().values[place - 1])


class Embedded(NamedTuple):
    """Where the examples of a task lie in the space of the encoder; adding two of them is learning more."""

    sums: Tensor
    """Σ z of each class, (task, way, width)"""
    counts: Tensor
    """(task, way)"""
    squares: Tensor
    """Σ z² of all examples, (task, width)"""

    @classmethod
    def of(cls, features: Tensor, examples: Examples, way: int) -> Embedded:
        """Of examples whose embeddings are ``features`` (task, example, width)."""
        features = torch.where(examples.mask[..., None], features, 0).double()
        return cls(*class_sums(features, examples, way), (features * features).sum(1))

    def and_more(self, earlier: Embedded | None) -> Embedded:
        """This and what was known earlier, perhaps of fewer classes."""
        if earlier is None:
            return self
        of_classes = PrototypeState(*self[:2]).and_more(PrototypeState(*earlier[:2]))
        return Embedded(*of_classes, earlier.squares + self.squares)

    def within(self) -> tuple[Tensor, Tensor]:
        """Squared deviations from the mean of the own class, (task, width), and how many are free, (task,)."""
        means = self.sums / self.counts.clamp(min=1)[..., None]
        spread = (self.squares - (self.sums * means).sum(1)).clamp(min=0)
        return spread, (self.counts - 1).clamp(min=0).sum(1)

    def distances(self, features: Tensor, variances: Tensor) -> Tensor:
        """The Mahalanobis score: squared distance to the nearest class, in deviations of all classes alike.

        ``min_c Σ_j (z_j - μ_cj)² / v_j / width``, ``v = (PRIOR v⁰ + Σ_i (z_i - μ_{y_i})²) / (PRIOR + n - way)``.

        Lee et al. 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks.
        Differs from the paper: the covariance is diagonal and shrunk towards v⁰, the variances within training classes,
        because a few examples have no more to say.

        Args:
            features: embeddings of queries, (task, query, width).
            variances: v⁰, (width,).

        Returns:
            (task, query); infinite where no class has an example.
        """
        spread, free = self.within()
        shared = (PRIOR * variances + spread) / (PRIOR + free)[:, None]
        scale = shared.clamp(min=torch.finfo(shared.dtype).tiny).sqrt()[:, None]
        means = self.sums / self.counts.clamp(min=1)[..., None]
        far = torch.cdist(features.double() / scale, means / scale).square() / features.shape[-1]
        return far.masked_fill(self.counts[:, None] == 0, math.inf).amin(-1)


@dataclass(frozen=True)
class Rejection:
    """A score and the threshold above which a query is none of its task's classes.

    Args:
        score: which score.
        threshold: the largest that is still answered with a class.
        share_kept: of the queries that belong to a class, what share stays below it, as learned.
        way: classes of the tasks that it was learned on, or (fewest, most).
        shot: examples of each class in those tasks, or (fewest, most).
        split: of the training data, from which those tasks were drawn; ``support``: the examples of the task itself.
        unlabelled: examples without a label in those tasks.
        variances: within training classes, of each feature of an embedding; for ``mahalanobis`` only.
    """

    score: ScoreName
    threshold: float
    share_kept: float
    way: int | tuple[int, int]
    shot: int | tuple[int, int]
    split: str
    unlabelled: int = 0
    variances: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What an artifact keeps."""
        return asdict(self)

    def scores(self, outputs: Tensor, context: Context, far: Tensor | None) -> Tensor:
        """The score of each query (task, query), from its outputs, or its distance where that is the score.

        Raises:
            ArtifactError: the score is a distance and there is none.
        """
        if self.score != "mahalanobis":
            return output_scores(outputs, context)[self.score]
        if far is None:
            raise ArtifactError(
                "This task was begun before its artifact learned which queries are of no class; adapt it anew."
            )
        return far


def rejection_in(facts: Mapping[str, Any]) -> Rejection | None:
    """The rejection among the facts of an artifact, if it has learned one.

    >>> rejection_in({}) is None
    True
    """
    found = facts.get(FACT)
    if found is None:
        return None
    lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
    return Rejection(**{**found, **lists})
