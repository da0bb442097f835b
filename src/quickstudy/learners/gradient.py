"""Gradient learners: adapting is descending the loss of the support."""

from __future__ import annotations

from abc import ABC
from typing import Any, Literal

import torch
from torch import Tensor

from quickstudy.episode import Context, Episode, Examples, Inputs, leaves
from quickstudy.functional import STRATEGIES, Strategy, Weights, fitting_strategy, tied
from quickstudy.functional.watching import first_divergence
from quickstudy.learners.base import Learner
from quickstudy.learners.fast_weights import FastWeights
from quickstudy.learners.head_start import Start
from quickstudy.learners.step_sizes import Kind
from quickstudy.nn.encoders import Encoder

SPARING: tuple[Strategy, ...] = ("sweep", "sqrt", "fd")
"""Strategies that are chosen for the sake of memory."""


class GradientLearner(Learner, ABC):
    """A learner whose state are fast weights, name to tensor (task, …); how they come about is up to ``adapt``.

    Args:
        weights: which they are.
        penalty: λ of a tie, ``λ/2 ‖w - θ‖²``, to where a task began.
    """

    order_free = True
    additive = False
    inner_loop = True
    state_type = dict

    def __init__(self, weights: FastWeights, *, penalty: float = 0.0) -> None:
        super().__init__(weights.encoder, weights.likelihood)
        self.penalty = penalty
        self.fast, self.start, self.sizes = weights, weights.start, weights.sizes
        self.of_examples = weights.of_examples

    def together(self, episode: Episode) -> int:
        return min(self.fast.side_by_side(part.x) for part in (episode.support, episode.query))

    def predict(self, state: Weights, x: Inputs, context: Context) -> Tensor:
        return self.fast.predict(state, x)

    def trouble(self, support: Examples, context: Context) -> str:
        fast = self.fast
        with torch.no_grad():
            start, own = fast.initial(support, context), (support, context.classes)
            loop = tied(fast.loop(), self.penalty) if self.penalty else fast.loop()
            data = (own, start) if self.penalty else own
            return str(first_divergence(loop, start, fast.shared(), data) or "")


QUERIES_AT_ONCE = 3
"""Queries that a sparing strategy asks at a time, for each support example of a task: a step back through the inner
loop keeps about so many times what the first derivative of one example keeps."""


