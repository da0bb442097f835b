"""MAML with implicit gradients: where a task rests tells the outer gradient, not how it came there."""

from __future__ import annotations

from quickstudy.episode import Context, Examples
from quickstudy.functional import Weights, settle
from quickstudy.learners.fast_weights import FastWeights
from quickstudy.learners.gradient import GradientLearner
from quickstudy.nn.encoders import Encoder


class ImplicitMAML(GradientLearner):
    """MAML whose tasks stay near the encoder, and whose outer gradient costs the memory of one inner step.

    ``w_t = argmin_w L_support(w) + λ/2 ‖w - θ‖²``, by descent without a graph; the outer gradient is ``mean_t u_t``
    with ``(I + H_t/λ) u_t = ∇L_query(w_t)``, H_t the Hessian of L_support at w_t, solved by conjugate gradients.

    Rajeswaran et al. 2019, Meta-Learning with Implicit Gradients. Differs from the paper: conjugate gradients begin at
    ∇L_query, the gradient of first-order MAML, and end where H_t/λ + I shows itself not to be positive; parameters that
    do not adapt get their implicit gradient too. The head is that of
    :class:`quickstudy.learners.gradient.MAML`: zero for every class, which is then its θ, or learned for ``values``.

    The gradient is exact where descent has converged and the solver is done, and biased before; the first needs
    ``rate`` below ``2 / (‖H_t‖ + λ)`` and about ``1 / (rate · λ)`` steps for each factor of e. Adapting again goes on
    from the earlier state, which is then what λ ties to.

    Args:
        encoder: maps an example to a vector.
        rate: η, of the inner steps.
        steps: inner steps, of each call of ``adapt``.
        penalty: λ.
        solver_steps: of conjugate gradients, each of them one product with the Hessian.
        adapt: which parameters of the encoder adapt beside the head: ``all``, ``head`` (none), ``norms``, ``last:n``, a
            pattern of names, or several of these with commas between.
        tasks_at_once: tasks that adapt side by side; 0 chooses, as :class:`quickstudy.learners.gradient.MAML` does.
        values: numbers that a task predicts; 0: a class.

    Raises:
        ValueError: an option is out of range, or ``adapt`` matches no parameter.

    >>> import torch
    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> learner = ImplicitMAML(VectorEncoder(2, width=8, layers=1), adapt="norms", steps=3)
    >>> x, y = torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner.predict(learner.adapt(support, context), x, context).shape
    torch.Size([1, 4, 2])
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        rate: float = 0.1,
        steps: int = 10,
        penalty: float = 1.0,
        solver_steps: int = 5,
        adapt: str = "all",
        tasks_at_once: int = 0,
        values: int = 0,
    ) -> None:
        if adapt == "body":
            raise ValueError(
                "A head that stays does not rest where the implicit gradient needs it; choose another adapt than "
                "'body', such as all, or MAML."
            )
        if penalty <= 0:
            raise ValueError(f"The penalty must be positive; found {penalty}.")
        if solver_steps < 0:
            raise ValueError(f"The steps of the solver must not be negative; found {solver_steps}.")
        weights = FastWeights(
            encoder,
            rate=rate,
            steps=steps,
            adapt=adapt,
            tasks_at_once=tasks_at_once,
            values=values,
        )
        super().__init__(weights, penalty=penalty)
        self.solver_steps = solver_steps

    def adapt(self, support: Examples, context: Context, state: Weights | None = None) -> Weights:
        fast = self.fast
        return settle(
            fast.loop(),
            fast.initial(support, context) if state is None else state,
            fast.shared(),
            (support, context.classes),
            penalty=self.penalty,
            solver_steps=self.solver_steps,
            tasks_at_once=fast.side_by_side(support.x),
        )
