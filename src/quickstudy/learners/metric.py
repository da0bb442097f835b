"""Metric learners: a class is where its examples are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs
from quickstudy.learners.any_labels import label_sums, likelihood_of, one_sided
from quickstudy.learners.base import Learner
from quickstudy.learners.class_names import check_reads_names, named_examples, named_labels
from quickstudy.likelihood import Labels, Likelihood
from quickstudy.nn.encoders import Encoder

UNSEEN = -1e4
"""Logit of a class without examples: far below every other, yet equal for all classes when none has any."""


def class_sums(features: Tensor, examples: Examples, way: int) -> tuple[Tensor, Tensor]:
    """Sum of the features and number of the examples of each class.

    ``s_c = Σ_i [y_i = c] z_i``, ``n_c = Σ_i [y_i = c]``

    Args:
        features: (task, example, width).
        examples: their labels and mask.
        way: number of classes, padding included.

    Returns:
        Sums (task, way, width) and counts (task, way).
    """
    member = F.one_hot(examples.y, way).to(features.dtype) * examples.mask[..., None]
    return member.transpose(1, 2) @ features, member.sum(1)


def of_classes(known: Tensor, way: int) -> Tensor:
    """What is summed up of each class, (task, class, …), for as many classes as there are now: zero of new ones.

    >>> of_classes(torch.ones(1, 2), 3)
    tensor([[1., 1., 0.]])
    """
    return F.pad(known, (0, 0) * (known.ndim - 2) + (0, way - known.shape[1]))


def directions(features: Tensor) -> Tensor:
    """Features (…, features) as directions, by their differences from their mean."""
    return F.normalize(F.layer_norm(features, features.shape[-1:]), dim=-1)


class PrototypeState(NamedTuple):
    """Class sums and counts; adding two of them is learning more.

    Where examples may have any number of labels, those of all examples stand before those of each label.
    """

    sums: Tensor
    """(task, way, width)"""
    counts: Tensor
    """(task, way)"""

    def and_more(self, earlier: PrototypeState | None) -> PrototypeState:
        """This and what was known earlier, perhaps of fewer classes."""
        if earlier is None:
            return self
        way = self.counts.shape[1]
        return PrototypeState(
            of_classes(earlier.sums, way) + self.sums, of_classes(earlier.counts, way) + self.counts
        )

    @property
    def means(self) -> Tensor:
        """The prototypes, (task, way, width); zero for a class without examples."""
        return self.sums / self.counts.clamp(min=1)[..., None]


def named_prototypes(
    embed: Callable[[Inputs], Tensor],
    support: Examples,
    context: Context,
    name_weight: Tensor | None,
    *,
    known: int = 0,
    many: bool = False,
) -> PrototypeState:
    """Prototypes of embedded examples, among which the name of a class counts for w of them.

    Args:
        embed: (task, example, …) to (task, example, width); names are read by it too.
        support: to learn from.
        context: which classes there are, and their names.
        name_weight: w; None where names do not count.
        known: the number of the first classes whose names have been counted before.
        many: an example has any number of labels (:func:`label_sums`).
    """

    def summed(examples: Examples, features: Tensor) -> PrototypeState:
        if many:
            return PrototypeState(*label_sums(features, examples))
        return PrototypeState(*class_sums(features, examples, context.classes.shape[1]))

    found = summed(support, embed(support.x))
    if name_weight is None:
        return found
    named = (named_labels if many else named_examples)(context, embed, known=known)
    if named is None:
        return found
    sums, counts = summed(named, named.x)
    return found.and_more(PrototypeState(name_weight * sums, name_weight * counts))


Distance = Literal["cosine", "euclidean"]
"""How a query is compared with a prototype."""


def closeness(queries: Tensor, prototypes: Tensor, distance: Distance) -> Tensor:
    """``cos(q, p_c)``, or ``-‖q - p_c‖² / width``.

    Args:
        queries: (task, query, width), of unit length for the cosine.
        prototypes: (task, way, width).
        distance: which of the two.

    Returns:
        (task, query, way).

    >>> one, two = torch.eye(2)[None], torch.tensor([[[2.0, 0.0]]])
    >>> closeness(one, two, "cosine").tolist(), closeness(one, two, "euclidean").tolist()
    ([[[1.0], [0.0]]], [[[-0.5], [-2.5]]])
    """
    if distance == "cosine":
        return queries @ F.normalize(prototypes, dim=-1).transpose(1, 2)
    square = (prototypes * prototypes).sum(-1)[:, None] + (queries * queries).sum(-1, keepdim=True)
    return (2 * queries @ prototypes.transpose(1, 2) - square) / queries.shape[-1]


def prototype_logits(
    queries: Tensor, prototypes: Tensor, counts: Tensor, distance: Distance, temperature: Tensor
) -> Tensor:
    """``τ d(q, p_c)``, d the :func:`closeness`; :data:`UNSEEN` of a class without examples.

    Args:
        queries: (task, query, width), of unit length for the cosine.
        prototypes: (task, way, width).
        counts: examples of each class, (task, way).
        distance: which d.
        temperature: τ.

    Returns:
        (task, query, way).
    """
    logits = closeness(queries, prototypes, distance) * temperature
    return logits.masked_fill(counts[:, None] == 0, UNSEEN)


def log_temperature_of(temperature: float) -> nn.Parameter:
    """The parameter log τ.

    Raises:
        ValueError: τ is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"The temperature must be positive; found {temperature}.")
    return nn.Parameter(torch.tensor(math.log(temperature)))


