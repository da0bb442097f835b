"""Every learner by name; ``LEARNERS`` is the only list of them."""

from __future__ import annotations

from quickstudy.learners.base import Learner
from quickstudy.learners.metric import ProtoNet

LEARNERS: dict[str, type[Learner]] = {
    "protonet": ProtoNet,
}
