"""Relation network: how alike a query and a class are is learned, not given by a distance."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN, PrototypeState, class_sums
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Norm


class RelationNetwork(Learner):
    """Relation network: a perceptron compares each query with each class.

    ``logit_c = w · GELU(Norm(V GELU(P p_c + Q f(x) + R (p_c ∘ f(x)))))``, with ``p_c`` the mean of the class's
    embeddings and both of length √width.

    Sung et al. 2018, Learning to Compare: Relation Network for Few-Shot Learning. Differs from the paper: it
    compares vectors, not maps of features, and so is given the product ``p_c ∘ f(x)`` beside the two, which
    convolutions find by themselves; a class is the mean of its embeddings where the paper takes the sum, so that any
    shot suits; the loss is the cross-entropy of a softmax over classes, not the squared error of a sigmoid for each.

    Args:
        encoder: maps an example to a vector.
        hidden: features of the perceptron; the width of the encoder when 0.
        label_smoothing: of the training loss.

    Raises:
        ValueError: hidden is negative.

    >>> import torch
    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = RelationNetwork(RawEncoder(2), hidden=8)
    >>> learner.predict(learner.adapt(support, context), torch.randn(1, 3, 2), context).shape
    torch.Size([1, 3, 2])
    """

    order_free = True
    additive = True
    inner_loop = False
    grows = True
    state_type = PrototypeState

    def __init__(self, encoder: Encoder, *, hidden: int = 0, label_smoothing: float = 0.0) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if hidden < 0:
            raise ValueError(f"The hidden features must be 0 or more; found {hidden}.")
        width, hidden = encoder.width, hidden or encoder.width
        self.from_class = nn.Linear(width, hidden)
        self.from_query = nn.Linear(width, hidden, bias=False)
        self.from_both = nn.Linear(width, hidden, bias=False)
        # A bias of the last layer would be the same for every class, which a softmax does not see.
        self.relate = nn.Sequential(
            nn.GELU(),
            nn.Linear(hidden, hidden),
            Norm(hidden),
            nn.GELU(),
            nn.Linear(hidden, 1, bias=False),
        )

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width) of length √width."""
        features = self.encode(x)
        return F.normalize(features, dim=-1) * math.sqrt(features.shape[-1])

    def adapt(
        self, support: Examples, context: Context, state: PrototypeState | None = None
    ) -> PrototypeState:
        sums = class_sums(self.embed(support.x), support, context.classes.shape[1])
        return PrototypeState(*sums).and_more(state)

    def predict(self, state: PrototypeState, x: Inputs, context: Context) -> Tensor:
        queries = self.embed(x)
        means = F.normalize(state.means, dim=-1) * math.sqrt(queries.shape[-1])
        both = self.from_both(queries[:, :, None] * means[:, None])
        pairs = both + self.from_class(means)[:, None] + self.from_query(queries)[:, :, None]
        return self.relate(pairs)[..., 0].masked_fill(state.counts[:, None] == 0, UNSEEN)
