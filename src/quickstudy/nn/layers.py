"""The layers of every Transformer here: norm, attention, block and stack.

All of them are exact under ``vmap`` and under second derivatives (with
:func:`quickstudy.functional.exact_derivatives`), which the stock layers are not.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.functional import inside_transform
from quickstudy.functional.norms import separate_layer_norm
from quickstudy.nn.attention import (
    Attention,
    and_itself,
    attention,
    isolated_attention,
    recorded_attention,
)

__all__ = [
    "Attention",
    "Block",
    "Norm",
    "Transformer",
    "and_itself",
    "attention",
    "isolated_attention",
    "recorded_attention",
]


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

    def together(self, x: Tensor, memory: int, *, mask: Tensor) -> Tensor:
        """The layer for a memory and for tokens that see it and themselves only, as :meth:`Attention.together`."""
        attended = self.attention.together(self.attention_norm(x), memory, mask=mask)
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

    def together(self, memory: Tensor, x: Tensor, *, memory_mask: Tensor, mask: Tensor) -> Tensor:
        """:meth:`memorise` and :meth:`isolated` in one stream: the same numbers by fewer and larger products.

        Args:
            memory: tokens (…, key, width).
            x: tokens (…, token, width) that see the memory and themselves only.
            memory_mask: bool, broadcastable to (…, head, key, key), between tokens of the memory.
            mask: bool, broadcastable to (…, head, token, key).

        Returns:
            What becomes of ``x``.
        """
        count, tokens = memory.shape[-2], x.shape[-2]
        mask = mask.expand(*mask.shape[:-2], tokens, count)
        whole = torch.cat([memory_mask.expand(*mask.shape[:-2], count, count), mask], -2)
        *stack, last = self._stack()
        x = torch.cat([memory, x], -2)
        for block in stack:
            x = block.together(x, count, mask=whole)
        memory, x = x[..., :count, :], x[..., count:, :]
        # Of what the last layer makes of the memory, nothing but keys and values is wanted.
        kept = last.attention.keys_values(last.attention_norm(memory))
        return self.norm(last.isolated(x, *kept, mask=mask))

    def _stack(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))
