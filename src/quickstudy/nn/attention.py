"""Attention: of tokens to one another, to a memory, or to a memory and themselves only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.positions import rotate

SHORT = 64
"""Tokens up to which attention on a CPU is made of plain products where a gradient is wanted."""

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


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention, ``softmax(Q Kᵀ / √d) V``.

    Vaswani et al. 2017, Attention Is All You Need, equation 1.

    Args:
        query: (…, query, width).
        key: (…, key, width).
        value: (…, key, width).
        mask: bool, broadcastable to (…, query, key); False hides a key.
        causal: hide the keys behind each query.
        dropout: chance of dropping an attention weight.

    Returns:
        (…, query, width).

    >>> one = torch.ones(1, 1, 3, 4)
    >>> attention(one, one, one).shape
    torch.Size([1, 1, 3, 4])
    """
    if mask is None and not causal and torch.is_grad_enabled() and _short(query, key):
        weights = ((query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)).softmax(-1)
        return F.dropout(weights, dropout, dropout > 0) @ value
    if causal and mask is not None:
        shape = (query.shape[-2], key.shape[-2])
        mask = mask & torch.ones(shape, dtype=torch.bool, device=query.device).tril()
        causal = False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


def _short(query: Tensor, key: Tensor) -> bool:
    """Whether plain products are faster than the fused kernel, forward and backward together: few tokens on a CPU."""
    return query.device.type == "cpu" and max(query.shape[-2], key.shape[-2]) <= SHORT


def and_itself(visible: Tensor) -> Tensor:
    """What each token sees, and itself: a row of attention without any key would not be a number.

    Args:
        visible: bool, broadcastable to (…, token, token).

    Returns:
        bool (…, token, token).

    >>> and_itself(torch.tensor([[True, False]])).tolist()
    [[True, False], [True, True]]
    """
    return visible | torch.eye(visible.shape[-1], dtype=torch.bool, device=visible.device)


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


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to a memory.

    ``MultiHead(x) = concat_h(softmax(Q_h K_hᵀ / √d_h) V_h) W_o`` (Vaswani et al. 2017, section 3.2.2).

    Args:
        width: features of a token; a multiple of ``heads``.
        heads: number of heads.
        rotary: turn queries and keys by their position.
        dropout: chance of dropping an attention weight while training.
    """

    def __init__(
        self, width: int, *, heads: int, rotary: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"The width must be a multiple of the number of heads; found width {width} and {heads} heads."
            )
        self.heads, self.rotary, self.dropout = heads, rotary, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(…, token, width) to (…, head, token, width / heads)."""
        # The compiler cannot see through Tensor.unflatten while norms are taken apart.
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(-2, -3)

    def merge(self, x: Tensor) -> Tensor:
        """(…, head, token, width / heads) to (…, token, width), through the output layer."""
        return self.out(x.transpose(-2, -3).flatten(-2))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens, each (…, head, token, width / heads)."""
        key = self.split(self.key(x))
        return (rotate(key) if self.rotary else key), self.split(self.value(x))

    def forward(
        self,
        x: Tensor,
        memory: Tensor | tuple[Tensor, Tensor] | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend from ``x`` (…, token, width) to a memory, or to itself.

        Args:
            memory: tokens (…, key, width), or their keys and values as from :meth:`keys_values`.
            mask: bool, broadcastable to (…, head, token, key); False hides a key.
        """
        query = self.split(self.query(x))
        if self.rotary:
            query = rotate(query)
        if not isinstance(memory, tuple):
            memory = self.keys_values(x if memory is None else memory)
        key, value = memory
        dropout = self.dropout if self.training else 0.0
        return self.merge(attention(query, key, value, mask=mask, causal=causal, dropout=dropout))

    def isolated(self, x: Tensor, key: Tensor, value: Tensor, *, mask: Tensor) -> Tensor:
        """Attend from each token of ``x`` (…, token, width) to a memory and to itself only.

        Args:
            key: of the memory, (…, head, key, width / heads), as from :meth:`keys_values`.
            value: likewise.
            mask: bool, broadcastable to (…, head, token, key); False hides a key.

        Raises:
            ValueError: rotary attention, because isolated tokens have no place in a sequence.
        """
        query, own_key, own_value = self._placeless(x)
        dropout = self.dropout if self.training else 0.0
        return self.merge(
            isolated_attention(query, key, value, own_key, own_value, mask=mask, dropout=dropout)
        )

    def together(self, x: Tensor, memory: int, *, mask: Tensor) -> Tensor:
        """Attend from each token to the first ``memory`` tokens, and from those behind them to themselves as well.

        Args:
            x: (…, token, width).
            memory: how many tokens are seen by all.
            mask: bool, broadcastable to (…, head, token, memory); False hides a token of the memory.

        Raises:
            ValueError: rotary attention.
        """
        query, key, value = self._placeless(x)
        alone = torch.arange(x.shape[-2], device=x.device) >= memory
        seen = (key[..., :memory, :], value[..., :memory, :])
        dropout = self.dropout if self.training else 0.0
        return self.merge(
            isolated_attention(query, *seen, key, value, mask=mask, alone=alone, dropout=dropout)
        )

    def _placeless(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens without positions, made by one product."""
        if self.rotary:
            raise ValueError(
                "Isolated tokens have no positions; build the attention without rotary."
            )
        if not torch.is_grad_enabled():
            # A few queries pass through too fast to be worth putting the weights together.
            own_key, own_value = self.keys_values(x)
            return self.split(self.query(x)), own_key, own_value
        parts = (self.query, self.key, self.value)
        weight, bias = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias")
        )
        query, key, value = F.linear(x, weight, bias).chunk(3, -1)
        return self.split(query), self.split(key), self.split(value)
