"""A cross-encoder: a query is read together with each support example, so that each sees the words of the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples, Inputs, concatenate
from quickstudy.learners.base import Learner
from quickstudy.learners.class_names import check_reads_names, named_examples
from quickstudy.learners.matching import class_log_sums
from quickstudy.learners.metric import (
    UNSEEN,
    PrototypeState,
    class_sums,
    closeness,
    log_temperature_of,
)
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder, ReadsPairs
from quickstudy.nn.features import has_frozen_features

PAIRS_AT_ONCE = {True: 128, False: 512}
"""Pairs that are read at a time, on a CPU and elsewhere: of so many the graph is kept while training."""


class PairState(NamedTuple):
    """The support as it was given, to be read beside queries, and the prototypes."""

    x: Tensor
    """(task, example, word); names of classes are examples too"""
    labels: Tensor
    """int64 (task, example)"""
    weights: Tensor
    """For how many examples each counts, (task, example); 0 is padding."""
    sums: Tensor
    """(task, way, width)"""
    counts: Tensor
    """(task, way)"""


class CrossEncoder(Learner):
    """Cross-encoder: pairs of query and example are read together, and compared with prototypes beside it.

    ``logit_c = τ cos(f(x), p_c) + log mean_{i in c} exp(v · f([x, x_i]))``, with p_c the mean of the class's embeddings
    and [x, x_i] both texts as one input of the encoder, each in the sight of the other. v begins at zero, so training
    begins at a prototypical network. The mean of the exponentials lets one example that says the same speak for its
    class, though its other examples say it otherwise, and favours no class for having more of them.

    Each query is read as often as there are support examples, so this is for few of them: a task of more than ``pairs``
    is answered by its prototypes alone.

    Zhang et al. 2020, Discriminative Nearest Neighbor Few-Shot Intent Detection by Transferring Natural Language
    Inference; Mesgar et al. 2022, The Devil is in the Details: On Models and Training Regimes for Few-Shot Intent
    Classification (arXiv:2210.06440), who find cross-encoders with episodic training best. Differs from the papers: the
    loss is the cross-entropy of a softmax over the classes of a task, not that of each pair; all examples of a class
    speak, not the nearest one alone; the cosine to prototypes is added.

    Args:
        encoder: of texts, trained at least by adapters (``lora``), for a frozen one was never taught to read pairs.
        pairs: most examples of a task, names included, that each query is read with.
        temperature: initial τ.
        label_smoothing: of the training loss.
        names: the name of a class that has one counts for w examples of it, w learned, 1 at first; a query is read
            with it as well.

    Raises:
        ValueError: an option is out of range; an encoder that reads no pairs, or that is frozen.
    """

    order_free = True
    additive = True
    inner_loop = False
    fixed_encoding = False
    grows = True
    state_type = PairState
    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        pairs: int = 300,
        temperature: float = 10.0,
        label_smoothing: float = 0.0,
        names: bool = False,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if not isinstance(encoder, ReadsPairs):
            raise ValueError(
                f"A cross-encoder reads a query and an example as one text, which {type(encoder).__name__} cannot; "
                "choose the encoder text, or the learner protonet or relation."
            )
        if has_frozen_features(encoder):
            raise ValueError(
                "A frozen encoder was never taught to read pairs of texts; build it with lora=8 or frozen=false."
            )
        if pairs < 1:
            raise ValueError(f"The number of pairs must be at least 1; found {pairs}.")
        self.pairs, self.names = pairs, names
        self.log_temperature = log_temperature_of(temperature)
        # A bias would be the same for every class, which a softmax does not see.
        self.read = nn.Linear(encoder.width, 1, bias=False)
        nn.init.zeros_(self.read.weight)
        if names:
            check_reads_names(encoder)
            self.log_name_weight = nn.Parameter(torch.zeros(()))

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width) of unit length."""
        return F.normalize(self.encode(x), dim=-1)

    def adapt(
        self, support: Examples, context: Context, state: PairState | None = None
    ) -> PairState:
        known = 0 if state is None else state.counts.shape[1]
        weights = support.mask.to(self.read.weight.dtype)
        named = named_examples(context, lambda words: words, known=known) if self.names else None
        if named is not None:
            support = concatenate(support, named)
            weights = torch.cat([weights, named.mask * self.log_name_weight.exp()], 1)
        # As a mask, weights count an example for as many as they say.
        found = support._replace(mask=weights)
        sums = class_sums(self.embed(found.x), found, context.classes.shape[1])
        prototypes = PrototypeState(*sums)
        if state is not None:
            found = concatenate(Examples(state.x, state.labels, state.weights), found)
            prototypes = prototypes.and_more(PrototypeState(state.sums, state.counts))
        return PairState(*found, *prototypes)

    def predict(self, state: PairState, x: Inputs, context: Context) -> Tensor:
        means = PrototypeState(state.sums, state.counts).means
        near = closeness(self.embed(x), means, "cosine") * self.log_temperature.exp()
        exists = state.weights > 0
        few = exists.sum(1, keepdim=True) <= self.pairs
        said = self._read(state, x, exists & few)
        counted = state.weights.where(exists, 1).log()[:, None]
        whole = class_log_sums(said + counted, state.labels, exists, near.shape[-1])
        seen = state.counts[:, None] > 0
        spoken = whole - state.counts[:, None].where(seen, 1).log()
        return (near + spoken.where(few[..., None], 0)).masked_fill(~seen, UNSEEN)

    def _read(self, state: PairState, x: Tensor, wanted: Tensor) -> Tensor:
        """What the encoder says of each query and example, (task, query, example), 0 where that is not wanted."""
        pieces = []
        for part in x.split(self._at_once(state.weights), 1):
            where = wanted[:, None].expand(-1, part.shape[1], -1)
            said = state.weights.new_zeros(where.shape)
            if where.any():
                task, query, example = where.nonzero(as_tuple=True)
                assert isinstance(self.encoder, ReadsPairs)
                pairs = self.encoder.read_pairs(part[task, query], state.x[task, example])
                said = said.index_put((task, query, example), self.read(pairs)[:, 0].to(said.dtype))
            pieces.append(said)
        return torch.cat(pieces, 1)

    def _at_once(self, examples: Tensor) -> int:
        """Queries that are read at a time, all tasks (task, example) together."""
        return max(1, PAIRS_AT_ONCE[examples.device.type == "cpu"] // max(1, examples.numel()))

    def together(self, episode: Episode) -> int:
        each = max(1, episode.support.mask.shape[1] * episode.query.mask.shape[1])
        return max(1, PAIRS_AT_ONCE[episode.query.mask.device.type == "cpu"] // each)

    def outer_loss(self, episode: Episode) -> Tensor:
        """:meth:`query_loss`, its gradient made of some queries at a time."""
        state = self.adapt(episode.support, episode.context)
        return self.asked(state, episode, at_once=self._at_once(state.weights))
