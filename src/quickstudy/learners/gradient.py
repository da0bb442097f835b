"""Gradient learners: adapting is descending the loss of the support."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from quickstudy.episode import Context, Examples, Inputs, leaves
from quickstudy.functional import (
    Weights,
    adapted_names,
    exact_derivatives,
    first_order,
    inner_steps,
    over_tasks,
    without_dropout,
)
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Categorical
from quickstudy.nn.encoders import LARGEST_CPU_TENSOR, Encoder

HEAD = ("head.weight", "head.bias")


class MAML(Learner):
    """Model-agnostic meta-learning: an encoder from which a few gradient steps learn a task.

    ``θ_{k+1} = θ_k - η ∇ L_support(θ_k)``, ``logits(x) = W f_θ(x) + b``; the outer loss is L_query(θ_K).

    Finn et al. 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. Differs from the
    paper: all classes begin with one shared row of the head (Ye & Chao 2022, How to Train Your MAML to Excel
    in Few-Shot Classification), so a task may have any number of classes, label order cannot be memorised,
    and scores before adaptation are exactly at chance. A shared row cancels in softmax at every step, so it
    is zero here rather than learned. It follows that the first step moves only the head; the encoder moves
    from the second on. Inner steps run without dropout.

    ``adapt="head"`` is ANIL (Raghu et al. 2020): the encoder runs once and only the head adapts.
    ``order="first"`` is FOMAML: inner steps leave no graph behind, and the outer gradient is that of the
    query loss at the fast weights.

    The state maps names to fast weights (task, …): ``head.weight`` (task, way, width), ``head.bias`` (task,
    way) and ``encoder.…``; adapting again takes more steps from there.

    Args:
        encoder: maps an example to a vector.
        rate: η.
        steps: inner steps, of each call of ``adapt``.
        order: ``second`` differentiates through the inner steps, ``first`` does not.
        adapt: which parameters of the encoder adapt beside the head: ``all``, ``head`` (none), ``norms``,
            ``last:n``, a pattern of names, or several of these with commas between. Parameters that are
            frozen when the learner is built stay so.
        tasks_at_once: tasks that adapt side by side; 0 chooses: all of them on an accelerator, on a CPU as
            many as stay in the cache.

    Raises:
        ValueError: an option is out of range, or ``adapt`` matches no parameter.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> learner = MAML(VectorEncoder(2, width=8, layers=1), adapt="norms", steps=2)
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> sorted(learner.adapt(support, context))[:2]
    ['encoder.layers.0.0.bias', 'encoder.layers.0.0.weight']
    """

    order_free = True
    additive = False
    inner_loop = True
    state_type = dict

    def __init__(
        self,
        encoder: Encoder,
        *,
        rate: float = 0.1,
        steps: int = 5,
        order: Literal["first", "second"] = "second",
        adapt: str = "all",
        tasks_at_once: int = 0,
    ) -> None:
        super().__init__(encoder, Categorical())
        if rate <= 0:
            raise ValueError(f"The rate of the inner steps must be positive; found {rate}.")
        if steps < 1:
            raise ValueError(f"The number of inner steps must be at least 1; found {steps}.")
        if order not in ("first", "second"):
            raise ValueError(f"The order must be first or second; found {order!r}.")
        if tasks_at_once < 0:
            raise ValueError(
                f"tasks_at_once must be a number of tasks, or 0 to choose; found {tasks_at_once}."
            )
        self.rate, self.steps, self.order = rate, steps, order
        self.tasks_at_once = tasks_at_once
        self.adapted = adapted_names(encoder, adapt)
        """Names of the encoder's parameters that adapt."""

    def adapt(self, support: Examples, context: Context, state: Weights | None = None) -> Weights:
        start = self.initial_weights(context) if state is None else state

        def descend(weights: Weights) -> Weights:
            with exact_derivatives(), without_dropout(self.encoder):
                if self.adapted:
                    return self._descend_by_task(weights, support, context)
                return self._descend_head(weights, support, context)

        return first_order(descend, start) if self.order == "first" else descend(start)

    def predict(self, state: Weights, x: Inputs, context: Context) -> Tensor:
        if not self.adapted:
            return _logits(state, self.encode(x))

        def one(weights: Weights, x: Inputs) -> Tensor:
            return _logits(weights, self._features(weights, x))

        with exact_derivatives():
            return over_tasks(one, state, x, tasks_at_once=self._chunk(x))

    def initial_weights(self, context: Context) -> Weights:
        """Fast weights before adaptation: a head of zeros and, for each task, the encoder's own weights."""
        tasks, way = context.classes.shape
        weights = {
            f"encoder.{name}": value.expand(tasks, *value.shape)
            for name, value in self.encoder.named_parameters()
            if name in self.adapted
        }
        kind = next((value.dtype for value in self.parameters()), torch.get_default_dtype())
        device = context.classes.device
        weights["head.weight"] = torch.zeros(
            tasks, way, self.encoder.width, dtype=kind, device=device
        )
        weights["head.bias"] = torch.zeros(tasks, way, dtype=kind, device=device)
        return weights

    def _descend_by_task(self, weights: Weights, support: Examples, context: Context) -> Weights:
        def one(weights: Weights, support: Examples, classes: Tensor) -> Weights:
            batch = support._replace(y=support.y[None], mask=support.mask[None])

            def loss(weights: Weights) -> Tensor:
                logits = _logits(weights, self._features(weights, support.x))
                return self.likelihood.nll(logits[None], batch, alone(classes))

            return inner_steps(loss, weights, steps=self.steps, rate=self.rate)

        def alone(classes: Tensor) -> Context:
            return context._replace(classes=classes[None])

        return over_tasks(
            one, weights, support, context.classes, tasks_at_once=self._chunk(support.x)
        )

    def _descend_head(self, weights: Weights, support: Examples, context: Context) -> Weights:
        features = self.encode(support.x)

        def loss(weights: Weights) -> Tensor:
            # Tasks share no weight, so the slopes of the sum are the slopes of each.
            return self.likelihood.task_nll(_logits(weights, features), support, context).sum()

        return inner_steps(loss, weights, steps=self.steps, rate=self.rate)

    def _features(self, weights: Weights, x: Inputs) -> Tensor:
        own = {
            name.removeprefix("encoder."): value
            for name, value in weights.items()
            if name not in HEAD
        }
        return torch.func.functional_call(self.encoder, own, (x,))

    def _chunk(self, x: Inputs) -> int:
        tasks, examples = leaves(x)[0].shape[:2]
        if self.tasks_at_once:
            return self.tasks_at_once
        each = self.encoder.bytes_per_example * max(1, examples)
        if leaves(x)[0].device.type != "cpu" or not each:
            return tasks
        return max(1, LARGEST_CPU_TENSOR // each)


def _logits(weights: Weights, features: Tensor) -> Tensor:
    """``W f + b``: (…, example, width) to (…, example, way)."""
    rows, bias = weights["head.weight"], weights["head.bias"]
    return features.to(rows.dtype) @ rows.transpose(-1, -2) + bias[..., None, :]
