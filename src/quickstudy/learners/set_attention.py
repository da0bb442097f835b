"""Learners that look at all classes of a task at once before they compare: the set of prototypes is adapted."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs
from quickstudy.learners.metric import (
    Distance,
    DistanceLearner,
    PrototypeState,
    class_sums,
    prototype_logits,
)
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Attention, Norm, and_itself


class SetAttention(nn.Module):
    """What attention among the members of a set adds to each: ``Attention(Norm(p))``; zero before training.

    Args:
        width: features of a member.
        heads: attention heads.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.attention = Attention(width, heads=heads)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, members: Tensor, exists: Tensor) -> Tensor:
        """Members (set, member, width) and bool (set, member) to (set, member, width)."""
        mask = and_itself(exists[:, None])[:, None]
        change: Tensor = self.attention(self.norm(members), mask=mask)
        return change


class DeepSet(nn.Module):
    """What a sum over the other members of a set adds to each: ``g([Norm(p_c), mean_{d ≠ c} h(Norm(p_d))])``.

    Zaheer et al. 2017, Deep Sets; g and h are perceptrons with one hidden layer. Zero before training.

    Args:
        width: features of a member.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.each = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        last = nn.Linear(2 * width, width)
        self.together = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, members: Tensor, exists: Tensor) -> Tensor:
        """Members (set, member, width) and bool (set, member) to (set, member, width)."""
        normed = self.norm(members)
        counted = self.each(normed) * exists[..., None]
        others = (exists.sum(1, keepdim=True) - exists.long()).clamp(min=1)[..., None]
        mean = (counted.sum(1, keepdim=True) - counted) / others
        change: Tensor = self.together(torch.cat([normed, mean], -1))
        return change


class FEAT(DistanceLearner):
    """Prototypes that were shown to each other: few-shot embedding adaptation with a Transformer.

    ``logit_c = τ cos(f(x), p_c + T(p_1 … p_way)_c)`` or ``-τ ‖f(x) - …‖² / width``, with p_c the mean of the class's
    embeddings and T a function of the set of prototypes, whatever their order: ``attention``, or ``deepsets``.

    Ye et al. 2020, Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions. Differs from the paper: T
    begins at zero, so training begins at a prototypical network; prototypes are normalised before T and not after it;
    there is no contrastive term beside the loss, and the encoder is trained along from whatever it starts at;
    the temperature τ is learned; DeepSets takes the mean over the other classes where the paper takes the maximum.

    Args:
        encoder: maps an example to a vector.
        set_function: ``attention`` or ``deepsets``.
        heads: attention heads; deepsets has none.
        distance: ``cosine`` or ``euclidean``.
        temperature: initial τ.
        label_smoothing: of the training loss.

    Raises:
        ValueError: an option is out of range.

    >>> from quickstudy.learners.metric import ProtoNet
    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> encoder = RawEncoder(2)
    >>> learners = FEAT(encoder, heads=1), ProtoNet(encoder)
    >>> first, second = (one.predict(one.adapt(support, context), x, context) for one in learners)
    >>> torch.equal(first, second)
    True
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
        set_function: Literal["attention", "deepsets"] = "attention",
        heads: int = 1,
        distance: Distance = "cosine",
        temperature: float = 10.0,
        label_smoothing: float = 0.0,
    ) -> None:
        likelihood = Categorical(label_smoothing=label_smoothing)
        super().__init__(encoder, likelihood, distance, temperature)
        if set_function not in ("attention", "deepsets"):
            raise ValueError(
                f"The set function must be attention or deepsets; found {set_function!r}."
            )
        attention = set_function == "attention"
        self.set_function: nn.Module = (
            SetAttention(encoder.width, heads=heads) if attention else DeepSet(encoder.width)
        )

    def adapt(
        self, support: Examples, context: Context, state: PrototypeState | None = None
    ) -> PrototypeState:
        sums = class_sums(self.embed(support.x), support, context.classes.shape[1])
        return PrototypeState(*sums).and_more(state)

    def predict(self, state: PrototypeState, x: Inputs, context: Context) -> Tensor:
        prototypes = state.means
        prototypes = prototypes + self.set_function(prototypes, state.counts > 0)
        queries, temperature = self.embed(x), self.log_temperature.exp()
        return prototype_logits(queries, prototypes, state.counts, self.distance, temperature)
