"""CAVIA: a task is learned by a short vector that changes how features are read."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.functional import InnerLoop, Weights, descend, full_precision, widened
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN, class_sums
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import Encoder


class ContextState(NamedTuple):
    """The embedded support and the context that was fitted to it."""

    features: Tensor
    """(task, example, width)"""
    labels: Tensor
    """int64 (task, example)"""
    mask: Tensor
    """bool (task, example)"""
    context: Tensor
    """(task, context)"""


class CAVIA(Learner):
    """Fast context adaptation: only a context vector of each task takes gradient steps; all weights are shared.

    ``z(x) = (1 + Γ φ) f(x) + B φ``, ``logit_c = τ · cos(z(x), Σ_{i in c} z(x_i) / ‖z(x_i)‖)``,
    ``φ_0 = 0``, ``φ_{k+1} = φ_k - η ∇ L_support(φ_k)``; Γ, B and τ are learned with the encoder.

    Zintgraf et al. 2019, Fast Context Adaptation via Meta-Learning. Differs from the paper: the context scales and
    shifts the encoder's result rather than a layer inside, so the encoder runs once; the classifier is the nearest
    prototype of modulated features rather than a layer of fixed size, so a task may have any number of classes and
    label order cannot be memorised. In L_support each example is left out of its own class's prototype where that has
    others, for next to itself it would be found without anything having been learned.

    At φ = 0 it is :class:`~quickstudy.learners.metric.ProtoNet`. Γ and B begin at random: were they zero as well,
    neither they nor φ would ever have a slope. Adapting again fits φ anew, from zero, to all examples so far.

    Args:
        encoder: maps an example to a vector.
        context_width: numbers in φ.
        rate: η.
        steps: inner steps.
        strategy: ``unroll``, or ``first`` for the first-order gradient.
        temperature: initial τ.

    Raises:
        ValueError: an option is out of range.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> CAVIA(RawEncoder(2), context_width=3).adapt(support, context).context.shape
    torch.Size([1, 3])
    """

    order_free = True
    additive = True
    # Derivatives are of the context alone: the encoder runs once, outside of the loop.
    inner_loop = False
    state_type = ContextState

    def __init__(
        self,
        encoder: Encoder,
        *,
        context_width: int = 16,
        rate: float = 0.3,
        steps: int = 3,
        strategy: Literal["unroll", "first"] = "unroll",
        temperature: float = 10.0,
    ) -> None:
        super().__init__(encoder, Categorical())
        if context_width < 1:
            raise ValueError(f"The width of the context must be at least 1; found {context_width}.")
        if steps < 1:
            raise ValueError(f"The number of inner steps must be at least 1; found {steps}.")
        for name, value in (("rate", rate), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"The {name} must be positive; found {value}.")
        if strategy not in ("unroll", "first"):
            raise ValueError(f"The strategy must be unroll or first; found {strategy!r}.")
        self.context_width, self.rate, self.steps = context_width, rate, steps
        self.strategy: Literal["unroll", "first"] = strategy
        start = torch.randn(2 * encoder.width, context_width) / math.sqrt(context_width)
        self.modulation = nn.Parameter(start)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def adapt(
        self, support: Examples, context: Context, state: ContextState | None = None
    ) -> ContextState:
        examples = support._replace(x=self._embed(support.x))
        if state is not None:
            examples = concatenate(Examples(state.features, state.labels, state.mask), examples)
        way = context.classes.shape[1]

        def loss(weights: Weights, shared: Weights, data: object) -> Tensor:
            logits = _left_out(examples, weights["context"], shared, way)
            # Tasks share no context, so the slopes of the sum are the slopes of each.
            return self.likelihood.task_nll(logits, examples, context).sum()

        def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
            return {"context": weights["context"] - self.rate * slopes["context"]}

        # One loop for all tasks at once, which takes them for a single one.
        start = examples.x.new_zeros(1, len(examples.y), self.context_width)
        loop = InnerLoop(loss, update, self.steps)
        with full_precision(start.device):
            end = descend(loop, {"context": start}, self._shared(), (), strategy=self.strategy)
        return ContextState(*examples, end["context"][0])

    def predict(self, state: ContextState, x: Inputs, context: Context) -> Tensor:
        examples, shared = Examples(state.features, state.labels, state.mask), self._shared()
        features = self._embed(x)
        with full_precision(features.device):
            support, queries = (
                _modulate(each, state.context, shared) for each in (examples.x, features)
            )
            sums, counts = class_sums(support, examples, context.classes.shape[1])
            return _scores(queries @ _unit(sums, counts).transpose(1, 2), counts, shared)

    def _embed(self, x: Inputs) -> Tensor:
        """Features (task, example, width), in a precision fit for derivatives."""
        return widened(self.encode(x))

    def _shared(self) -> Weights:
        """What is learned from many tasks, in the same precision."""
        return {
            "modulation": widened(self.modulation),
            "log_temperature": widened(self.log_temperature),
        }


def _modulate(features: Tensor, context: Tensor, shared: Weights) -> Tensor:
    """``(1 + Γ φ) f + B φ``, scaled to unit length: (task, example, width)."""
    scale, shift = (context @ shared["modulation"].T)[:, None].chunk(2, dim=-1)
    return F.normalize(features + features * scale + shift, dim=-1)


def _unit(sums: Tensor, counts: Tensor) -> Tensor:
    """Directions (task, way, width) of the classes; any where there is no example."""
    # The length of a vector has no second derivative at zero.
    return F.normalize(torch.where(counts[..., None] > 0, sums, 1), dim=-1)


def _scores(similarity: Tensor, counts: Tensor, shared: Weights) -> Tensor:
    """Logits (task, example, way); a class without examples is never the answer."""
    scaled = similarity * shared["log_temperature"].exp()
    return scaled.masked_fill(counts[:, None] == 0, UNSEEN)


def _left_out(examples: Examples, context: Tensor, shared: Weights, way: int) -> Tensor:
    """Logits (task, example, way) of the support, each example beside the others of its class."""
    rows = _modulate(examples.x, context, shared)
    sums, counts = class_sums(rows, examples, way)
    similarity = rows @ _unit(sums, counts).transpose(1, 2)
    others = (counts.gather(1, examples.y) > 1) & examples.mask
    own = sums.gather(1, examples.y[..., None].expand_as(rows))
    beside = F.normalize(torch.where(others[..., None], own - rows, 1), dim=-1)
    member = F.one_hot(examples.y, way).bool() & others[..., None]
    return _scores(
        torch.where(member, (rows * beside).sum(-1, keepdim=True), similarity), counts, shared
    )
