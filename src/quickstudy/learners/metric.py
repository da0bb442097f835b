"""Metric learners: a class is where its examples are."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Categorical
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


class PrototypeState(NamedTuple):
    """Class sums and counts; adding two of them is learning more."""

    sums: Tensor
    """(task, way, width)"""
    counts: Tensor
    """(task, way)"""


class ProtoNet(Learner):
    """Prototypical network: the class whose mean embedding is nearest.

    ``logit_c = -‖f(x) - p_c‖² · τ`` or ``τ · cos(f(x), p_c)``, with ``p_c`` the mean of the class's
    embeddings.

    Snell et al. 2017, Prototypical Networks for Few-shot Learning. Differs from the paper: the temperature τ
    is learned; the Euclidean distance is divided by the width, so that one τ suits every width; with
    ``cosine``, embeddings are scaled to unit length before the mean.

    Args:
        encoder: maps an example to a vector.
        distance: ``cosine`` or ``euclidean``.
        temperature: initial τ.
        label_smoothing: of the training loss.
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = PrototypeState

    def __init__(
        self,
        encoder: Encoder,
        *,
        distance: Literal["cosine", "euclidean"] = "cosine",
        temperature: float = 10.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if distance not in ("cosine", "euclidean"):
            raise ValueError(f"The distance must be cosine or euclidean; found {distance!r}.")
        if temperature <= 0:
            raise ValueError(f"The temperature must be positive; found {temperature}.")
        self.distance = distance
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width), of unit length under the cosine distance."""
        features = self.encode(x)
        return F.normalize(features, dim=-1) if self.distance == "cosine" else features

    def adapt(
        self, support: Examples, context: Context, state: PrototypeState | None = None
    ) -> PrototypeState:
        sums, counts = class_sums(self.embed(support.x), support, context.classes.shape[1])
        return (
            PrototypeState(sums, counts)
            if state is None
            else PrototypeState(state.sums + sums, state.counts + counts)
        )

    def predict(self, state: PrototypeState, x: Inputs, context: Context) -> Tensor:
        queries = self.embed(x)
        prototypes = state.sums / state.counts.clamp(min=1)[..., None]
        if self.distance == "cosine":
            similarity = queries @ F.normalize(prototypes, dim=-1).transpose(1, 2)
        else:
            square = (prototypes * prototypes).sum(-1)[:, None] + (queries * queries).sum(
                -1, keepdim=True
            )
            similarity = (2 * queries @ prototypes.transpose(1, 2) - square) / queries.shape[-1]
        return (similarity * self.log_temperature.exp()).masked_fill(
            state.counts[:, None] == 0, UNSEEN
        )
