"""Learners that adapt in one forward pass: the support is read as a sequence, and queries attend to it."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples, Inputs, concatenate
from quickstudy.learners.base import Learner
from quickstudy.learners.class_names import check_reads_names, named_examples
from quickstudy.learners.ensemble import pooled, varied
from quickstudy.learners.label_codes import deal, simplex
from quickstudy.learners.metric import UNSEEN, class_sums
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Manner, Norm, Transformer, and_itself, options_of_manner


class InContextState(NamedTuple):
    """The support as the Transformer has read it; the members of an ensemble have their layers one behind the other."""

    features: Tensor
    """Embedded support, (task, example, width of the encoder); side by side for an ensemble over features"""
    labels: Tensor
    """int64 (task, example)"""
    mask: Tensor
    """bool (task, example)"""
    codes: Tensor
    """int64 (task, way), which label code each class was dealt, behind the whole bank for each group before its own"""
    keys: Tensor
    """(task, layer, group of heads, example, width / heads); of linear attention the sums of keys, as one example"""
    values: Tensor
    """The same of values; of linear attention (task, layer, head, width / heads, width / heads)"""


class InContext(Learner):
    """A Transformer that reads labelled examples and then classifies queries, without any gradient.

    Support tokens ``P f(x_i) + code(y_i)`` attend to one another; a query token ``P f(x) + u`` attends to the
    support and to itself only; ``logit_c = τ (cos(f(x), p_c) + ⟨R h(x), code(c)⟩ / √width)``, with h the
    query's output and p_c the mean of the class's unit embeddings.

    Fifty et al. 2024, Context-Aware Meta-Learning (CAML), with the attention mask of Nguyen & Grover 2022,
    Transformer Neural Processes. Differs from the paper: the support is read once for all queries; codes are
    added rather than put behind the features, and the query is compared with the codes rather than sent
    through a classifier of fixed size, so any way works; the read-out R begins at zero beside
    prototypes, so training begins at a prototypical network and learns a correction; the encoder is trained
    as well. There are no positions: the support is a set.

    More classes than ``bank`` are split into groups g, each read by itself: ``p(c) = p(g) p(c | g)``, where
    p(c | g) is what the learner says within the group, and p(g) what the prototypes say of all classes.

    Label codes are the corners of a simplex. Which class gets which is decided by a pseudo-random key
    computed from the content of its support, so renumbering the classes permutes the outputs and changes
    nothing else, and neither label order nor a code says anything that could be memorised.

    Args:
        encoder: maps an example to a vector.
        width: features of a token, at least ``bank - 1``.
        layers: Transformer layers.
        heads: attention heads.
        bank: number of label codes, the largest way that is answered as a whole.
        temperature: initial τ.
        dropout: while training.
        label_smoothing: of the training loss.
        names: where classes have names that the encoder can read, each is one more example of its class, so that a
            class may be known by its name alone.
        ensemble: answers whose probabilities are averaged, outside of training; it may be set on a trained learner
            (``learner.ensemble = 8``), and each costs as much as the first.
        ensemble_over: in what the answers differ: ``codes``, which are dealt anew, or ``features`` as well, columns
            in another order and with other signs, for learners that were trained on projected tasks.
        attention: ``standard``; ``grouped``, whose heads share keys and values in pairs; ``linear``, by kernels, or
            ``products``, without; the last two for tasks of at most ``bank`` classes, and their work and memory grow
            with the support and not with its square.

    Raises:
        ValueError: an option is out of range; more classes than the bank by linear attention; names for an encoder that
            reads no text; an ensemble over the features of what are no rows of numbers.

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
        names: bool = False,
        ensemble: int = 1,
        ensemble_over: Literal["codes", "features"] = "codes",
        attention: Manner = "standard",
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        if temperature <= 0:
            raise ValueError(f"The temperature must be positive; found {temperature}.")
        if layers < 1:
            raise ValueError(f"The number of layers must be at least 1; found {layers}.")
        if ensemble < 1:
            raise ValueError(f"An ensemble has at least 1 member; found {ensemble}.")
        if names:
            check_reads_names(encoder)
        if ensemble_over not in ("codes", "features"):
            raise ValueError(f"An ensemble is over codes or features; found {ensemble_over!r}.")
        self.bank, self.layers, self.names = bank, layers, names
        self.ensemble, self.ensemble_over = ensemble, ensemble_over
        self.project = nn.Sequential(Norm(encoder.width), nn.Linear(encoder.width, width))
        self.unknown = nn.Parameter(torch.zeros(width))
        self.transformer = Transformer(
            width,
            layers=layers,
            heads=heads,
            dropout=dropout,
            **options_of_manner(attention, heads),
        )
        self.any_way = attention not in ("linear", "products")
        """Tasks of more classes than the bank has codes are answered as well."""
        self.read = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.read.weight)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("bank_codes", simplex(bank, width) * math.sqrt(width))
        generator = torch.Generator().manual_seed(encoder.width)
        self.register_buffer("key_direction", torch.randn(encoder.width, generator=generator))

    def adapt(
        self, support: Examples, context: Context, state: InContextState | None = None
    ) -> InContextState:
        if context.classes.shape[1] > self.bank and not self.any_way:
            raise ValueError(
                f"Linear attention reads tasks of at most {self.bank} classes, as many as the bank has codes; found "
                f"{context.classes.shape[1]}. Build the learner with a larger bank."
            )
        members = self._members(state)
        examples = self._encoded(support, context, state, members)
        dealt = [self._deal(self._of_member(examples, m), context, m) for m in range(members)]
        read = [
            self._read_support(self._of_member(examples, member), codes)
            for member, codes in enumerate(dealt)
        ]
        keys, values = (torch.cat(each, 1) for each in zip(*read, strict=True))
        return InContextState(*examples, dealt[0], keys, values)

    def predict(self, state: InContextState, x: Inputs, context: Context) -> Tensor:
        examples = Examples(state.features, state.labels, state.mask)
        copies = state.features.shape[-1] // self.encoder.width
        encoded = [self.encode(varied(x, copy)) for copy in range(copies)]
        answers = []
        for member in range(self._members(state)):
            layers = slice(member * self.layers, (member + 1) * self.layers)
            mine, features = self._of_member(examples, member), encoded[min(member, copies - 1)]
            codes = self._deal(mine, context, member) if member else state.codes
            keys, values = state.keys[:, layers], state.values[:, layers]
            read = [
                self.transformer.isolated(self._asked(features), keys, values, mask=seen)
                for seen in self._seen(mine, codes)
            ]
            answers.append(self._logits(features, read, mine, codes))
        return pooled(answers)

    def outputs(self, episode: Episode) -> Tensor:
        """Logits of the queries, with support and queries in one stream where one stream can hold them.

        The products are fewer and larger, which makes a training step faster.
        """
        support, query, context = episode
        if context.classes.shape[1] > self.bank or self._members(None) > 1:
            return self.predict(self.adapt(support, context), query.x, context)
        examples = self._encoded(support, context, None, 1)
        codes, features = self._deal(examples, context), self.encode(query.x)
        read = self.transformer.together(
            self._tokens(examples, codes),
            self._asked(features),
            memory_mask=self._between(examples, codes),
            mask=examples.mask[:, None, None],
        )
        return self._logits(features, [read], examples, codes)

    def _members(self, state: InContextState | None) -> int:
        """How many answers are averaged; a state keeps the ensemble that it began with."""
        if state is not None:
            return state.keys.shape[1] // self.layers
        return 1 if self.training else self.ensemble

    def _encoded(
        self, support: Examples, context: Context, state: InContextState | None, members: int
    ) -> Examples:
        """Support, embedded: behind that of the state, or behind the names of the classes."""
        copies = members if self.ensemble_over == "features" else 1
        if state is not None:
            copies = state.features.shape[-1] // self.encoder.width

        def embedded(x: Inputs) -> Tensor:
            return torch.cat([self.encode(varied(x, copy)) for copy in range(copies)], -1)

        examples = support._replace(x=embedded(support.x))
        if state is not None:
            known = Examples(state.features, state.labels, state.mask)
            return concatenate(known, examples)
        names = named_examples(context, embedded) if self.names else None
        return examples if names is None else concatenate(names, examples)

    def _of_member(self, examples: Examples, member: int) -> Examples:
        """Embedded examples as a member of the ensemble sees them."""
        copies = examples.x.split(self.encoder.width, -1)
        return examples._replace(x=copies[min(member, len(copies) - 1)])

    def _class_means(self, examples: Examples, way: int) -> tuple[Tensor, Tensor]:
        """Mean direction (task, way, width) and number (task, way) of the examples of each class."""
        sums, counts = class_sums(F.normalize(examples.x, dim=-1), examples, way)
        return F.normalize(sums, dim=-1), counts

    def _deal(self, examples: Examples, context: Context, member: int = 0) -> Tensor:
        """int64 (task, way), as :func:`quickstudy.learners.label_codes.deal` says."""
        with torch.no_grad():
            means, counts = self._class_means(examples, context.classes.shape[1])
            return deal(means, counts, self.key_direction, self.bank, hand=member)

    def _tokens(self, examples: Examples, codes: Tensor) -> Tensor:
        """What the Transformer reads of the support, (task, example, width)."""
        dealt = codes.gather(1, examples.y) % self.bank
        return self.project(examples.x) + self.bank_codes[dealt]

    def _asked(self, features: Tensor) -> Tensor:
        """What it reads of the queries, (task, query, width)."""
        asked: Tensor = self.project(features) + self.unknown
        return asked

    def _between(self, examples: Examples, codes: Tensor) -> Tensor:
        """bool (task, 1, example, example), which examples see which: those of their own group.

        Of linear attention, of which all classes are one group, (task, 1, 1, example).
        """
        if self.transformer.linear:
            return examples.mask[:, None, None]
        group = codes.gather(1, examples.y) // self.bank
        same = group[:, :, None] == group[:, None]
        return and_itself(examples.mask[:, None] & same)[:, None]

    def _read_support(self, examples: Examples, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the support in every layer, each (task, layer, head, example, width / heads)."""
        mask = self._between(examples, codes)
        return self.transformer.memorise(self._tokens(examples, codes), mask=mask)

    def _seen(self, examples: Examples, codes: Tensor) -> list[Tensor]:
        """For each group that there may be, bool (task, 1, 1, example): its examples."""
        group = codes.gather(1, examples.y) // self.bank
        groups = range(-(-codes.shape[1] // self.bank))
        return [(examples.mask & (group == which))[:, None, None] for which in groups]

    def _logits(
        self, features: Tensor, read: list[Tensor], examples: Examples, codes: Tensor
    ) -> Tensor:
        """Logits (task, query, way) of embedded queries, from what the Transformer made of them in each group."""
        way = codes.shape[1]
        means, counts = self._class_means(examples, way)
        vectors, scale = self.bank_codes[codes % self.bank], self.log_temperature.exp()
        near = F.normalize(features, dim=-1) @ means.transpose(1, 2)
        found = torch.zeros((), dtype=near.dtype, device=near.device)
        for which, tokens in enumerate(read):
            said = self.read(tokens) @ vectors.transpose(1, 2) / math.sqrt(vectors.shape[-1])
            found = torch.where((codes // self.bank == which)[:, None], said, found)
        absent = counts[:, None] == 0
        logits = ((found + near) * scale).masked_fill(absent, UNSEEN)
        if way <= self.bank:
            return logits
        near = (near * scale).masked_fill(absent, UNSEEN)
        split = ((counts > 0).sum(1) > self.bank)[:, None, None] & ~absent
        for which in range(len(read)):
            mine = (codes // self.bank == which)[:, None]
            inside, among = (
                each.masked_fill(~mine, UNSEEN).logsumexp(-1, keepdim=True)
                for each in (logits, near)
            )
            logits = torch.where(mine & split, logits - inside + among, logits)
        return logits
