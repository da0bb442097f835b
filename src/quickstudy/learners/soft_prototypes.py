"""Prototypes that examples without a label move: soft k-means from where the labelled ones put them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import NO_LABEL, Context, Examples, Inputs, concatenate, labelled
from quickstudy.learners.class_names import and_names, check_reads_names
from quickstudy.learners.metric import (
    Distance,
    DistanceLearner,
    class_sums,
    prototype_logits,
)
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder


class SoftState(NamedTuple):
    """The embedded support, and the prototypes that were made of it."""

    features: Tensor
    """(task, example, width)"""
    labels: Tensor
    """int64 (task, example), which may be :data:`NO_LABEL`"""
    counted: Tensor
    """For how many an example counts, (task, example); 0 for padding"""
    prototypes: Tensor
    """(task, way, width)"""
    counts: Tensor
    """Examples of each class that have its label, (task, way)"""


class SoftPrototypes(DistanceLearner):
    """Prototypical network whose prototypes are refined by examples without a label.

    ``p_c = (Σ_i [y_i = c] f(x_i) + Σ_u z_uc f(x_u)) / (Σ_i [y_i = c] + Σ_u z_uc)`` with
    ``z_u = softmax_c τ d(f(x_u), p_c)`` of the prototypes before, at first those of the labelled examples alone; d is
    the cosine or the negative squared distance.

    Ren et al. 2018, Meta-Learning for Semi-Supervised Few-Shot Classification (soft k-means, and with a cluster for
    distractors). Differs from the paper: τ is learned, and the same for answers and refinements; embeddings are of unit
    length by default, and then a cluster at the origin is equally far from all of them, so the cluster of distractors
    has a learned logit θ in place of a place and a radius; masks made by a perceptron are left out.

    Args:
        encoder: maps an example to a vector.
        distance: ``cosine`` or ``euclidean``.
        temperature: initial τ.
        refinements: how often prototypes are moved; the paper says that once is enough.
        distractors: examples without a label may be of no class of the task.
        label_smoothing: of the training loss.
        names: the name of a class that has one counts for w examples of it, w learned, 1 at first; the encoder must
            read texts.

    Raises:
        ValueError: an option is out of range; names for an encoder that does not read any.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.tensor([[[0.0], [4.0], [1.0], [5.0]]]), torch.tensor([[0, 1, NO_LABEL, NO_LABEL]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = SoftPrototypes(RawEncoder(1), distance="euclidean", temperature=9.0)
    >>> learner.adapt(support, context).prototypes.round(decimals=3).tolist()
    [[[0.5], [4.5]]]
    """

    order_free = True
    additive = True
    inner_loop = False
    grows = True
    semi_supervised = True
    state_type = SoftState

    def __init__(
        self,
        encoder: Encoder,
        *,
        distance: Distance = "cosine",
        temperature: float = 10.0,
        refinements: int = 1,
        distractors: bool = False,
        label_smoothing: float = 0.0,
        names: bool = False,
    ) -> None:
        likelihood = Categorical(label_smoothing=label_smoothing)
        super().__init__(encoder, likelihood, distance, temperature)
        if refinements < 1:
            raise ValueError(
                f"Prototypes are refined at least once; found refinements {refinements}."
            )
        self.refinements, self.names = refinements, names
        self.threshold = nn.Parameter(torch.zeros(())) if distractors else None
        if names:
            check_reads_names(encoder)
            self.log_name_weight = nn.Parameter(torch.zeros(()))

    def adapt(
        self, support: Examples, context: Context, state: SoftState | None = None
    ) -> SoftState:
        features = self.embed(support.x)
        examples = Examples(features, support.y, support.mask.to(features.dtype))
        known = 0 if state is None else state.counts.shape[1]
        weight = self.log_name_weight.exp() if self.names else None
        examples = and_names(examples, context, self.embed, weight, known=known)
        if state is not None:
            examples = concatenate(Examples(*state[:3]), examples)
        return SoftState(*examples, *self._refined(examples, context.classes.shape[1]))

    def predict(self, state: SoftState, x: Inputs, context: Context) -> Tensor:
        return self._logits(self.embed(x), state.prototypes, state.counts)

    def _refined(self, examples: Examples, way: int) -> tuple[Tensor, Tensor]:
        """Prototypes (task, way, width), and how many labelled examples each class has, (task, way)."""
        features = examples.x
        sums, counts = class_sums(features, labelled(examples), way)
        bare = (examples.mask * (examples.y == NO_LABEL))[..., None]
        prototypes = sums / _at_least(counts)[..., None]
        for _ in range(self.refinements):
            logits = self._logits(features, prototypes, counts)
            if self.threshold is not None:
                logits = torch.cat([logits, self.threshold.expand_as(logits[..., :1])], -1)
            member = bare * logits.softmax(-1)[..., :way]
            more = member.transpose(1, 2) @ features
            prototypes = (sums + more) / _at_least(counts + member.sum(1))[..., None]
        return prototypes, counts

    def _logits(self, features: Tensor, prototypes: Tensor, counts: Tensor) -> Tensor:
        temperature = self.log_temperature.exp()
        return prototype_logits(features, prototypes, counts, self.distance, temperature)


def _at_least(counts: Tensor) -> Tensor:
    """Numbers that can be divided by."""
    return torch.where(counts > 0, counts, 1)
