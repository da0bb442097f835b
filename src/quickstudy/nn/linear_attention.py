"""Attention by a kernel: sums in place of scores, so work and memory grow with the examples, not with their square."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kernel(x: Tensor) -> Tensor:
    """``φ(x) = elu(x) + 1``, which is positive."""
    return F.elu(x) + 1


def kernel_sums(
    key: Tensor, value: Tensor, mask: Tensor | None = None, *, plain: bool = False
) -> tuple[Tensor, Tensor]:
    """What a memory comes to: ``z = Σ_j φ(k_j)`` and ``S = Σ_j φ(k_j) v_jᵀ``; of plain products, φ(k) = k and z counts.

    The sums of two memories are those of both together.

    Args:
        key: (…, key, width).
        value: (…, key, width).
        mask: bool, broadcastable to (…, 1, key); False hides a key.
        plain: φ is the identity, and memories are divided by how many keys they have.

    Returns:
        z (…, 1, width) and S (…, width, width).
    """
    feature, counted = (key, torch.ones_like(key)) if plain else (kernel(key),) * 2
    if mask is not None:
        feature, counted = (each * mask.transpose(-1, -2) for each in (feature, counted))
    return counted.sum(-2, keepdim=True), feature.transpose(-1, -2) @ value


def kernel_attention(
    query: Tensor,
    sums: tuple[Tensor, Tensor],
    own_key: Tensor,
    own_value: Tensor,
    *,
    alone: Tensor,
    plain: bool = False,
) -> Tensor:
    """Attention of each query to a memory that is known by its sums, and of some to themselves as well.

    ``(φ(q) S + a φ(q)·φ(k_own) v_own) / (φ(q)·z + a φ(q)·φ(k_own))``, with a = 1 for those that see themselves.

    Katharopoulos et al. 2020, Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention, equation
    5. Differs from the paper: tokens that are not of the memory see themselves beside it.

    Of plain products, ``(q S + a (q·k_own) v_own) / (√d (n + a))`` for n keys: what a query gets is linear in it, so
    that a layer can take a step of gradient descent on a linear model of the memory (von Oswald et al. 2023,
    Transformers Learn In-Context by Gradient Descent, proposition 1).

    Args:
        query: (…, query, width).
        sums: of the memory, as from :func:`kernel_sums`.
        own_key: of the queries, (…, query, width).
        own_value: of the queries, (…, query, width).
        alone: bool, broadcastable to (…, query, 1); where a query sees itself too. Where the memory is empty, it must.
        plain: as in :func:`kernel_sums`.

    Returns:
        (…, query, width).

    >>> import torch
    >>> one, two = torch.ones(1, 3, 4), torch.full((1, 3, 4), 2.0)
    >>> found = kernel_attention(one, kernel_sums(one, one), one, two, alone=torch.tensor(True))
    >>> found[0, 0].tolist()  # three ones and itself
    [1.25, 1.25, 1.25, 1.25]
    """
    total, whole = sums
    feature = query / math.sqrt(query.shape[-1]) if plain else kernel(query)
    own = (feature * (own_key if plain else kernel(own_key))).sum(-1, keepdim=True) * alone
    among = total[..., :1] + alone if plain else feature @ total.transpose(-1, -2) + own
    return (feature @ whole + own * own_value) / among
