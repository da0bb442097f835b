"""SNAIL: a task is a sequence of labelled examples, read by causal convolutions and causal attention in turn."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate, tree_map
from quickstudy.learners.base import Learner
from quickstudy.learners.conditional_process import check_values
from quickstudy.learners.metric import UNSEEN
from quickstudy.likelihood import Categorical, Gaussian
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import attention, isolated_attention


class Convolution(nn.Module):
    """A gated causal convolution over two tokens: ``tanh(U [h_{i-d}; h_i]) · sigmoid(V [h_{i-d}; h_i])``.

    Before the first token there are zeros.

    Args:
        inputs: features of a token.
        filters: features of the result.
        dilation: d.
    """

    def __init__(self, inputs: int, filters: int, *, dilation: int) -> None:
        super().__init__()
        self.inputs, self.dilation = inputs, dilation
        self.mix = nn.Linear(2 * inputs, 2 * filters)

    def _gated(self, past: Tensor, present: Tensor) -> Tensor:
        value, gate = self.mix(torch.cat([past, present], -1)).chunk(2, dim=-1)
        return torch.tanh(value) * torch.sigmoid(gate)

    def forward(self, sequence: Tensor) -> Tensor:
        """What is found at each token of (task, token, inputs)."""
        past = F.pad(sequence, (0, 0, self.dilation, 0))[:, : sequence.shape[1]]
        return self._gated(past, sequence)

    def isolated(self, queries: Tensor, sequence: Tensor, counts: Tensor) -> Tensor:
        """The same for queries, each of which comes right behind the first ``counts`` tokens of the sequence."""
        padded = F.pad(sequence, (0, 0, self.dilation, 0))
        place = counts[:, None, None].expand(-1, 1, padded.shape[2])
        return self._gated(padded.gather(1, place).expand_as(queries), queries)


class Recall(nn.Module):
    """Causal attention of one head: ``Σ_{j ≤ i} softmax_j(q_i · k_j / √d) v_j``.

    Args:
        inputs: features of a token.
        keys: d, features of a key.
        filters: features of the result.
    """

    def __init__(self, inputs: int, filters: int, *, keys: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.query, self.key = nn.Linear(inputs, keys), nn.Linear(inputs, keys)
        self.value = nn.Linear(inputs, filters)

    def forward(self, sequence: Tensor) -> Tensor:
        """What is found at each token of (task, token, inputs)."""
        query, key, value = self.query(sequence), self.key(sequence), self.value(sequence)
        return attention(query, key, value, causal=True)

    def isolated(self, queries: Tensor, sequence: Tensor, counts: Tensor) -> Tensor:
        """The same for queries, each of which comes right behind the first ``counts`` tokens of the sequence."""
        places = torch.arange(sequence.shape[1], device=sequence.device)
        return isolated_attention(
            self.query(queries),
            self.key(sequence),
            self.value(sequence),
            self.key(queries),
            self.value(queries),
            mask=(places < counts[:, None])[:, None],
        )


class SNAILState(NamedTuple):
    """The support as a sequence, in the order in which it came; examples that do not exist are at its end."""

    features: Tensor
    """Embedded support, (task, example, width of the encoder)"""
    labels: Tensor
    """int64 (task, example), or float (task, example, values)"""
    mask: Tensor
    """bool (task, example)"""
    sequence: Tensor
    """Everything that the layers found at each example, (task, example, features)"""


class SNAIL(Learner):
    """A sequence of labelled examples, read by causal convolutions and causal attention in turn; a query is its end.

    Each layer adds what it finds to the features of a token, ``h ← [h; layer(h)]``: convolutions over two tokens at
    distances 1, 2, 4, … gather what came lately, attention picks from all that came. A token is an example with its
    label, or a query with zeros in place of one.

    Mishra et al. 2018, A Simple Neural Attentive Meta-Learner. Differs from the paper: the support is read once for all
    queries, each of which sees the support and itself, which is the same as a sequence for each; classes are numbered
    in the order of their first example, so that renumbering them permutes the outputs and changes nothing else, and a
    class without examples is never the answer; distances begin at 1; the features of the encoder are not reduced first.
    With ``values``, a task predicts numbers by :class:`~quickstudy.likelihood.Gaussian`. The order of the support
    counts, so where it means nothing, draw it at random. Without support, an answer depends on the query alone, and
    classes are equally likely.

    Args:
        encoder: maps an example to a vector.
        values: numbers that a task predicts; 0: a class.
        filters: features that a convolution adds; attention adds as many.
        keys: features of a key.
        rounds: how often attention and convolutions alternate; attention comes last once more.
        length: examples over which the convolutions of a round reach; longer sequences are left to attention.
        bank: the largest way.
        label_smoothing: of the training loss over classes.

    Raises:
        ValueError: an option is out of range; at adaptation, more classes than ``bank`` or another number of values.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = SNAIL(RawEncoder(2), filters=4, keys=4, length=8, bank=4)
    >>> learner.predict(learner.adapt(support, context), torch.randn(1, 3, 2), context).shape
    torch.Size([1, 3, 2])
    """

    order_free = False
    additive = True
    inner_loop = False
    state_type = SNAILState

    def __init__(
        self,
        encoder: Encoder,
        *,
        values: int = 0,
        filters: int = 32,
        keys: int = 32,
        rounds: int = 2,
        length: int = 64,
        bank: int = 20,
        label_smoothing: float = 0.0,
    ) -> None:
        for name, found, least in (
            ("values", values, 0),
            ("filters", filters, 1),
            ("keys", keys, 1),
            ("rounds", rounds, 1),
            ("length", length, 2),
            ("bank", bank, 2),
        ):
            if found < least:
                raise ValueError(f"{name} must be at least {least}; found {found}.")
        likelihood = Gaussian() if values else Categorical(label_smoothing=label_smoothing)
        super().__init__(encoder, likelihood)
        self.values, self.bank = values, bank
        width = encoder.width + (values or bank)
        stack: list[Convolution | Recall] = []

        def add(layer: Convolution | Recall) -> int:
            stack.append(layer)
            return layer.inputs + filters

        for _ in range(rounds):
            width = add(Recall(width, filters, keys=keys))
            for power in range(math.ceil(math.log2(length))):
                width = add(Convolution(width, filters, dilation=2**power))
        width = add(Recall(width, filters, keys=keys))
        self.stack = nn.ModuleList(stack)
        self.read = nn.Linear(width, likelihood.width(values or bank))

    def adapt(
        self, support: Examples, context: Context, state: SNAILState | None = None
    ) -> SNAILState:
        self._check(context)
        examples = support._replace(x=self.encode(support.x))
        if state is not None:
            examples = concatenate(Examples(state.features, state.labels, state.mask), examples)
        examples = _in_front(examples)
        sequence = torch.cat([examples.x, self._label_features(examples, context)], -1)
        for layer in self._layers():
            sequence = torch.cat([sequence, layer(sequence)], -1)
        return SNAILState(*examples, sequence)

    def predict(self, state: SNAILState, x: Inputs, context: Context) -> Tensor:
        features = self.encode(x)
        queries = F.pad(features, (0, self.values or self.bank))
        counts = state.mask.sum(1)
        for layer in self._layers():
            known = state.sequence[..., : layer.inputs]
            queries = torch.cat([queries, layer.isolated(queries, known, counts)], -1)
        outputs = self.read(queries)
        if self.values:
            return outputs
        turn, seen = _first_seen(
            Examples(state.features, state.labels, state.mask), context.classes.shape[1]
        )
        logits = outputs.gather(2, turn[:, None].expand(-1, outputs.shape[1], -1))
        return logits.masked_fill(~seen[:, None], UNSEEN)

    def _layers(self) -> list[Convolution | Recall]:
        return cast("list[Convolution | Recall]", list(self.stack))

    def _check(self, context: Context) -> None:
        way = context.classes.shape[1]
        if self.values:
            check_values(self.values, context)
        if not self.values and way > self.bank:
            raise ValueError(
                f"A task of {way} classes, but this learner was built for at most {self.bank}; give it fewer classes, "
                f"or train a learner with bank={way} or more."
            )

    def _label_features(self, examples: Examples, context: Context) -> Tensor:
        """The label of each example as features: its values, or a one at the turn of its class."""
        if self.values:
            return examples.y.to(examples.x.dtype)
        turn, _ = _first_seen(examples, context.classes.shape[1])
        return F.one_hot(turn.gather(1, examples.y), self.bank).to(examples.x.dtype)


def _in_front(examples: Examples) -> Examples:
    """The same examples with those that exist first, in their order."""
    order = (~examples.mask).to(torch.uint8).argsort(dim=1, stable=True)

    def moved(tensor: Tensor) -> Tensor:
        index = order.reshape(*order.shape, *(1 for _ in tensor.shape[2:]))
        return tensor.gather(1, index.expand(tensor.shape))

    return tree_map(moved, examples)


def _first_seen(examples: Examples, way: int) -> tuple[Tensor, Tensor]:
    """The turn of each class by its first example, int64 (task, way), and whether it has any, bool (task, way)."""
    count = examples.y.shape[1]
    member = F.one_hot(examples.y, way).bool() & examples.mask[..., None]
    places = torch.arange(count, device=examples.y.device)[:, None]
    first = torch.where(member, places, count).amin(1) if count else member.sum(1)
    return first.argsort(dim=1, stable=True).argsort(dim=1), member.any(1)