class MAML(GradientLearner):
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
    MAML++ (Antoniou et al. 2019)             ``rates="step"``, ``multi_step=0.1`` and ``first_order=0.3``, see below
    Meta-Curvature (Park & Oliva 2019)        ``rates="curvature"``
    Proto-MAML (Triantafillou et al. 2020)    ``head="prototypes"``: W_c = 2 p_c / d, b_c = -‖p_c‖² / d for d features
    LEOPARD (Bansal et al. 2020)              ``head="generated"``, ``adapt="last:2"``, ``rates="tensor"``, see below
    ========================================  =================================================================

    MAML++ begins with easier gradients. While a share t < ``multi_step`` of the training is over, the queries are asked
    after every inner step, ``Σ_k v_k L_query(θ_k)`` with ``s = t / multi_step``, ``v_k = (1 - s) / K`` for k < K and
    ``v_K = (1 - s) / K + s``, so that the mean of all steps becomes the last one alone. While t < ``first_order``, the
    gradient is of first order. Differs from the paper: earlier steps fade out wholly, not to 0.03 / K; normalisation
    keeps no statistics, so there are none for each step. The rest are settings of the training: its rate may fall along
    a cosine (``training.schedule``).

    LEOPARD (Bansal et al. 2020, Learning to Few-Shot Learn Across Diverse Natural Language Classification Tasks) lets a
    trained perceptron make the row of each class from its examples (:class:`HeadOfExamples`), takes its steps on the
    head and on upper layers only, and learns how far they go. Differs from the paper: the perceptron begins at zero and
    adds to the head of Proto-MAML, so an untrained one does no harm; the head reads the features of the encoder, not
    those of one more perceptron; rates are of each tensor, not of each layer; the examples that make the head take the
    steps as well.

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
        head: how it begins: at ``zero``, at the ``prototypes`` of the support, or ``generated`` from its examples; the
            head of values is learned instead.
        values: numbers that a task predicts; 0: a class.
        tasks_at_once: tasks that adapt side by side, and whose gradients are made together; 0 chooses: all of them on
            an accelerator, on a CPU as many as stay in the cache.
        compile: compile inner steps and queries while meta-training (:func:`quickstudy.functional.compiled`), which
            takes minutes before the first step; the log says what it brings. Not with ``strategy="fd"``.

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

    def __init__(
        self,
        encoder: Encoder,
        *,
        rate: float = 0.1,
        steps: int = 5,
        strategy: Strategy | Literal["auto"] = "auto",
        adapt: str = "all",
        rates: Kind = "fixed",
        head: Start = "zero",
        tasks_at_once: int = 0,
        values: int = 0,
        compile: bool = False,
        multi_step: float = 0.0,
        first_order: float = 0.0,
    ) -> None:
        if strategy not in ("auto", *STRATEGIES):
            raise ValueError(
                f"The strategy must be one of auto, {', '.join(STRATEGIES)}; found {strategy!r}."
            )
        if compile and strategy == "fd":
            raise ValueError(
                "The strategy 'fd' cannot be compiled; choose another one, such as auto."
            )
        for name, share in (("multi_step", multi_step), ("first_order", first_order)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of the training, 0 … 1; found {share}.")
        weights = FastWeights(
            encoder,
            rate=rate,
            steps=steps,
            adapt=adapt,
            rates=rates,
            head=head,
            tasks_at_once=tasks_at_once,
            values=values,
            compile=compile,
        )
        super().__init__(weights)
        self.strategy = strategy
        self.multi_step, self.first_order = multi_step, first_order
        self._share = 1.0
        self._fitting: dict[tuple[Any, ...], Strategy] = {}

    def progress(self, share: float) -> None:
        self._share = share

    def adapt(self, support: Examples, context: Context, state: Weights | None = None) -> Weights:
        start = self.fast.initial(support, context) if state is None else state
        strategy = self._strategy(start, support, context)
        fresh = state is None
        return self.fast.descend(start, support, context, strategy=strategy, fresh=fresh)

    def outer_loss(self, episode: Episode) -> Tensor:
        """The loss of the queries, after every inner step as far as ``multi_step`` says."""
        support, query, context = episode
        state, losses = self.fast.initial(support, context), []
        strategy = self._strategy(state, support, context)
        if self._share >= self.multi_step:
            state = self.fast.descend(state, support, context, strategy=strategy, fresh=True)
            sparing, count = strategy in SPARING, query.mask.shape[1]
            at_once = QUERIES_AT_ONCE * support.mask.shape[1] if sparing else count
            return self.asked(state, episode, at_once=at_once)
        for k, weight in enumerate(self.step_weights()):
            state = self.fast.descend(
                state, support, context, strategy=strategy, steps=range(k, k + 1), fresh=k == 0
            )
            outputs = self.predict(state, query.x, context)
            losses.append(weight * self.likelihood.nll(outputs, query, context))
        return torch.stack(losses).sum()

    def step_weights(self) -> list[float]:
        """v_k, how much the queries count after each inner step."""
        done = min(1.0, self._share / self.multi_step) if self.multi_step else 1.0
        each = (1 - done) / self.fast.steps
        return [each] * (self.fast.steps - 1) + [each + done]

    def _strategy(self, start: Weights, support: Examples, context: Context) -> Strategy:
        if self._share < self.first_order:
            return "first"
        if self.strategy != "auto":
            return self.strategy
        if not self.fast.names or not torch.is_grad_enabled():
            return "unroll"
        data = (support, context.classes)
        key = tuple((leaf.shape, leaf.device) for leaf in leaves(data))
        if key not in self._fitting:
            loop, shared = self.fast.loop(), self.fast.shared()
            self._fitting[key] = fitting_strategy(loop, start, shared, data)
        return self._fitting[key]
