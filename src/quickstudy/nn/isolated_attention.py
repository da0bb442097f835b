"""Attention of tokens that see a memory and themselves, and no one another; and what they look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

_watching: list[list[Tensor]] = []


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """What isolated tokens look at while the block lasts: of each call in turn, the weights (…, query, key + 1).

    The last weight of a query is that of itself.

    >>> one = torch.ones(1, 3, 4)
    >>> with recorded_attention() as calls:
    ...     answer = isolated_attention(one, one, one, one, one, mask=torch.ones(1, 3, 3) > 0)
    >>> [weights.shape for weights in calls]
    [torch.Size([1, 3, 4])]
    """
    calls: list[Tensor] = []
    _watching.append(calls)
    try:
        yield calls
    finally:
        _watching.remove(calls)


def isolated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    *,
    mask: Tensor,
    alone: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each query to a memory and to itself, but to no other query.

    ``softmax([Q Kᵀ, q·k_own] / √d) [V; v_own]``: the memory's scores and one score more, so the work grows
    with the number of queries and not with its square.

    Args:
        query: (…, query, width).
        key: of the memory, (…, key, width).
        value: of the memory, (…, key, width).
        own_key: of the queries, (…, query, width).
        own_value: of the queries, (…, query, width).
        mask: bool, broadcastable to (…, query, key); False hides a key of the memory. Or float: added to the scores.
        alone: bool, (query,); False hides a query's own key, for those that are of the memory themselves.
        dropout: chance of dropping an attention weight.

    Returns:
        (…, query, width).

    >>> one = torch.ones(1, 3, 4)
    >>> hidden = torch.zeros(1, 3, 3, dtype=torch.bool)
    >>> isolated_attention(one, one, one, one, 2 * one, mask=hidden)[0, 0].tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    scores, root = query @ key.transpose(-1, -2), math.sqrt(query.shape[-1])
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    else:
        scores = torch.add(scores, mask, alpha=root)
    own = (query * own_key).sum(-1, keepdim=True)
    if alone is not None:
        own = own.masked_fill(~alone[:, None], -math.inf)
    # There are fewer scores than features of queries, as long as the memory is short.
    weights = (torch.cat([scores, own], -1) / root).softmax(-1)
    for calls in _watching:
        calls.append(weights.detach())
    weights = F.dropout(weights, dropout, dropout > 0)
    return torch.addcmul(weights[..., :-1] @ value, weights[..., -1:], own_value)
