"""Attention to what is near, and to a few tokens that see and are seen by all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    slots: int = 0,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention in which token i sees tokens j with ``|i - j| <= window`` and the first ``slots`` tokens.

    The slots see all tokens. Tokens are taken in blocks as long as the window, which look at their own block and its
    neighbours, so work and memory grow with ``tokens · window``.

    Beltagy et al. 2020, Longformer: The Long-Document Transformer. Differs from the paper: global tokens are
    slots of their own, before the sequence, and have the same projections as the others.

    Args:
        query: (…, token, width), the slots first.
        key: (…, token, width).
        value: (…, token, width).
        window: how far a token sees to either side, at least 1.
        slots: how many tokens at the beginning are seen by all.
        mask: bool, broadcastable to (…, 1, token); False hides a key, from all but itself.
        dropout: chance of dropping an attention weight.

    Returns:
        (…, token, width).

    >>> x = torch.eye(5)[None]
    >>> (local_attention(0 * x, 0 * x, x, window=1)[0, 2] > 0).tolist()
    [False, True, True, True, False]
    """
    tokens = query.shape[-2] - slots
    if mask is None:
        mask = torch.ones(tokens + slots, dtype=torch.bool, device=query.device)[None]
    count = -(-tokens // window)
    extra = count * window - tokens

    def blocks(x: Tensor) -> Tensor:
        """(…, token, width) to (…, block, window, width)."""
        return F.pad(x, (0, 0, 0, extra)).unflatten(-2, (count, window))

    def beside(x: Tensor) -> Tensor:
        """(…, token, width) to (…, block, slot and three windows, width): what the tokens of a block may see."""
        own = F.pad(blocks(x[..., slots:, :]), (0, 0, 0, 0, 1, 1))
        near = torch.cat([own[..., i : i + count, :, :] for i in range(3)], -2)
        shared = x[..., None, :slots, :].expand(*near.shape[:-2], slots, x.shape[-1])
        return torch.cat([shared, near], -2)

    place = torch.arange(count * window, device=query.device).view(count, window, 1)
    other = torch.arange(3 * window, device=query.device) - window + place[:, :1]
    near = (place - other).abs() <= window
    everywhere = torch.ones(count, window, slots, dtype=torch.bool, device=query.device)
    # Of a mask (…, 1, token), each token is a row with one feature.
    known = beside(mask.transpose(-1, -2).to(query.dtype)).transpose(-1, -2) > 0
    itself = F.pad(place == other, (slots, 0))
    visible = torch.cat([everywhere, near], -1) & known | itself
    found = F.scaled_dot_product_attention(
        blocks(query[..., slots:, :]),
        beside(key),
        beside(value),
        attn_mask=visible,
        dropout_p=dropout,
    )
    local = found.flatten(-3, -2)[..., :tokens, :]
    if not slots:
        return local
    oneself = torch.eye(slots, tokens + slots, dtype=torch.bool, device=query.device)
    seen = F.scaled_dot_product_attention(
        query[..., :slots, :], key, value, attn_mask=mask | oneself, dropout_p=dropout
    )
    return torch.cat([seen, local], -2)
