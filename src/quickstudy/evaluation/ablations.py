"""What a part of a learner is worth: the same learner without it, on the same tasks."""

from __future__ import annotations

import copy

from quickstudy.learners.base import Learner
from quickstudy.learners.gradient import GradientLearner
from quickstudy.learners.memory import MetaTransformer

INNER_STEPS = (0, 1, 5)
"""Numbers of inner steps that are compared with a gradient learner's own."""


def ablations(learner: Learner) -> dict[str, Learner]:
    """A learner without one part at a time, by name; copies, the learner itself stays whole.

    ``without_description`` is told neither names nor descriptions, ``without_modulation`` has the same weights in every
    task, and ``inner_steps_0``, ``_1`` and ``_5`` take so many inner steps. A part that a learner does not have gives
    nothing.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> from quickstudy.learners import MAML
    >>> sorted(ablations(MAML(VectorEncoder(2, width=8), steps=5)))
    ['inner_steps_0', 'inner_steps_1']
    """
    found: dict[str, Learner] = {}
    base: Learner = learner
    if isinstance(learner, MetaTransformer):
        base = learner.base
        if learner.names or learner.describer.numbers:
            found["without_description"] = plain = copy.deepcopy(learner)
            plain.describes = False
        if learner.modulation is not None:
            found["without_modulation"] = plain = copy.deepcopy(learner)
            plain.modulates = False
    if isinstance(base, GradientLearner):
        for steps in INNER_STEPS:
            if steps == base.fast.steps:
                continue
            other = copy.deepcopy(learner)
            inner = other.base if isinstance(other, MetaTransformer) else other
            assert isinstance(inner, GradientLearner)
            inner.fast.steps = steps
            found[f"inner_steps_{steps}"] = other
    return found
