"""Reptile: the outer step goes towards the weights that the inner steps found."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.episode import Context, Episode, Examples
from quickstudy.functional import Weights
from quickstudy.learners.fast_weights import FastWeights
from quickstudy.learners.gradient import GradientLearner
from quickstudy.nn.encoders import Encoder


class Reptile(GradientLearner):
    """An encoder that moves towards where each task takes it, without any second derivative.

    ``θ ← θ - ε mean_t (θ - θ_t)``, with θ_t where the inner steps of task t end.

    Nichol et al. 2018, On First-Order Meta-Learning Algorithms. Differs from the paper: a task's examples are not mixed
    into minibatches; its inner steps go over the support first and then, as many, over the queries, which keeps what
    the paper found to matter, that later steps see other examples than earlier ones. Inner steps are plain descent, not
    Adam. Classes begin with one shared row of the head, zero, as in :class:`MAML`, so the head is no part of θ; the
    rows of ``values`` are.

    Learning a task is that of :class:`MAML`, to the support alone. The value of the training loss is the loss of the
    queries after it, as for every learner; its gradient is not the derivative of that value but ``mean_t (θ - θ_t)``,
    so an optimiser with rate ε takes the step above.

    Args:
        encoder: maps an example to a vector; all of its trainable parameters adapt.
        rate: η, of the inner steps.
        steps: inner steps, of each call of ``adapt``.
        tasks_at_once: tasks that adapt side by side; 0 chooses, as :class:`MAML` does.
        values: numbers that a task predicts; 0: a class.

    Raises:
        ValueError: an option is out of range.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> learner = Reptile(VectorEncoder(2, width=8, layers=1), steps=2)
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> part = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner(Episode(part, part, context)).backward()
    >>> learner.encoder.embed.weight.grad.shape
    torch.Size([8, 2])
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        rate: float = 0.1,
        steps: int = 5,
        tasks_at_once: int = 0,
        values: int = 0,
    ) -> None:
        weights = FastWeights(
            encoder, rate=rate, steps=steps, tasks_at_once=tasks_at_once, values=values
        )
        super().__init__(weights)

    def adapt(self, support: Examples, context: Context, state: Weights | None = None) -> Weights:
        start = self.fast.initial(support, context) if state is None else state
        fresh = state is None
        return self.fast.descend(start, support, context, strategy="first", fresh=fresh)

    def outer_loss(self, episode: Episode) -> Tensor:
        """The loss of the queries, with ``mean_t (θ - θ_t)`` for a gradient."""
        support, query, context = episode
        with torch.no_grad():
            state = self.adapt(support, context)
            value = self.likelihood.nll(self.predict(state, query.x, context), query, context)
            ends = self.adapt(query, context, state)
        own: Weights = {
            f"encoder.{name}": weight for name, weight in self.encoder.named_parameters()
        }
        if self.start is not None:
            own |= {"head.weight": self.start.weight, "head.bias": self.start.bias}
        along = [
            (own[name] * (own[name].detach() - end.mean(0))).sum()
            for name, end in ends.items()
            if name in own
        ]
        surrogate = torch.stack(along).sum()
        return value + (surrogate - surrogate.detach())
