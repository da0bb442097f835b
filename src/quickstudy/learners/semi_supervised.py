"""Examples whose class nobody has said: what a linear head learns from them beside the others."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.episode import NO_LABEL, Context, Examples, labelled
from quickstudy.learners.logistic import fit_targets, targets_of

TURNS = 8
"""How often labels are guessed anew."""
SURENESS = 1.0
"""α. With 0 a guess is what the head says already, from which it would learn nothing."""


def fit_semi_supervised(
    examples: Examples, context: Context, *, penalty: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Fit a multinomial logistic regression to examples of which some have no label (y = :data:`NO_LABEL`).

    Labels are guessed, and the head is fitted to the guesses beside what is known, by turns: with q fixed,
    ``min_{W, b} Σ_i -n_i log p_i(y_i) + λ/2 ‖W‖² + ω Σ_u Σ_c -q_uc log p_u(c)``, and with p fixed
    ``q_uc ∝ s_uc / √(Σ_v s_vc)``, ``s_uc ∝ p_u(c)^(1+α)``. A guess is surer than p, from which nothing would be
    learned; alone, that would give ever more examples to the classes that have most, and the root holds against it. ω
    is 1, or so much less that all examples without a label count for as many as those with one.

    Boudiaf et al. 2020, Transductive Information Maximization for Few-Shot Learning (TIM-ADM), which maximises
    ``H(Y) - α H(Y | X)`` of what has no label. Differs from the paper: its examples without a label are the queries,
    here they belong to the support and no query informs another; its classifier measures distances to prototypes and
    takes one step in each turn, here every fit goes to its end, so that the derivative through all turns is exact; its
    s is not normalised.

    Args:
        examples: x are features (task, example, width); the mask says for how many an example counts, n; 0 for padding.
        context: which classes exist.
        penalty: λ.
        steps: most Newton steps of each fit.

    Returns:
        Weights (task, width, way) and bias (task, 1, way) as of :func:`quickstudy.learners.logistic.fit_logistic`. A
        class that no label names is never guessed.
    """
    bare = (examples.y == NO_LABEL) & (examples.mask > 0)
    target = targets_of(labelled(examples), context)
    head = fit_targets(examples.x, target, penalty=penalty, steps=steps)
    if not bool(bare.any()):
        return head
    enough = target.sum((1, 2)) / bare.sum(1).clamp(min=1)
    counted = (bare * enough.clamp(max=1)[:, None])[..., None]
    for _ in range(TURNS):
        weights, bias = head
        guessed = counted * guesses(examples.x @ weights + bias, bare)
        head = fit_targets(examples.x, target + guessed, penalty=penalty, steps=steps, start=head)
    return head


def guesses(logits: Tensor, bare: Tensor) -> Tensor:
    """``q_uc ∝ s_uc / √(Σ_v s_vc)``, ``s_uc ∝ p_u(c)^(1+α)``, of examples without a label; 0 of all others.

    Args:
        logits: of p, (task, example, way).
        bare: bool (task, example), which have no label.

    >>> logits = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]]])
    >>> guesses(logits.double(), torch.tensor([[True, True, False]])).round(decimals=2).tolist()
    [[[0.65, 0.35], [0.99, 0.01], [0.0, 0.0]]]
    """
    sure = torch.where(bare[..., None], ((1 + SURENESS) * logits).softmax(-1), 0)
    # Where a class is nobody's, what is divided is zero itself.
    least = torch.finfo(sure.dtype).tiny
    even = sure / sure.sum(1, keepdim=True).clamp(min=least).sqrt()
    return even / even.sum(-1, keepdim=True).clamp(min=least)
