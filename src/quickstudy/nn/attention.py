"""Attention: of tokens to one another, to a memory, or to a memory and themselves only."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.isolated_attention import isolated_attention
from quickstudy.nn.linear_attention import kernel_attention, kernel_sums
from quickstudy.nn.local_attention import local_attention
from quickstudy.nn.positions import Turn, rotate, turned

SHORT = 64
"""Tokens up to which attention on a CPU is made of plain products where a gradient is wanted."""


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


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to a memory.

    ``MultiHead(x) = concat_h(softmax(Q_h K_hᵀ / √d_h) V_h) W_o`` (Vaswani et al. 2017, section 3.2.2).

    With ``groups``, heads share keys and values, as many heads to a group (Ainslie et al. 2023, GQA); a memory is then
    ``groups / heads`` as large. With ``linear``, scores are products of kernels
    (:func:`quickstudy.nn.linear_attention.kernel_attention`), and the keys and values of a memory are its sums. With a
    ``window``, tokens that attend to one another see those near them and the first ``slots`` tokens
    (:func:`quickstudy.nn.local_attention.local_attention`).

    Args:
        width: features of a token; a multiple of ``heads``.
        heads: number of heads.
        rotary: turn queries and keys by their position.
        dropout: chance of dropping an attention weight while training.
        groups: of heads that share keys and values; 0: each head has its own.
        linear: by kernels in place of softmax.
        plain: linear attention by the products themselves, without a kernel.
        window: how far tokens see one another; 0: everywhere.
        slots: of the first tokens, how many see and are seen by all, whatever the window.

    Raises:
        ValueError: an option is out of range, or two do not go together.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        rotary: bool = False,
        dropout: float = 0.0,
        groups: int = 0,
        linear: bool = False,
        plain: bool = False,
        window: int = 0,
        slots: int = 0,
    ) -> None:
        super().__init__()
        if heads < 1 or width < 1:
            raise ValueError(
                f"Attention has at least one head and one feature; found {heads} heads and width {width}."
            )
        if width % heads:
            raise ValueError(
                f"The width must be a multiple of the number of heads; found width {width} and {heads} heads."
            )
        if groups < 0 or (groups and heads % groups):
            raise ValueError(
                f"The number of heads must be a multiple of the groups that share keys; found {heads} heads and "
                f"{groups} groups."
            )
        if window < 0 or slots < 0 or (slots and not window):
            raise ValueError(
                f"The window must be 0 or more, and slots go with a window; found {window} and {slots}."
            )
        if linear and (rotary or dropout or window):
            raise ValueError(
                "Linear attention has neither rotary positions, a window nor dropped weights; leave them out."
            )
        self.heads, self.rotary, self.dropout = heads, rotary, dropout
        self.groups, self.linear, self.window, self.slots = groups or heads, linear, window, slots
        self.plain = plain
        shared = width // heads * self.groups
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(width, shared) for _ in range(2))
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(…, token, width) to (…, head, token, width / heads)."""
        # The compiler cannot see through Tensor.unflatten while norms are taken apart.
        size = self.query.out_features // self.heads
        return x.reshape(*x.shape[:-1], x.shape[-1] // size, size).transpose(-2, -3)

    def each_head(self, x: Tensor) -> Tensor:
        """What groups of heads share, (…, group, token, width), for each head."""
        return (
            x if self.groups == self.heads else x.repeat_interleave(self.heads // self.groups, -3)
        )

    def merge(self, x: Tensor) -> Tensor:
        """(…, head, token, width / heads) to (…, token, width), through the output layer."""
        x = x.transpose(-2, -3)
        if torch.compiler.is_exporting():
            # A converter lays out what attention gives in another way than the tracer.
            x = x.clone(memory_format=torch.contiguous_format)
        return self.out(x.flatten(-2))

    def keys_values(self, x: Tensor, turn: Turn | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens, each (…, group, token, width / heads), keys turned where that is given."""
        key, value = self.split(self.key(x)), self.split(self.value(x))
        if turn is not None:
            key = turned(key, turn)
        return (rotate(key) if self.rotary else key), value

    def memory(
        self, x: Tensor, mask: Tensor | None = None, turn: Turn | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is kept of tokens that others are to look at: keys and values, or of linear attention their sums.

        Args:
            mask: as in :meth:`forward`; only the sums need it.
            turn: of the keys.
        """
        key, value = self.keys_values(x, turn)
        if not self.linear:
            return key, value
        return kernel_sums(key, value, mask, plain=self.plain)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | tuple[Tensor, Tensor] | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        turn: Turn | None = None,
    ) -> Tensor:
        """Attend from ``x`` (…, token, width) to a memory, or to itself.

        Args:
            memory: tokens (…, key, width), or their keys and values as from :meth:`keys_values`.
            mask: bool, broadcastable to (…, head, token, key); False hides a key. With a window or linear attention,
                one for all tokens, (…, 1, key); a token that is hidden sees itself.
            turn: of the queries, (…, head, token, width / heads / 2).

        Raises:
            ValueError: linear attention or a window, of what is no set: causal, or from tokens to others.
        """
        if (self.linear or self.window) and (causal or memory is not None):
            raise ValueError(
                "Linear attention and windows are for tokens that all see one another; leave causal and memory out."
            )
        query = self.split(self.query(x))
        if turn is not None:
            query = turned(query, turn)
        if self.rotary:
            query = rotate(query)
        if not isinstance(memory, tuple):
            memory = self.keys_values(x if memory is None else memory)
        if self.linear:
            return self._by_kernel(query, memory, mask)
        key, value = map(self.each_head, memory)
        dropout = self.dropout if self.training else 0.0
        if self.window:
            near = {"window": self.window, "slots": self.slots}
            return self.merge(
                local_attention(query, key, value, **near, mask=mask, dropout=dropout)
            )
        return self.merge(attention(query, key, value, mask=mask, causal=causal, dropout=dropout))

    def _by_kernel(
        self, query: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        """Linear attention of tokens to one another."""
        total, whole = map(self.each_head, kernel_sums(*memory, mask, plain=self.plain))
        hidden = torch.zeros((), dtype=torch.bool, device=query.device)
        alone = hidden if mask is None else ~mask.transpose(-1, -2)
        key, value = map(self.each_head, memory)
        return self.merge(
            kernel_attention(query, (total, whole), key, value, alone=alone, plain=self.plain)
        )

    def isolated(
        self, x: Tensor, key: Tensor, value: Tensor, *, mask: Tensor, turn: Turn | None = None
    ) -> Tensor:
        """Attend from each token of ``x`` (…, token, width) to a memory and to itself only.

        Args:
            key: of the memory, (…, group, key, width / heads), as from :meth:`memory`.
            value: likewise.
            mask: bool, broadcastable to (…, head, token, key); False hides a key. Of linear attention, sums have none.
            turn: of the tokens, (…, head, token, width / heads / 2).

        Raises:
            ValueError: rotary attention or a window, because isolated tokens have no place in a sequence.
        """
        query, own_key, own_value = self._placeless(x, turn)
        key, value = self.each_head(key), self.each_head(value)
        if self.linear:
            alone = torch.ones((), dtype=torch.bool, device=x.device)
            return self.merge(
                kernel_attention(
                    query, (key, value), own_key, own_value, alone=alone, plain=self.plain
                )
            )
        dropout = self.dropout if self.training else 0.0
        return self.merge(
            isolated_attention(query, key, value, own_key, own_value, mask=mask, dropout=dropout)
        )

    def together(self, x: Tensor, memory: int, *, mask: Tensor, turn: Turn | None = None) -> Tensor:
        """Attend from each token to the first ``memory`` tokens, and from those behind them to themselves as well.

        Args:
            x: (…, token, width).
            memory: how many tokens are seen by all.
            mask: bool, broadcastable to (…, head, token, memory); False hides a token of the memory. Of linear
                attention one for all tokens, (…, 1, memory).
            turn: of the tokens, (…, head, token, width / heads / 2).

        Raises:
            ValueError: rotary attention or a window.
        """
        query, key, value = self._placeless(x, turn)
        alone = torch.arange(x.shape[-2], device=x.device) >= memory
        if self.linear:
            sums = kernel_sums(key[..., :memory, :], value[..., :memory, :], mask, plain=self.plain)
            beside = F.pad(~mask.transpose(-1, -2), (0, 0, 0, x.shape[-2] - memory), value=True)
            return self.merge(
                kernel_attention(query, sums, key, value, alone=beside, plain=self.plain)
            )
        seen = (key[..., :memory, :], value[..., :memory, :])
        dropout = self.dropout if self.training else 0.0
        return self.merge(
            isolated_attention(query, *seen, key, value, mask=mask, alone=alone, dropout=dropout)
        )

    def _placeless(self, x: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens without positions, made by one product."""
        if self.rotary or self.window:
            raise ValueError(
                "Isolated tokens have no positions; build the attention without rotary and without a window."
            )
        if not torch.is_grad_enabled():
            # A few queries pass through too fast to be worth putting the weights together.
            own_key, own_value = map(self.each_head, self.keys_values(x, turn))
            query = self.split(self.query(x))
            return query if turn is None else turned(query, turn), own_key, own_value
        parts = (self.query, self.key, self.value)
        weight, bias = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias")
        )
        sizes = [part.out_features for part in parts]
        query, key, value = map(self.split, F.linear(x, weight, bias).split(sizes, -1))
        if turn is not None:
            query, key = turned(query, turn), turned(key, turn)
        return query, self.each_head(key), self.each_head(value)
