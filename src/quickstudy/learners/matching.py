"""Matching networks: a query is answered by the labels of the support examples that it is like."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN, class_sums, log_temperature_of
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Norm, Transformer, and_itself


class MatchingState(NamedTuple):
    """The embedded support, and what a Transformer has made of it as a set."""

    features: Tensor
    """(task, example, width)"""
    labels: Tensor
    """int64 (task, example)"""
    mask: Tensor
    """bool (task, example)"""
    embedded: Tensor
    """g(x_i, S), of unit length, (task, example, width)"""
    keys: Tensor
    """(task, layer, head, example, width / heads); without layers where there is no context"""
    values: Tensor
    """(task, layer, head, example, width / heads)"""


class MatchingNetwork(Learner):
    """Matching networks: attention over the support, whose labels are averaged.

    ``p(y = c | x, S) = Σ_i a(x, x_i) [y_i = c]`` with ``a = softmax_i(τ cos(f(x, S), g(x_i, S)))``.

    Vinyals et al. 2016, Matching Networks for One Shot Learning. Differs from the paper: the temperature τ is
    learned; the full-context embedding of ``layers`` is one Transformer that reads the support as a set and each query
    beside it, ``f(x, S) = e(x) + R T(e(x), S)``, in place of a bidirectional LSTM over the support in some order for g
    and an LSTM with attention for f; R begins at zero, so training begins without context.

    Args:
        encoder: maps an example to a vector.
        layers: of the full-context embedding; 0 leaves it out, so that f = g is the encoder.
        heads: attention heads.
        temperature: initial τ.
        label_smoothing: of the training loss.

    Raises:
        ValueError: an option is out of range.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.eye(3)[None], torch.tensor([[0, 1, 1]])
    >>> support = Examples(x, y, torch.ones(1, 3, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = MatchingNetwork(RawEncoder(3))
    >>> logits = learner.predict(learner.adapt(support, context), torch.ones(1, 1, 3), context)
    >>> learner.likelihood.probabilities(logits, context).detach().round(decimals=3)
    tensor([[[0.3330, 0.6670]]])
    """

    order_free = True
    additive = True
    inner_loop = False
    grows = True
    state_type = MatchingState

    def __init__(
        self,
        encoder: Encoder,
        *,
        layers: int = 0,
        heads: int = 4,
        temperature: float = 10.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if layers < 0:
            raise ValueError(f"The number of layers must be 0 or more; found {layers}.")
        self.log_temperature = log_temperature_of(temperature)
        self.layers = layers
        if layers:
            width = encoder.width
            self.project = nn.Sequential(Norm(width), nn.Linear(width, width))
            self.transformer = Transformer(width, layers=layers, heads=heads)
            self.read = nn.Linear(width, width, bias=False)
            nn.init.zeros_(self.read.weight)

    def adapt(
        self, support: Examples, context: Context, state: MatchingState | None = None
    ) -> MatchingState:
        examples = support._replace(x=self.encode(support.x))
        if state is not None:
            examples = concatenate(Examples(state.features, state.labels, state.mask), examples)
        keys, values = self._read_support(examples)
        embedded = self._beside(examples.x, keys, values, examples.mask)
        return MatchingState(*examples, embedded, keys, values)

    def predict(self, state: MatchingState, x: Inputs, context: Context) -> Tensor:
        queries = self._beside(self.encode(x), state.keys, state.values, state.mask)
        similar = queries @ state.embedded.transpose(1, 2) * self.log_temperature.exp()
        return class_log_sums(similar, state.labels, state.mask, context.classes.shape[1])

    def _read_support(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Keys and values of the support in every layer, each (task, layer, head, example, width / heads)."""
        if not self.layers:
            tasks, count = examples.mask.shape
            nothing = examples.x.new_zeros(tasks, 0, 1, count, 0)
            return nothing, nothing
        mask = and_itself(examples.mask[:, None])[:, None]
        return self.transformer.memorise(self.project(examples.x), mask=mask)

    def _beside(self, features: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Examples embedded beside a support that has been read, of unit length."""
        if self.layers:
            tokens = self.project(features)
            read = self.transformer.isolated(tokens, keys, values, mask=mask[:, None, None])
            features = features + self.read(read)
        return F.normalize(features, dim=-1)


def class_log_sums(similar: Tensor, labels: Tensor, mask: Tensor, way: int) -> Tensor:
    """``log Σ_i [y_i = c] exp(s_i)``, which a softmax over classes turns into the attention that each class gets.

    Args:
        similar: s, (task, query, example).
        labels: int64 (task, example).
        mask: bool (task, example).
        way: number of classes.

    Returns:
        (task, query, way), finite even where exp(s) would be too large or too small for the numbers of the machine.

    >>> one = torch.ones(1, 2, dtype=torch.bool)
    >>> class_log_sums(torch.tensor([[[300.0, -300.0]]]), torch.tensor([[0, 1]]), one, 2).tolist()
    [[[300.0, -300.0]]]
    """
    place = labels[:, None].expand_as(similar)
    hidden = similar.detach().masked_fill(~mask[:, None], -math.inf)
    lowest = hidden.new_full((*similar.shape[:2], way), -math.inf)
    largest = lowest.scatter_reduce(2, place, hidden, "amax")
    largest = torch.where(largest.isfinite(), largest, 0)
    # Each class is shifted by its own largest, so that no class vanishes beside another.
    shifted = (similar - largest.gather(2, place)).masked_fill(~mask[:, None], -math.inf)
    member = Examples(shifted, labels, mask)
    sums, counts = class_sums(shifted.exp().transpose(1, 2), member, way)
    seen = counts[:, None] > 0
    sums = torch.where(seen, sums.transpose(1, 2), 1)
    return (sums.log() + largest).masked_fill(~seen, UNSEEN)
