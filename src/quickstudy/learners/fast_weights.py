"""The fast weights of a task: which weights move, where they begin, and the loss that moves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, leaves
from quickstudy.functional import (
    Compiled,
    InnerLoop,
    Strategy,
    Weights,
    adapted_names,
    compiled,
    descend,
    exact_derivatives,
    in_pieces,
    inside_transform,
    over_tasks,
)
from quickstudy.learners.conditional_process import check_values
from quickstudy.learners.head_start import HeadOfExamples, Start
from quickstudy.learners.step_sizes import Kind, StepSizes
from quickstudy.likelihood import Categorical, SquaredError
from quickstudy.nn.encoders import LARGEST_CPU_TENSOR, Encoder, encode

MODELESS = frozenset({
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.Sequential, nn.ModuleList,
    nn.ModuleDict, nn.Identity, nn.Flatten, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid,
})  # fmt: skip
"""Layers that do the same in training as in evaluation."""


class FastWeights:
    """The weights that move while a task is learned: some of an encoder's, and a head on it.

    ``head.weight`` (task, rows, width) and ``head.bias`` (task, rows) have a row for each class or value; ``encoder.…``
    (task, …) are what adapts of the encoder. The encoder and the modules here belong to the learner, which
    registers each of them once.

    Args:
        encoder: maps an example to a vector.
        rate: η.
        steps: inner steps.
        adapt: which parameters of the encoder adapt, as for :class:`quickstudy.learners.gradient.MAML`.
        rates: how far a step goes (:class:`quickstudy.learners.step_sizes.StepSizes`).
        head: how the head of classes begins.
        tasks_at_once: tasks that adapt side by side; 0 chooses.
        values: numbers that a task predicts; 0: a class.
        compile: compile inner steps and queries where gradients are wanted.

    Raises:
        ValueError: an option is out of range, or ``adapt`` matches no parameter.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> FastWeights(VectorEncoder(2, width=8, layers=1), adapt="norm.*").names
    ('norm.weight', 'norm.bias')
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        rate: float = 0.1,
        steps: int = 5,
        adapt: str = "all",
        rates: Kind = "fixed",
        head: Start = "zero",
        tasks_at_once: int = 0,
        values: int = 0,
        compile: bool = False,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"The rate of the inner steps must be positive; found {rate}.")
        if steps < 1:
            raise ValueError(f"The number of inner steps must be at least 1; found {steps}.")
        if head not in get_args(Start):
            raise ValueError(
                f"The head must begin at zero, at the prototypes, or generated; found {head!r}."
            )
        if values < 0:
            raise ValueError(
                f"The number of values must be positive, or 0 for classes; found {values}."
            )
        if values and head != "zero":
            raise ValueError(
                f"Found head={head!r} beside values, but such a head is made of the examples of classes, which values "
                "do not have; leave head at zero: the head of values begins where training finds it best."
            )
        if tasks_at_once < 0:
            raise ValueError(
                f"tasks_at_once must be a number of tasks, or 0 to choose; found {tasks_at_once}."
            )
        self.encoder, self.steps, self.tasks_at_once = encoder, steps, tasks_at_once
        self.likelihood = SquaredError() if values else Categorical()
        head_adapts = adapt != "body"
        self.names = adapted_names(encoder, adapt if head_adapts else "all")
        """Of the encoder's parameters that adapt."""
        if not head_adapts and not self.names:
            raise ValueError("Nothing would adapt: every parameter of the encoder is frozen.")
        # A head that stays at zero would tell nothing.
        of_examples = head != "zero" or not (head_adapts or values)
        self.of_examples = (
            HeadOfExamples(encoder.width, generated=head == "generated") if of_examples else None
        )
        """Makes the head of classes that does not begin at zero."""
        self.start = nn.Linear(encoder.width, values) if values else None
        """Where the head of values begins."""
        named = dict(encoder.named_parameters())
        shapes = {f"encoder.{name}": named[name].shape for name in self.names}
        if head_adapts:
            rows = max(1, values)
            shapes |= {"head.weight": Size([rows, encoder.width]), "head.bias": Size([rows])}
        self.sizes = StepSizes(rates, rate, shapes, steps=steps)
        self._compile = compile
        self._loop: InnerLoop | None = None
        self._queries: Compiled | None = None
        # Looking for these two costs as much as a small layer, at every step.
        self._tied = len(named) < len(list(encoder.named_parameters(remove_duplicate=False)))
        self._with_modes = [part for part in encoder.modules() if type(part) not in MODELESS]

    def initial(self, support: Examples, context: Context) -> Weights:
        """Fast weights before adaptation: for each task the encoder's own weights, and the head.

        Raises:
            ValueError: the tasks have another number of values than this learner.
        """
        tasks, way = context.classes.shape
        weights = {
            f"encoder.{name}": value.expand(tasks, *value.shape)
            for name, value in self.encoder.named_parameters()
            if name in self.names
        }
        if self.start is not None:
            check_values(self.start.out_features, context)
            weights["head.weight"] = self.start.weight.expand(tasks, -1, -1)
            weights["head.bias"] = self.start.bias.expand(tasks, -1)
        elif self.of_examples is not None:
            with self._in_evaluation():
                features = encode(self.encoder, support.x)
            weights["head.weight"], weights["head.bias"] = self.of_examples(features, support, way)
        else:
            known = chain(self.encoder.parameters(), self.sizes.parameters())
            kind = next((value.dtype for value in known), torch.get_default_dtype())
            bias = torch.zeros(tasks, way, dtype=kind, device=context.classes.device)
            weights["head.weight"] = bias.new_zeros(tasks, way, self.encoder.width)
            weights["head.bias"] = bias
        return weights

    def shared(self) -> Weights:
        """What inner steps depend on beside the fast weights: rates, and the parts of the encoder that stay."""
        stay = {
            f"encoder.{name}": value
            for name, value in self.encoder.named_parameters()
            if value.requires_grad and name not in self.names
        }
        return stay | self.sizes.shared()

    def loss(self, weights: Weights, shared: Weights, data: tuple[Examples, Tensor]) -> Tensor:
        """The loss of the support of one task, without dropout; its data are the support and the classes."""
        support, classes = data
        context = Context(classes[None], classes.new_zeros(1, 0), classes.new_zeros(1, 0, 0))
        batch = support._replace(y=support.y[None], mask=support.mask[None])
        with self._in_evaluation():
            own = {**shared, **weights}
            outputs = _outputs(own, self._features(own, support.x))
        return self.likelihood.nll(outputs[None], batch, context)

    def loop(self, steps: range | None = None) -> InnerLoop:
        """All inner steps, or some of them."""
        steps = range(self.steps) if steps is None else steps
        if self._loop is None:
            self._loop = InnerLoop(self.loss, self.sizes.update, self.steps)
            if self._compile:
                self._loop = compiled(self._loop)
        return self._loop._replace(steps=len(steps), begin=steps.start)

    def __getstate__(self) -> dict[str, Any]:
        """Without loops and kernels, which are those of this encoder and would stay so in a copy."""
        return {**self.__dict__, "_loop": None, "_queries": None}

    def descend(
        self,
        weights: Weights,
        support: Examples,
        context: Context,
        *,
        strategy: Strategy,
        steps: range | None = None,
        fresh: bool = False,
    ) -> Weights:
        """Where the inner steps of each task end.

        A head that adapts alone sees the encoder once, and is always unrolled, which takes next to nothing. So is the
        first step of weights that are ``fresh`` from :meth:`initial` with a head of zeros: it passes no gradient to the
        encoder, which moves from the second step on.
        """
        steps = range(self.steps) if steps is None else steps
        at_zero = fresh and self.start is None and self.of_examples is None
        alone = steps if not self.names else steps[: at_zero and steps.start == 0]
        if alone:
            weights = self._descend_head(weights, support, context, strategy, alone)
        if len(alone) == len(steps):
            return weights
        return descend(
            self.loop(steps[len(alone) :]),
            weights,
            self.shared(),
            (support, context.classes),
            strategy=strategy,
            tasks_at_once=self.side_by_side(support.x),
        )

    def _descend_head(
        self,
        weights: Weights,
        support: Examples,
        context: Context,
        strategy: Strategy,
        steps: range,
    ) -> Weights:
        """The same for a head that moves while the encoder stays."""
        with self._in_evaluation():
            features = encode(self.encoder, support.x)

        def loss(weights: Weights, shared: Weights, data: Any) -> Tensor:
            # Tasks share no weight, so the slopes of the sum are the slopes of each.
            return self.likelihood.task_nll(_outputs(weights, features), support, context).sum()

        # One loop for all tasks at once, which takes them for a single one.
        heads = {n: value[None] for n, value in weights.items() if n.startswith("head.")}
        ends = descend(
            self.loop(steps)._replace(loss=loss, compiled=None),
            heads,
            self.sizes.shared(),
            (),
            strategy="first" if strategy == "first" else "unroll",
        )
        return weights | {name: value[0] for name, value in ends.items()}

    def predict(self, weights: Weights, x: Inputs) -> Tensor:
        """Outputs (task, query, rows) of an encoder and a head with these weights."""
        if not self.names:
            return _outputs(weights, encode(self.encoder, x))

        def one(weights: Weights, x: Inputs) -> Tensor:
            return _outputs(weights, self._features(weights, x))

        count = self.side_by_side(x)
        if self._compile and torch.is_grad_enabled() and not inside_transform():
            if self._queries is None:
                self._queries = Compiled(lambda task, _: one(*task), "The pass of the queries")
            ask = self._queries
            found: Tensor = in_pieces(
                lambda alone, *task: ask(alone, task, ()), weights, x, tasks_at_once=count
            )
            return found
        # The fused kernel has no rule for vmap.
        side_by_side = count > 1 or inside_transform()
        with exact_derivatives() if side_by_side else nullcontext():
            return over_tasks(one, weights, x, tasks_at_once=count)

    def side_by_side(self, x: Inputs) -> int:
        """How many tasks with such examples adapt at a time."""
        tasks, examples = leaves(x)[0].shape[:2]
        if self.tasks_at_once:
            return self.tasks_at_once
        each = self.encoder.bytes_per_example * max(1, examples)
        if leaves(x)[0].device.type != "cpu" or not each:
            return tasks
        return max(1, min(tasks, LARGEST_CPU_TENSOR // each))

    def _features(self, weights: Weights, x: Inputs) -> Tensor:
        own = {
            name.removeprefix("encoder."): value
            for name, value in weights.items()
            if name.startswith("encoder.")
        }
        return torch.func.functional_call(self.encoder, own, (x,), tie_weights=self._tied)

    @contextmanager
    def _in_evaluation(self) -> Iterator[None]:
        """Run the encoder without dropout, then give every part its own mode back.

        An inner loop that drops activations takes steps on another function than the one it is scored on.
        """
        training = [part for part in self._with_modes if part.training]
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True


def _outputs(weights: Weights, features: Tensor) -> Tensor:
    """``W f + b``: (…, example, width) to (…, example, rows)."""
    rows, bias = weights["head.weight"], weights["head.bias"]
    if features.ndim == 2:
        return F.linear(features.to(rows.dtype), rows, bias)
    return features.to(rows.dtype) @ rows.transpose(-1, -2) + bias[..., None, :]
