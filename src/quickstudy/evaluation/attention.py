"""How the answer to a query shares its attention among the examples of its task."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.episode import Episode
from quickstudy.learners.base import Learner
from quickstudy.nn.layers import recorded_attention


def answer_with_attention(learner: Learner, episode: Episode) -> tuple[Tensor, Tensor | None]:
    """Outputs for the queries, and how each shares its attention among the support, (task, query, support).

    The mean over layers and heads, without what a query gives to itself or to the names of classes: shares of a query
    add up to one. None for a learner whose queries attend to nothing.
    """
    state = learner.adapt(episode.support, episode.context)
    with recorded_attention() as calls:
        outputs = learner.predict(state, episode.query.x, episode.context)
    count = episode.support.mask.shape[1]
    known = [weights for weights in calls if weights.ndim == 4 and weights.shape[-1] > count]
    if not known:
        return outputs, None
    # Names of classes stand before the examples, the query itself behind them.
    seen = torch.stack([weights[..., -1 - count : -1].mean(1) for weights in known]).mean(0)
    return outputs, seen / seen.sum(-1, keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