def check_distance(distance: str) -> None:
    """Check the name of a distance.

    Raises:
        ValueError: there is none of that name.
    """
    if distance not in get_args(Distance):
        raise ValueError(f"The distance must be cosine or euclidean; found {distance!r}.")


class DistanceLearner(Learner):
    """A learner that compares embeddings by a distance, with a learned temperature."""

    def __init__(
        self, encoder: Encoder, likelihood: Likelihood, distance: Distance, temperature: float
    ) -> None:
        super().__init__(encoder, likelihood)
        check_distance(distance)
        self.distance = distance
        self.log_temperature = log_temperature_of(temperature)

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width), of unit length under the cosine distance."""
        features = self.encode(x)
        return F.normalize(features, dim=-1) if self.distance == "cosine" else features


class ProtoNet(DistanceLearner):
    """Prototypical network: the class whose mean embedding is nearest.

    ``logit_c = -‖f(x) - p_c‖² · τ`` or ``τ · cos(f(x), p_c)``, with ``p_c`` the mean of the class's
    embeddings. With many labels, each is one against the rest: ``logit_l = τ (d(f(x), p_l) - d(f(x), r_l) - θ)`` with d
    the negative distance or the cosine, r_l the mean of the examples without the label, and a threshold θ.

    Snell et al. 2017, Prototypical Networks for Few-shot Learning. Differs from the paper: the temperature τ
    is learned; the Euclidean distance is divided by the width, so that one τ suits every width; with
    ``cosine``, embeddings are scaled to unit length before the mean; the paper knows one class of each example only,
    and θ is learned.

    Args:
        encoder: maps an example to a vector.
        distance: ``cosine`` or ``euclidean``.
        temperature: initial τ.
        label_smoothing: of the training loss.
        names: the name of a class that has one counts for w examples of it, w learned, 1 at first; the encoder must
            read texts.
        labels: whether an example has ``one`` class or ``many`` labels, any number of them.

    Raises:
        ValueError: an option is out of range; names for an encoder that does not read any.
    """

    order_free = True
    additive = True
    inner_loop = False
    grows = True
    state_type = PrototypeState

    def __init__(
        self,
        encoder: Encoder,
        *,
        distance: Distance = "cosine",
        temperature: float = 10.0,
        label_smoothing: float = 0.0,
        names: bool = False,
        labels: Labels = "one",
    ) -> None:
        super().__init__(encoder, likelihood_of(labels, label_smoothing), distance, temperature)
        self.names, self.labels = names, labels
        if labels == "many":
            self.threshold = nn.Parameter(torch.zeros(()))
        if names:
            check_reads_names(encoder)
            self.log_name_weight = nn.Parameter(torch.zeros(()))

    def adapt(
        self, support: Examples, context: Context, state: PrototypeState | None = None
    ) -> PrototypeState:
        many, weight = self.labels == "many", self.log_name_weight.exp() if self.names else None
        known = 0 if state is None else state.counts.shape[1] - many
        found = named_prototypes(self.embed, support, context, weight, known=known, many=many)
        return found.and_more(state)

    def predict(self, state: PrototypeState, x: Inputs, context: Context) -> Tensor:
        queries, temperature = self.embed(x), self.log_temperature.exp()
        if self.labels == "many":
            have = PrototypeState(state.sums[:, 1:], state.counts[:, 1:])
            lack = PrototypeState(state.sums[:, :1] - have.sums, state.counts[:, :1] - have.counts)
            nearer, farther = (
                closeness(queries, each.means, self.distance) for each in (have, lack)
            )
            logits = (nearer - farther - self.threshold) * temperature
            return one_sided(logits, have.counts[:, None], lack.counts[:, None])
        return prototype_logits(queries, state.means, state.counts, self.distance, temperature)
