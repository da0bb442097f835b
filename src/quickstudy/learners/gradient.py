"""Gradient learners: adapting is descending the loss of the support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples, Inputs, leaves
from quickstudy.functional import (
    STRATEGIES,
    InnerLoop,
    Strategy,
    Weights,
    adapted_names,
    descend,
    exact_derivatives,
    fitting_strategy,
    over_tasks,
    without_dropout,
)
from quickstudy.functional.watching import first_divergence
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN, class_sums
from quickstudy.learners.step_sizes import Kind, StepSizes
from quickstudy.likelihood import Categorical, SquaredError
from quickstudy.nn.encoders import LARGEST_CPU_TENSOR, Encoder


class MAML(Learner):
    """Model-agnostic meta-learning: an encoder from which a few gradient steps learn a task.

    ``θ_{k+1} = θ_k - η ∇ L_support(θ_k)``, ``logits(x) = W f_θ(x) + b``; the outer loss is L_query(θ_K).

    Finn et al. 2017, Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. Differs from the
    paper: all classes begin with one shared row of the head (Ye & Chao 2022, How to Train Your MAML to Excel
    in Few-Shot Classification), so a task may have any number of classes, label order cannot be memorised,
    and scores before adaptation are exactly at chance. A shared row cancels in softmax at every step, so it
    is zero here rather than learned. It follows that the first step moves only the head; the encoder moves
    from the second on. Inner steps run without dropout.

    With ``values``, a task predicts numbers rather than a class. The rows of its head differ in meaning, so they begin
    at rows of their own, which are learned with the encoder, as in the paper.

    Its kin are arguments:

    ========================================  =================================================================
    FOMAML                                    ``strategy="first"``
    ANIL (Raghu et al. 2020)                  ``adapt="head"``: the encoder runs once and only the head adapts
    BOIL (Oh et al. 2021)                     ``adapt="body"``: the head stays as it begins, at the prototypes here
    Meta-SGD (Li et al. 2017)                 ``rates="element"`` or ``"tensor"``
    rates of MAML++ (Antoniou et al. 2019)    ``rates="step"``
    Meta-Curvature (Park & Oliva 2019)        ``rates="curvature"``
    Proto-MAML (Triantafillou et al. 2020)    ``head="prototypes"``: W_c = 2 p_c / d, b_c = -‖p_c‖² / d for d features
    ========================================  =================================================================

    The state maps names to fast weights (task, …): ``head.weight`` (task, way, width), ``head.bias`` (task,
    way) and ``encoder.…``, with ``values`` for way in a regression; adapting again takes more steps from there.

    Args:
        encoder: maps an example to a vector.
        rate: η.
        steps: inner steps, of each call of ``adapt``.
        strategy: how the outer gradient passes the inner steps (:mod:`quickstudy.functional.descent`): ``unroll``,
            ``sweep``, ``sqrt``, ``fd`` or ``first``; ``auto`` measures one step and takes the fastest exact one that
            fits a quarter of the memory. A head that adapts alone is always unrolled, which takes next to nothing.
        adapt: which parameters of the encoder adapt beside the head: ``all``, ``head`` (none), ``body`` (all, and not
            the head), ``norms``, ``last:n``, a pattern of names, or several of these with commas between. Parameters
            that are frozen when the learner is built stay so.
        rates: ``fixed``, or learned: ``tensor``, ``element``, ``step`` or ``curvature`` (:class:`StepSizes`).
        head: how it begins: ``zero``, or at the ``prototypes`` of the support; the head of values is learned instead.
        values: numbers that a task predicts; 0: a class.
        tasks_at_once: tasks that adapt side by side, and whose gradients are made together; 0 chooses: all of them on
            an accelerator, on a CPU as many as stay in the cache.

    Raises:
        ValueError: an option is out of range, or ``adapt`` matches no parameter; a task has another number of values.

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
        strategy: Strategy | Literal["auto"] = "auto",
        adapt: str = "all",
        rates: Kind = "fixed",
        head: Literal["zero", "prototypes"] = "zero",
        tasks_at_once: int = 0,
        values: int = 0,
    ) -> None:
        super().__init__(encoder, SquaredError() if values else Categorical())
        if rate <= 0:
            raise ValueError(f"The rate of the inner steps must be positive; found {rate}.")
        if steps < 1:
            raise ValueError(f"The number of inner steps must be at least 1; found {steps}.")
        if strategy not in ("auto", *STRATEGIES):
            raise ValueError(
                f"The strategy must be one of auto, {', '.join(STRATEGIES)}; found {strategy!r}."
            )
        if head not in ("zero", "prototypes"):
            raise ValueError(f"The head must begin at zero or at the prototypes; found {head!r}.")
        if values < 0:
            raise ValueError(
                f"The number of values must be positive, or 0 for classes; found {values}."
            )
        if values and head == "prototypes":
            raise ValueError(
                "Found head='prototypes' beside values, but prototypes are means of classes, which values do not have; "
                "leave head at zero: the head of values begins where training finds it best."
            )
        if tasks_at_once < 0:
            raise ValueError(
                f"tasks_at_once must be a number of tasks, or 0 to choose; found {tasks_at_once}."
            )
        self.steps, self.strategy, self.tasks_at_once = steps, strategy, tasks_at_once
        self.head_adapts = adapt != "body"
        self.head = head if self.head_adapts or values else "prototypes"
        self.start = nn.Linear(encoder.width, values) if values else None
        """Where the head of values begins."""
        self.adapted = adapted_names(encoder, adapt if self.head_adapts else "all")
        """Names of the encoder's parameters that adapt."""
        if not self.head_adapts and not self.adapted:
            raise ValueError("Nothing would adapt: every parameter of the encoder is frozen.")
        named = dict(encoder.named_parameters())
        # Looking for tied weights costs as much as a small layer, at every step.
        self._tied = len(named) < len(list(encoder.named_parameters(remove_duplicate=False)))
        shapes = {f"encoder.{name}": named[name].shape for name in self.adapted}
        if self.head_adapts:
            rows = max(1, values)
            shapes |= {
                "head.weight": torch.Size([rows, encoder.width]),
                "head.bias": torch.Size([rows]),
            }
        self.sizes = StepSizes(rates, rate, shapes, steps=steps)
        self._fitting: dict[tuple[Any, ...], Strategy] = {}

    def together(self, episode: Episode) -> int:
        return min(self.side_by_side(part.x) for part in (episode.support, episode.query))

    def adapt(self, support: Examples, context: Context, state: Weights | None = None) -> Weights:
        start = self.initial_weights(support, context) if state is None else state
        if not self.adapted:
            return self._descend_head(start, support, context)
        loop = InnerLoop(self.support_loss, self.sizes.update, self.steps)
        shared = self.shared()
        data = (support, context.classes)
        return descend(
            loop,
            start,
            shared,
            data,
            strategy=self._strategy(loop, start, shared, data),
            tasks_at_once=self.side_by_side(support.x),
        )

    def predict(self, state: Weights, x: Inputs, context: Context) -> Tensor:
        if not self.adapted:
            return _logits(state, self.encode(x))

        def one(weights: Weights, x: Inputs) -> Tensor:
            return _logits(weights, self._features(weights, x))

        with exact_derivatives():
            return over_tasks(one, state, x, tasks_at_once=self.side_by_side(x))

    def trouble(self, support: Examples, context: Context) -> str:
        with torch.no_grad():
            start = self.initial_weights(support, context)
            loop = InnerLoop(self.support_loss, self.sizes.update, self.steps)
            return str(
                first_divergence(loop, start, self.shared(), (support, context.classes)) or ""
            )

    def initial_weights(self, support: Examples, context: Context) -> Weights:
        """Fast weights before adaptation: the head, and for each task the encoder's own weights."""
        tasks, way = context.classes.shape
        weights = {
            f"encoder.{name}": value.expand(tasks, *value.shape)
            for name, value in self.encoder.named_parameters()
            if name in self.adapted
        }
        if self.start is not None:
            if way != self.start.out_features:
                raise ValueError(
                    f"This learner predicts {self.start.out_features} values, but the tasks have {way}; build it with "
                    f"values={way}."
                )
            weights["head.weight"] = self.start.weight.expand(tasks, -1, -1)
            weights["head.bias"] = self.start.bias.expand(tasks, -1)
            return weights
        if self.head == "prototypes":
            with self._exact():
                features = self.encode(support.x)
            sums, counts = class_sums(features, support, way)
            prototypes = sums / counts.clamp(min=1)[..., None]
            nearness = -prototypes.square().sum(-1) / self.encoder.width
            weights["head.weight"] = 2 * prototypes / self.encoder.width
            weights["head.bias"] = nearness.masked_fill(counts == 0, UNSEEN)
            return weights
        kind = next((value.dtype for value in self.parameters()), torch.get_default_dtype())
        device = context.classes.device
        weights["head.weight"] = torch.zeros(
            tasks, way, self.encoder.width, dtype=kind, device=device
        )
        weights["head.bias"] = torch.zeros(tasks, way, dtype=kind, device=device)
        return weights

    @contextmanager
    def _exact(self) -> Iterator[None]:
        """The inner loop's kernels and modes."""
        with exact_derivatives(), without_dropout(self.encoder):
            yield

    def shared(self) -> Weights:
        """What inner steps depend on beside the fast weights: rates, and the parts of the encoder that stay."""
        stay = {
            f"encoder.{name}": value
            for name, value in self.encoder.named_parameters()
            if value.requires_grad and name not in self.adapted
        }
        return stay | self.sizes.shared()

    def support_loss(self, weights: Weights, shared: Weights, data: Any) -> Tensor:
        """The support's loss of one task."""
        support, classes = data
        context = Context(classes[None], classes.new_zeros(1, 0), classes.new_zeros(1, 0, 0))
        batch = support._replace(y=support.y[None], mask=support.mask[None])
        with self._exact():
            own = {**shared, **weights}
            logits = _logits(own, self._features(own, support.x))
        return self.likelihood.nll(logits[None], batch, context)

    def _descend_head(self, weights: Weights, support: Examples, context: Context) -> Weights:
        with self._exact():
            features = self.encode(support.x)

        def loss(weights: Weights, shared: Weights, data: Any) -> Tensor:
            # Tasks share no weight, so the slopes of the sum are the slopes of each.
            return self.likelihood.task_nll(_logits(weights, features), support, context).sum()

        loop = InnerLoop(loss, self.sizes.update, self.steps)
        # One loop for all tasks at once, which takes them for a single one.
        single = {name: value[None] for name, value in weights.items()}
        strategy: Strategy = "first" if self.strategy == "first" else "unroll"
        ends = descend(loop, single, self.sizes.shared(), (), strategy=strategy)
        return {name: value[0] for name, value in ends.items()}

    def _features(self, weights: Weights, x: Inputs) -> Tensor:
        own = {
            name.removeprefix("encoder."): value
            for name, value in weights.items()
            if name.startswith("encoder.")
        }
        return torch.func.functional_call(self.encoder, own, (x,), tie_weights=self._tied)

    def _strategy(self, loop: InnerLoop, weights: Weights, shared: Weights, data: Any) -> Strategy:
        if self.strategy != "auto":
            return self.strategy
        if not torch.is_grad_enabled():
            return "unroll"
        key = tuple((leaf.shape, leaf.device) for leaf in leaves(data))
        if key not in self._fitting:
            self._fitting[key] = fitting_strategy(loop, weights, shared, data)
        return self._fitting[key]

    def side_by_side(self, x: Inputs) -> int:
        """How many tasks with such examples adapt at a time."""
        tasks, examples = leaves(x)[0].shape[:2]
        if self.tasks_at_once:
            return self.tasks_at_once
        each = self.encoder.bytes_per_example * max(1, examples)
        if leaves(x)[0].device.type != "cpu" or not each:
            return tasks
        return max(1, min(tasks, LARGEST_CPU_TENSOR // each))


def _logits(weights: Weights, features: Tensor) -> Tensor:
    """``W f + b``: (…, example, width) to (…, example, way)."""
    rows, bias = weights["head.weight"], weights["head.bias"]
    if features.ndim == 2:
        return F.linear(features.to(rows.dtype), rows, bias)
    return features.to(rows.dtype) @ rows.transpose(-1, -2) + bias[..., None, :]
