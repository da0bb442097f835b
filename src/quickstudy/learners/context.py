"""Learners that adapt in one forward pass: the support is read as a sequence, and queries attend to it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN, class_sums
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Norm, Transformer

KEY_PERIODS = 32
"""How often the key of a class runs through 0 … 1 along one unit of its projection. Large enough to look random,
small enough that rounding in single precision rarely changes the order of two classes."""


def simplex(count: int, width: int) -> Tensor:
    """``count`` unit vectors at equal angles, ``c_i · c_j = -1 / (count - 1)``, as far apart as can be.

    The corners of a regular simplex, turned by a fixed rotation so that every feature takes part.

    Args:
        count: number of vectors.
        width: their features, at least ``count - 1``.

    Returns:
        (count, width), the same on every call.

    Raises:
        ValueError: fewer than 2 vectors, or too few features for so many of them.

    >>> codes = simplex(3, 4)
    >>> (codes @ codes.T).round(decimals=3).tolist()
    [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    if count < 2:
        raise ValueError(f"A bank holds at least 2 label codes; found {count}.")
    if width < count - 1:
        raise ValueError(
            f"A bank of {count} label codes needs a width of at least {count - 1}; found a width of {width}. "
            "Make the width larger or the bank smaller."
        )
    corners = torch.eye(count, dtype=torch.float64) - 1 / count
    # The corners lie in a space of count - 1 dimensions, whose basis the singular vectors give.
    flat = torch.linalg.svd(corners)[2][: count - 1]
    generator = torch.Generator().manual_seed(count)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    codes = F.normalize(corners @ flat.T, dim=-1) @ turn[: count - 1]
    return codes.to(torch.get_default_dtype())


class InContextState(NamedTuple):
    """The support as the Transformer has read it."""

    features: Tensor
    """Embedded support, (task, example, width of the encoder)"""
    labels: Tensor
    """int64 (task, example)"""
    mask: Tensor
    """bool (task, example)"""
    codes: Tensor
    """int64 (task, way), which label code each class was dealt"""
    keys: Tensor
    """(task, layer, head, example, width / heads)"""
    values: Tensor
    """(task, layer, head, example, width / heads)"""


class InContext(Learner):
    """A Transformer that reads labelled examples and then classifies queries, without any gradient.

    Support tokens ``P f(x_i) + code(y_i)`` attend to one another; a query token ``P f(x) + u`` attends to the
    support and to itself only; ``logit_c = τ (cos(f(x), p_c) + ⟨R h(x), code(c)⟩ / √width)``, with h the
    query's output and p_c the mean of the class's unit embeddings.

    Fifty et al. 2024, Context-Aware Meta-Learning (CAML), with the attention mask of Nguyen & Grover 2022,
    Transformer Neural Processes. Differs from the paper: the support is read once for all queries; codes are
    added rather than put behind the features, and the query is compared with the codes rather than sent
    through a classifier of fixed size, so any way up to ``bank`` works; the read-out R begins at zero beside
    prototypes, so training begins at a prototypical network and learns a correction; the encoder is trained
    as well. There are no positions: the support is a set.

    Label codes are the corners of a simplex. Which class gets which is decided by a pseudo-random key
    computed from the content of its support, so renumbering the classes permutes the outputs and changes
    nothing else, and neither label order nor a code says anything that could be memorised.

    Args:
        encoder: maps an example to a vector.
        width: features of a token, at least ``bank - 1``.
        layers: Transformer layers.
        heads: attention heads.
        bank: number of label codes, the largest way.
        temperature: initial τ.
        dropout: while training.
        label_smoothing: of the training loss.

    Raises:
        ValueError: an option is out of range; at adaptation, more classes than ``bank``.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = InContext(RawEncoder(2), width=8, layers=1, heads=2, bank=4)
    >>> state = learner.adapt(support, context)
    >>> learner.predict(state, torch.randn(1, 3, 2), context).shape
    torch.Size([1, 3, 2])
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = InContextState
    bank_codes: Tensor
    key_direction: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        bank: int = 64,
        temperature: float = 10.0,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if temperature <= 0:
            raise ValueError(f"The temperature must be positive; found {temperature}.")
        if layers < 1:
            raise ValueError(f"The number of layers must be at least 1; found {layers}.")
        self.bank = bank
        self.project = nn.Sequential(Norm(encoder.width), nn.Linear(encoder.width, width))
        self.unknown = nn.Parameter(torch.zeros(width))
        self.transformer = Transformer(width, layers=layers, heads=heads, dropout=dropout)
        self.read = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.read.weight)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("bank_codes", simplex(bank, width) * math.sqrt(width))
        generator = torch.Generator().manual_seed(encoder.width)
        self.register_buffer("key_direction", torch.randn(encoder.width, generator=generator))

    def adapt(
        self, support: Examples, context: Context, state: InContextState | None = None
    ) -> InContextState:
        way = context.classes.shape[1]
        if way > self.bank:
            raise ValueError(
                f"A task of {way} classes, but this learner has a bank of {self.bank} label codes; give it fewer "
                f"classes, or train a learner with bank={way} or more."
            )
        examples = support._replace(x=self.encode(support.x))
        if state is not None:
            examples = concatenate(Examples(state.features, state.labels, state.mask), examples)
        codes = self._deal(examples, way)
        keys, values = self._read_support(examples, codes)
        return InContextState(*examples, codes, keys, values)

    def predict(self, state: InContextState, x: Inputs, context: Context) -> Tensor:
        features = self.encode(x)
        answer = self.read(
            self.transformer.isolated(
                self.project(features) + self.unknown,
                state.keys,
                state.values,
                mask=state.mask[:, None, None],
            )
        )
        codes = self.bank_codes[state.codes]
        similarity = answer @ codes.transpose(1, 2) / math.sqrt(codes.shape[-1])
        means, counts = self._class_means(
            Examples(state.features, state.labels, state.mask), codes.shape[1]
        )
        similarity = similarity + F.normalize(features, dim=-1) @ means.transpose(1, 2)
        return (similarity * self.log_temperature.exp()).masked_fill(counts[:, None] == 0, UNSEEN)

    def _class_means(self, examples: Examples, way: int) -> tuple[Tensor, Tensor]:
        """Mean direction (task, way, width) and number (task, way) of the examples of each class."""
        sums, counts = class_sums(F.normalize(examples.x, dim=-1), examples, way)
        return F.normalize(sums, dim=-1), counts

    def _deal(self, examples: Examples, way: int) -> Tensor:
        """Which code each class gets, int64 (task, way): a run of the bank, in the order of the classes' keys."""
        with torch.no_grad():
            means, counts = self._class_means(examples, way)
            seen = counts > 0
            key = ((means * self.key_direction).sum(-1) * KEY_PERIODS).remainder(1)
            start = torch.where(seen, key, 0).sum(1, keepdim=True).remainder(1) * self.bank
            rank = key.masked_fill(~seen, 2).argsort(1).argsort(1)
            return (rank + start.long()) % self.bank

    def _read_support(self, examples: Examples, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the support in every layer, each (task, layer, head, example, width / heads)."""
        dealt = codes.gather(1, examples.y)
        tokens = self.project(examples.x) + self.bank_codes[dealt]
        # Padding sees itself as well: a row of attention without any key would not be a number.
        itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        mask = (examples.mask[:, None] | itself)[:, None]
        return self.transformer.memorise(tokens, mask=mask)
