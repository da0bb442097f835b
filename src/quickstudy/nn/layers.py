"""The layers of every Transformer here: norm, attention, block and stack.

All of them are exact under ``vmap`` and under second derivatives (with
:func:`quickstudy.functional.exact_derivatives`), which the stock layers are not.
"""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.functional import inside_transform
from quickstudy.functional.norms import separate_layer_norm
from quickstudy.nn.attention import Attention, and_itself, attention
from quickstudy.nn.isolated_attention import isolated_attention, recorded_attention
from quickstudy.nn.positions import Turn

__all__ = [
    "Attention",
    "Block",
    "Manner",
    "Norm",
    "Transformer",
    "and_itself",
    "attention",
    "isolated_attention",
    "options_of_manner",
    "recorded_attention",
]


Manner = Literal["standard", "grouped", "linear", "products"]
"""How the tokens of a set attend: each head by itself, two heads with one set of keys and values, or by kernels."""


class OptionsOfManner(TypedDict, total=False):
    """Those of :class:`Attention` that a manner sets."""

    groups: int
    linear: bool
    plain: bool


class Options(OptionsOfManner, total=False):
    """Of :class:`Attention`, whose defaults they have."""

    rotary: bool
    dropout: float
    window: int
    slots: int


def options_of_manner(manner: Manner, heads: int) -> OptionsOfManner:
    """The options of :class:`Transformer` for a manner of attention.

    Raises:
        ValueError: there is no such manner, or heads cannot be paired.

    >>> options_of_manner("grouped", 4)
    {'groups': 2}
    """
    if manner not in get_args(Manner):
        raise ValueError(f"The attention must be {', '.join(get_args(Manner))}; found {manner!r}.")
    if manner == "grouped" and heads % 2:
        raise ValueError(f"Grouped attention pairs its heads; found {heads} of them.")
    if manner == "grouped":
        return {"groups": heads // 2}
    if manner == "products":
        return {"linear": True, "plain": True}
    return {"linear": True} if manner == "linear" else {}


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

    Options are those of :class:`Attention`.

    Xiong et al. 2020, On Layer Normalization in the Transformer Architecture.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        expansion: int = 4,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = Norm(width), Norm(width)
        self.attention = Attention(width, heads=heads, **options)
        self.expand, self.shrink = (
            nn.Linear(width, expansion * width),
            nn.Linear(expansion * width, width),
        )
        self.drop = nn.Dropout(self.attention.dropout)

    def mlp(self, x: Tensor) -> Tensor:
        """The residual feed-forward half of the layer."""
        return x + self.drop(self.shrink(F.gelu(self.expand(self.mlp_norm(x)))))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        x = x + self.drop(self.attention(self.attention_norm(x), mask=mask, causal=causal))
        return self.mlp(x)

    def isolated(
        self, x: Tensor, key: Tensor, value: Tensor, *, mask: Tensor, turn: Turn | None = None
    ) -> Tensor:
        """The layer for tokens that see a memory and themselves only, as :meth:`Attention.isolated`."""
        normed = self.attention_norm(x)
        attended = self.attention.isolated(normed, key, value, mask=mask, turn=turn)
        return self.mlp(x + self.drop(attended))

    def together(self, x: Tensor, memory: int, *, mask: Tensor, turn: Turn | None = None) -> Tensor:
        """The layer for a memory and for tokens that see it and themselves only, as :meth:`Attention.together`."""
        attended = self.attention.together(self.attention_norm(x), memory, mask=mask, turn=turn)
        return self.mlp(x + self.drop(attended))


class Transformer(nn.Module):
    """A stack of blocks with a final norm.

    Args:
        width: features of a token.
        layers: blocks.
        heads: of attention.
        expansion: of the width, inside a block.
        rotary: positions, as in :class:`Attention`; without, tokens have none of their own.
        dropout: while training.
        groups: of heads that share keys and values; 0: each head has its own.
        linear: attention by kernels, for long sets.
        plain: linear attention by products, without a kernel.
        window: how far tokens see one another; 0: everywhere.
        slots: learned tokens that see and are seen by all, whatever the window; they are put before the others, and are
            no part of the result.

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
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        self.linear, slots = options.get("linear", False), options.get("slots", 0)
        self.blocks = nn.ModuleList(
            Block(width, heads=heads, expansion=expansion, **options) for _ in range(layers)
        )
        self.norm = Norm(width)
        self.slots: nn.Parameter | None = None
        if slots:
            self.slots = nn.Parameter(0.02 * torch.randn(slots, width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Tokens (…, token, width) to tokens; ``mask`` as in :class:`Attention`."""
        slots = 0 if self.slots is None else len(self.slots)
        if self.slots is not None:
            x = torch.cat([self.slots.expand(*x.shape[:-2], -1, -1), x], -2)
            mask = None if mask is None else F.pad(mask, (slots, 0), value=True)
        for block in self.blocks:
            x = block(x, mask=mask, causal=causal)
        return self.norm(x[..., slots:, :])

    def memorise(
        self, x: Tensor, *, mask: Tensor, turn: Turn | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is kept of tokens in every layer: keys and values, each (…, layer, group, token, width / heads).

        Of linear attention, whose mask is one for all tokens, sums: one row, and ``width / heads`` rows, to a group.
        """
        keys, values = [], []
        stack = self._stack()
        for block in stack:
            normed = block.attention_norm(x)
            kept = block.attention.memory(normed, mask, turn)
            keys.append(kept[0])
            values.append(kept[1])
            if block is not stack[-1]:
                known = None if self.linear else kept
                attended = block.attention(normed, known, mask=mask, turn=turn)
                x = block.mlp(x + block.drop(attended))
        return torch.stack(keys, -4), torch.stack(values, -4)

    def isolated(
        self, x: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor, turn: Turn | None = None
    ) -> Tensor:
        """Tokens that see a memory and themselves only, through all layers and the final norm.

        Args:
            x: (…, token, width).
            keys: of the memory, as from :meth:`memorise`.
            values: likewise.
            mask: bool, broadcastable to (…, head, token, key); False hides a key.
            turn: of the tokens, (…, head, token, width / heads / 2).
        """
        for layer, block in enumerate(self._stack()):
            key, value = keys.select(-4, layer), values.select(-4, layer)
            x = block.isolated(x, key, value, mask=mask, turn=turn)
        return self.norm(x)

    def together(
        self,
        memory: Tensor,
        x: Tensor,
        *,
        memory_mask: Tensor,
        mask: Tensor,
        turn: Turn | None = None,
    ) -> Tensor:
        """:meth:`memorise` and :meth:`isolated` in one stream: the same numbers by fewer and larger products.

        Args:
            memory: tokens (…, key, width).
            x: tokens (…, token, width) that see the memory and themselves only.
            memory_mask: bool, broadcastable to (…, head, key, key), between tokens of the memory.
            mask: bool, broadcastable to (…, head, token, key).
            turn: of the memory and the tokens behind it, (…, head, key + token, width / heads / 2).

        Of linear attention, both masks are one and the same for all tokens, (…, 1, key).

        Returns:
            What becomes of ``x``.
        """
        count, tokens = memory.shape[-2], x.shape[-2]
        whole = mask
        if not self.linear:
            mask = mask.expand(*mask.shape[:-2], tokens, count)
            whole = torch.cat([memory_mask.expand(*mask.shape[:-2], count, count), mask], -2)
        *stack, last = self._stack()
        x = torch.cat([memory, x], -2)
        for block in stack:
            x = block.together(x, count, mask=whole, turn=turn)
        memory, x = x[..., :count, :], x[..., count:, :]
        first, second = (
            (None, None) if turn is None else map(turn.of, (slice(count), slice(count, None)))
        )
        # Of what the last layer makes of the memory, nothing but keys and values is wanted.
        kept = last.attention.memory(last.attention_norm(memory), mask, first)
        return self.norm(last.isolated(x, *kept, mask=mask, turn=second))

    def _stack(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))
