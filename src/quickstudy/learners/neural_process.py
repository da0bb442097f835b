"""Transformer neural processes: queries attend to examples, and are answered by numbers with their uncertainty."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples, Inputs, concatenate
from quickstudy.learners.base import Learner
from quickstudy.learners.conditional_process import check_values
from quickstudy.likelihood import Gaussian, JointGaussian, Likelihood
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Manner, Transformer, and_itself, options_of_manner
from quickstudy.nn.positions import Turn

SLOWEST, FASTEST = 0.3, 12.0
"""Radians for each unit of an encoded example, along the first and the last wave, before training."""
WIDEST, NARROWEST = -2.0, 3.5
"""Logarithms of the first and the last head's rate at which attention falls with the square of distance."""


class PointReader(nn.Module):
    """What all Transformer neural processes share: examples and queries as tokens, and a stack that knows distances.

    With ``w(x) = [f(x); sin W f(x); cos W f(x)]``, an example is ``A w(x) + B y``, a query ``A w(x) + b``. The scores
    of head h gain ``-r_h Σ_k m_k² (f(x) - f(x'))_k²``, r_h > 0, so that near examples count for more wherever they
    are. W, m and r are learned.

    ``relative`` tokens are ``B y`` and b alone, and the pair p of features of queries and keys in head h is turned by
    the angle ``v_hp · f(x)``, v learned, so that answers depend on differences of places only (as rotary positions do,
    Su et al. 2021, RoFormer).

    Args:
        inputs: features of an encoded example.
        values: numbers of y.
        outputs: numbers of an answer.
        width: features of a token.
        layers: Transformer layers.
        heads: attention heads.
        expansion: of the width, inside a layer.
        waves: rows of W.
        attention: of tokens; linear attention knows no distances.
        relative: tokens know nothing of x, and queries and keys are turned by x in place of that.
    """

    def __init__(
        self,
        inputs: int,
        values: int,
        outputs: int,
        *,
        width: int,
        layers: int,
        heads: int,
        expansion: int,
        waves: int,
        attention: Manner = "standard",
        relative: bool = False,
    ) -> None:
        super().__init__()
        for name, found, least in (
            ("layers", layers, 1),
            ("heads", heads, 1),
            ("expansion", expansion, 1),
            ("waves", waves, 0),
        ):
            if found < least:
                raise ValueError(f"The number of {name} must be at least {least}; found {found}.")
        self.waves, self.relative = 0 if relative else waves, relative
        if relative:
            if attention != "standard":
                raise ValueError(
                    f"Only standard attention turns by places; found relative beside attention={attention!r}."
                )
            if width % (2 * heads):
                raise ValueError(
                    f"Heads that turn pairs of features need a width that is a multiple of {2 * heads}; found {width}."
                )
            pairs = width // heads // 2
            speeds = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), pairs)[:, None]
            directions = F.normalize(torch.randn(heads, pairs, inputs), dim=-1)
            # Of one number, all turn the same way.
            self.speeds = nn.Parameter(speeds * (directions.abs() if inputs == 1 else directions))
        if self.waves:
            speeds = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), waves)
            directions = F.normalize(torch.randn(waves, inputs), dim=-1)
            self.directions = nn.Parameter(speeds[:, None] * directions)
        if not relative:
            self.embed_x = nn.Linear(inputs + 2 * waves, width)
        self.embed_y = nn.Linear(values, width)
        self.asked = nn.Parameter(torch.zeros(width))
        self.linear = attention in ("linear", "products")
        if not self.linear:
            self.metric = nn.Parameter(torch.full((inputs,), inputs**-0.5))
            self.log_rates = nn.Parameter(torch.linspace(WIDEST, NARROWEST, heads))
        self.transformer = Transformer(
            width,
            layers=layers,
            heads=heads,
            expansion=expansion,
            **options_of_manner(attention, heads),
        )
        self.read = nn.Linear(width, outputs)

    def _embed(self, features: Tensor) -> Tensor:
        if self.relative:
            return features.new_zeros(*features.shape[:-1], len(self.asked))
        if self.waves:
            angles = features @ self.directions.T
            features = torch.cat([features, angles.sin(), angles.cos()], -1)
        embedded: Tensor = self.embed_x(features)
        return embedded

    def examples(self, features: Tensor, y: Tensor) -> Tensor:
        """Tokens (task, example, width) of examples."""
        tokens: Tensor = self._embed(features) + self.embed_y(y.to(features.dtype))
        return tokens

    def queries(self, features: Tensor) -> Tensor:
        """Tokens (task, query, width) of queries."""
        return self._embed(features) + self.asked

    def among(self, features: Tensor, mask: Tensor) -> Tensor:
        """The mask of examples that look at one another; of linear attention, (task, 1, 1, example).

        Args:
            features: of the examples, (task, example, inputs).
            mask: bool (task, example); False is padding.
        """
        if self.linear:
            return mask[:, None, None]
        return self.scores(features, features, and_itself(mask[:, None]))

    def towards(self, features: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """The mask of queries that look at examples; of linear attention, (task, 1, 1, example).

        Args:
            features: of the queries, (task, query, inputs).
            others: of the examples, (task, example, inputs).
            mask: bool (task, example); False is padding.
        """
        if self.linear:
            return mask[:, None, None]
        return self.scores(features, others, mask[:, None])

    def turn(self, features: Tensor) -> Turn | None:
        """By how much the pairs of features of queries and keys are turned at some places; None where they are not."""
        if not self.relative:
            return None
        return Turn.by(torch.einsum("tei,hpi->thep", features, self.speeds))

    def scores(self, features: Tensor, others: Tensor, visible: Tensor) -> Tensor:
        """What nearness adds to attention, (task, head, token, other); minus infinity where ``visible`` is False.

        Args:
            features: of the tokens that look, (task, token, inputs).
            others: of those that are looked at, (task, other, inputs).
            visible: bool, broadcastable to (task, token, other).
        """
        near, far = features * self.metric, others * self.metric
        if features.shape[-1] == 1:
            square = (near - far.transpose(1, 2)).square()
        else:
            square = near.square().sum(-1, keepdim=True) + far.square().sum(-1)[:, None]
            square = square - 2 * near @ far.transpose(1, 2)
        scores = -self.log_rates.exp()[:, None, None] * square[:, None]
        return scores.masked_fill(~visible[:, None], -math.inf)


class NeuralProcessState(NamedTuple):
    """The examples as the Transformer has read them."""

    features: Tensor
    """Embedded examples, (task, example, width of the encoder)"""
    y: Tensor
    """(task, example, values)"""
    mask: Tensor
    """bool (task, example)"""
    keys: Tensor
    """(task, layer, group of heads, example, width / heads); of linear attention the sums of keys, as one example"""
    values: Tensor
    """The same of values; of linear attention (task, layer, head, width / heads, width / heads)"""


class TransformerNeuralProcess(Learner):
    """Predicts numbers, with their uncertainty, by a Transformer that reads examples and is asked queries.

    Tokens of examples attend to one another; a query attends to the examples and to itself only, and is answered by a
    mean and a standard deviation: TNP-D. With a ``rank``, it is answered by a row of a factor F as well, so that all
    queries are N(μ, diag(σ²) + F Fᵀ) together: TNP-ND.

    Nguyen & Grover 2022, Transformer Neural Processes. Differs from the paper: x goes through the learner's encoder and
    is added to y rather than put beside it; heads know distances (:class:`PointReader`); layers are pre-norm; the
    examples are read once for all queries. The factor of TNP-ND is low-rank with a diagonal, rather than a triangle,
    and no query attends to another, so its row depends on its query and the examples alone and the answer to a query
    is the same in any company. Without support, a query sees itself only, and the answer is the prior that training
    has made of it, if its tasks had any without support.

    Args:
        encoder: maps an example to a vector; ``raw`` leaves functions of few numbers as they are, which is best.
        values: numbers that a task predicts.
        width: features of a token.
        layers: Transformer layers.
        heads: attention heads.
        expansion: of the width, inside a layer.
        waves: sines and cosines of each example, learned, for functions that change fast; 0: none.
        rank: columns of F; 0: queries are independent.
        attention: ``standard``; ``grouped``, whose heads share keys and values in pairs; ``linear``, by kernels, or
            ``products``, without: these know no distances, and their work and memory grow with the examples and not
            with their square. ``products`` learn linear functions many times faster than the others.
        relative: answers depend on differences of places only, which leaves less to learn where functions are alike
            everywhere (Ashman et al. 2024, Translation Equivariant Transformer Neural Processes); ``waves`` then count
            for nothing.

    Raises:
        ValueError: an option is out of range; at adaptation, tasks with another number of values.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.randn(1, 4, 1)
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> one = torch.ones(1, 1, dtype=torch.bool)
    >>> context = Context(one, torch.zeros(1, 0), torch.zeros(1, 1, 0))
    >>> learner = TransformerNeuralProcess(RawEncoder(2), values=1, width=8, layers=1, heads=2)
    >>> learner.predict(learner.adapt(support, context), torch.randn(1, 3, 2), context).shape
    torch.Size([1, 3, 2])
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = NeuralProcessState

    def __init__(
        self,
        encoder: Encoder,
        *,
        values: int = 0,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        expansion: int = 2,
        waves: int = 16,
        rank: int = 0,
        attention: Manner = "standard",
        relative: bool = False,
    ) -> None:
        check_values(values)
        if rank < 0:
            raise ValueError(f"The rank must be 0 or more; found {rank}.")
        likelihood: Likelihood = JointGaussian(rank=rank) if rank else Gaussian()
        super().__init__(encoder, likelihood)
        self.values = values
        self.reader = PointReader(
            encoder.width,
            values,
            likelihood.width(values),
            width=width,
            layers=layers,
            heads=heads,
            expansion=expansion,
            waves=waves,
            attention=attention,
            relative=relative,
        )

    def adapt(
        self, support: Examples, context: Context, state: NeuralProcessState | None = None
    ) -> NeuralProcessState:
        check_values(self.values, context)
        examples = support._replace(x=self.encode(support.x))
        if state is not None:
            examples = concatenate(Examples(state.features, state.y, state.mask), examples)
        features, y, mask = examples
        reader = self.reader
        scores = reader.among(features, mask)
        tokens = reader.examples(features, y)
        return NeuralProcessState(
            *examples, *reader.transformer.memorise(tokens, mask=scores, turn=reader.turn(features))
        )

    def predict(self, state: NeuralProcessState, x: Inputs, context: Context) -> Tensor:
        features, reader = self.encode(x), self.reader
        scores = reader.towards(features, state.features, state.mask)
        tokens = reader.queries(features)
        turn = reader.turn(features)
        answer = reader.transformer.isolated(
            tokens, state.keys, state.values, mask=scores, turn=turn
        )
        outputs: Tensor = reader.read(answer)
        return outputs

    def outputs(self, episode: Episode) -> Tensor:
        """What the queries are answered by, with examples and queries in one stream: the same in less time."""
        support, query, context = episode
        check_values(self.values, context)
        known, asked = self.encode(support.x), self.encode(query.x)
        reader = self.reader
        answer = reader.transformer.together(
            reader.examples(known, support.y),
            reader.queries(asked),
            memory_mask=reader.among(known, support.mask),
            mask=reader.towards(asked, known, support.mask),
            turn=reader.turn(torch.cat([known, asked], 1)),
        )
        outputs: Tensor = reader.read(answer)
        return outputs
