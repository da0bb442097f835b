"""The layers of every Transformer here: norm, attention, block and stack.

All of them are exact under ``vmap`` and under second derivatives (with
:func:`quickstudy.functional.exact_derivatives`), which the stock layers are not.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.functional import inside_transform
from quickstudy.functional.norms import separate_layer_norm
from quickstudy.nn.positions import rotate

SHORT = 64
"""Tokens up to which attention on a CPU is made of plain products where a gradient is wanted."""


class Norm(nn.LayerNorm):
    """Layer normalisation whose affine part is a separate step inside function transforms.

    ``y = (x - mean(x)) / sqrt(var(x) + ε) · w + b``

    The fused backward of :class:`torch.nn.LayerNorm` treats its saved statistics as constants when ``vmap``
    lies between an outer and an inner derivative, so second-order meta-gradients of ``w`` and ``b`` are
    silently wrong (PyTorch functorch issue 534). Everywhere else it is right and faster. Names, shapes and outputs are
    those of the stock layer.

    >>> x = torch.randn(2, 8)
    >>> torch.allclose(Norm(8)(x), nn.LayerNorm(8)(x), atol=1e-6)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        if not inside_transform():
            return super().forward(x)
        return separate_layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


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


def isolated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    *,
    mask: Tensor,
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
        mask: bool, broadcastable to (…, query, key); False hides a key of the memory.
        dropout: chance of dropping an attention weight.

    Returns:
        (…, query, width).

    >>> one = torch.ones(1, 3, 4)
    >>> hidden = torch.zeros(1, 3, 3, dtype=torch.bool)
    >>> isolated_attention(one, one, one, one, 2 * one, mask=hidden)[0, 0].tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    query = query / math.sqrt(query.shape[-1])
    scores = (query @ key.transpose(-1, -2)).masked_fill(~mask, -math.inf)
    own = (query * own_key).sum(-1, keepdim=True)
    weights = F.dropout(torch.cat([scores, own], -1).softmax(-1), dropout, dropout > 0)
    return weights[..., :-1] @ value + weights[..., -1:] * own_value


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
        if self.rotary:
            raise ValueError(
                "Isolated tokens have no positions; build the attention without rotary."
            )
        own_key, own_value = self.keys_values(x)
        dropout = self.dropout if self.training else 0.0
        return self.merge(
            isolated_attention(
                self.split(self.query(x)),
                key,
                value,
                own_key,
                own_value,
                mask=mask,
                dropout=dropout,
            )
        )


class Block(nn.Module):
    """One pre-norm Transformer layer: ``x + Attention(Norm(x))``, then ``x + MLP(Norm(x))``.

    Xiong et al. 2020, On Layer Normalization in the Transformer Architecture.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        expansion: int = 4,
        rotary: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = Norm(width), Norm(width)
        self.attention = Attention(width, heads=heads, rotary=rotary, dropout=dropout)
        self.expand, self.shrink = (
            nn.Linear(width, expansion * width),
            nn.Linear(expansion * width, width),
        )
        self.drop = nn.Dropout(dropout)

    def mlp(self, x: Tensor) -> Tensor:
        """The residual feed-forward half of the layer."""
        return x + self.drop(self.shrink(F.gelu(self.expand(self.mlp_norm(x)))))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        x = x + self.drop(self.attention(self.attention_norm(x), mask=mask, causal=causal))
        return self.mlp(x)

    def isolated(self, x: Tensor, key: Tensor, value: Tensor, *, mask: Tensor) -> Tensor:
        """The layer for tokens that see a memory and themselves only, as :meth:`Attention.isolated`."""
        attended = self.attention.isolated(self.attention_norm(x), key, value, mask=mask)
        return self.mlp(x + self.drop(attended))


class Transformer(nn.Module):
    """A stack of blocks with a final norm.

    >>> Transformer(16, layers=2, heads=2)(torch.zeros(1, 5, 16)).shape
    torch.Size([1, 5, 16])
    """

    def __init__(
        self,
        width: int,
        *,
        layers: int,
        heads: int,
        expansion: int = 4,
        rotary: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads=heads, expansion=expansion, rotary=rotary, dropout=dropout)
            for _ in range(layers)
        )
        self.norm = Norm(width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Tokens (…, token, width) to tokens; ``mask`` as in :class:`Attention`."""
        for block in self.blocks:
            x = block(x, mask=mask, causal=causal)
        return self.norm(x)

    def memorise(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens in every layer, each (…, layer, head, token, width / heads)."""
        keys, values = [], []
        stack = self._stack()
        for block in stack:
            normed = block.attention_norm(x)
            key, value = block.attention.keys_values(normed)
            keys.append(key)
            values.append(value)
            if block is not stack[-1]:
                x = block.mlp(x + block.drop(block.attention(normed, (key, value), mask=mask)))
        return torch.stack(keys, -4), torch.stack(values, -4)

    def isolated(self, x: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor) -> Tensor:
        """Tokens that see a memory and themselves only, through all layers and the final norm.

        Args:
            x: (…, token, width).
            keys: of the memory, as from :meth:`memorise`.
            values: likewise.
            mask: bool, broadcastable to (…, head, token, key); False hides a key.
        """
        for layer, block in enumerate(self._stack()):
            key, value = keys.select(-4, layer), values.select(-4, layer)
            x = block.isolated(x, key, value, mask=mask)
        return self.norm(x)

    def _stack(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))
