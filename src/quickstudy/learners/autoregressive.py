"""Queries answered in turn, each answer an example for the next one: joint densities and joint samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.episode import Context, Episode, Examples, Inputs, concatenate, leaves, tree_map
from quickstudy.learners.base import Learner, State
from quickstudy.learners.conditional_process import check_values
from quickstudy.learners.neural_process import PointReader
from quickstudy.likelihood import Gaussian, JointGaussian, drawn
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import and_itself


class TurnsState(NamedTuple):
    """The examples as the Transformer has read them, and the turn in which each came."""

    features: Tensor
    """Embedded examples, (task, example, width of the encoder)"""
    y: Tensor
    """(task, example, values)"""
    mask: Tensor
    """bool (task, example)"""
    turns: Tensor
    """int64 (task, example)"""
    keys: Tensor
    """(task, layer, head, example, width / heads)"""
    values: Tensor
    """(task, layer, head, example, width / heads)"""


def not_later(turns: Tensor, mask: Tensor) -> Tensor:
    """What each example sees, bool (task, example, example): those that exist and came no later, and itself."""
    return and_itself(mask[:, None] & (turns[:, None] <= turns[:, :, None]))


class AutoregressiveNeuralProcess(Learner):
    """A neural process that is trained to answer queries in turn, each with those before it as examples.

    ``p(y_1 … y_n) = Π_i p(y_i | support, y_1 … y_{i-1})``

    In training, query i attends to the support, to the queries before it together with their true answers, and to
    itself; all of them at once. An answered query attends to the support and to those before it, the support to itself
    alone. So examples that come later change nothing of what was made of earlier ones, and adapting to one answer after
    the other is what training has seen: :func:`sampled_in_turn`, :func:`density_in_turn`.

    Nguyen & Grover 2022, Transformer Neural Processes, TNP-A. Differs from the paper: as in
    :class:`~quickstudy.learners.neural_process.TransformerNeuralProcess`, of which it is the kin; queries that are
    asked together are answered each from the support alone, and one asks in turn by adapting.

    The order within a support set changes nothing, but in which of several calls of ``adapt`` an example came does.

    Args:
        encoder: maps an example to a vector.
        values: numbers that a task predicts.
        width: features of a token.
        layers: Transformer layers.
        heads: attention heads.
        expansion: of the width, inside a layer.
        waves: sines and cosines of each example, learned, for functions that change fast; 0: none.

    Raises:
        ValueError: an option is out of range; at adaptation, tasks with another number of values.
    """

    order_free = True
    additive = False
    inner_loop = False
    state_type = TurnsState

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
    ) -> None:
        check_values(values)
        likelihood = Gaussian()
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
        )

    def adapt(
        self, support: Examples, context: Context, state: TurnsState | None = None
    ) -> TurnsState:
        check_values(self.values, context)
        examples = support._replace(x=self.encode(support.x))
        turns = torch.zeros_like(support.mask, dtype=torch.int64)
        if state is not None:
            last = state.turns.amax(1, keepdim=True)
            turns = torch.cat([state.turns, turns + last + 1], 1)
            examples = concatenate(Examples(state.features, state.y, state.mask), examples)
        features, y, mask = examples
        reader = self.reader
        scores = reader.scores(features, features, not_later(turns, mask))
        tokens = reader.examples(features, y)
        kept = reader.transformer.memorise(tokens, mask=scores)
        return TurnsState(*examples, turns, *kept)

    def predict(self, state: TurnsState, x: Inputs, context: Context) -> Tensor:
        features, reader = self.encode(x), self.reader
        scores = reader.scores(features, state.features, state.mask[:, None])
        tokens = reader.queries(features)
        answer = reader.transformer.isolated(tokens, state.keys, state.values, mask=scores)
        outputs: Tensor = reader.read(answer)
        return outputs

    def outer_loss(self, episode: Episode) -> Tensor:
        """Mean over the queries of ``-log p(y_i | support, y_1 … y_{i-1})``."""
        support, query, context = episode
        check_values(self.values, context)
        known = support._replace(x=self.encode(support.x))
        asked = query._replace(x=self.encode(query.x))
        features, y, mask = concatenate(known, asked)
        turn = torch.arange(1, asked.mask.shape[1] + 1, device=mask.device)
        before = torch.cat([turn.new_zeros(known.mask.shape[1]), turn])
        earlier = mask[:, None] & (before < turn[:, None])
        reader = self.reader
        answer = reader.transformer.together(
            reader.examples(features, y),
            reader.queries(asked.x),
            memory_mask=reader.scores(features, features, not_later(before[None], mask)),
            mask=reader.scores(asked.x, features, earlier),
        )
        return self.likelihood.nll(reader.read(answer), query, context)


def _at(tree: Any, place: int) -> Any:
    """One example of each task of a tree (task, example, …), which stays an axis."""
    return tree_map(lambda tensor: tensor[:, place : place + 1], tree)


def density_in_turn(learner: Learner, state: State, queries: Examples, context: Context) -> Tensor:
    """``log p(y_i | state, y_1 … y_{i-1})`` of queries one after the other, whose sum is the joint log-density.

    Each answer is an example for the next query, by ``adapt``. Any learner of numbers with an uncertainty will do
    (Bruinsma et al. 2023, Autoregressive Conditional Neural Processes).

    Args:
        learner: what answers.
        state: what it knows.
        queries: with their true answers.
        context: of the tasks.

    Returns:
        (task, query), in nats; zero for a query that does not exist.
    """
    found = []
    for place in range(queries.mask.shape[1]):
        one = _at(queries, place)
        outputs = learner.predict(state, one.x, context)
        found.append(-learner.likelihood.task_nll(outputs, one, context))
        state = learner.adapt(one, context, state)
    return torch.stack(found, 1) if found else torch.zeros(queries.mask.shape)


def sampled_in_turn(
    learner: Learner, state: State, x: Inputs, context: Context, *, generator: torch.Generator
) -> Tensor:
    """Answers to queries (task, query, …) drawn one after the other, (task, query, values), each given those before it.

    Together they are one draw of the whole function; a learner that answers queries each by itself would draw
    unconnected points.

    Raises:
        TypeError: the learner's answers have no uncertainty.
    """
    likelihood = learner.likelihood
    if not isinstance(likelihood, Gaussian | JointGaussian):
        raise TypeError(f"Nothing can be drawn from a {type(likelihood).__name__} likelihood.")
    tasks, queries = leaves(x)[0].shape[:2]
    exists = torch.ones(tasks, 1, dtype=torch.bool, device=leaves(x)[0].device)
    values = []
    for place in range(queries):
        one = _at(x, place)
        outputs = learner.predict(state, one, context)
        y = drawn(likelihood, outputs, count=1, generator=generator)[0]
        values.append(y)
        state = learner.adapt(Examples(one, y, exists), context, state)
    return torch.cat(values, 1)
