"""A watch on the training loss: whether it has left what one says who knows nothing."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from quickstudy.config import RunConfig
from quickstudy.episode import Episode
from quickstudy.likelihood import Bernoulli, Categorical, Likelihood, SquaredError

log = logging.getLogger("quickstudy")

NEAR = 0.98
"""Share of the loss of chance above which a loss counts as being there."""

PATIENCE = 0.2
"""Share of the training that must be over before anything is said."""

FEWEST_STEPS = 100
"""Steps that must be over before anything is said."""


def loss_of_chance(likelihood: Likelihood, episode: Episode) -> Tensor:
    """The loss of the best answer that looks at no example, a scalar in nats.

    Of classes ``mean_t log way_t``; of labels, way times the entropy of the share of them that examples have; of
    numbers, that of their mean over the batch, and of their scale where the learner gives one: ``Σ_dim ½ σ²`` or
    ``Σ_dim ½ log(2 π e σ²)``.

    >>> from quickstudy.episode import Task, collate
    >>> x, y = torch.zeros(4, 1), torch.arange(4)
    >>> round(loss_of_chance(Categorical(), collate([Task(x, y, x, y, way=4)])).item(), 4)
    1.3863
    """
    ways = episode.context.classes.sum(1)
    if isinstance(likelihood, Categorical):
        return ways.clamp(min=1).log().to(torch.float32).mean()
    seen = episode.query.y[episode.query.mask]
    variance = seen.var(0, correction=0).clamp(min=1e-12)
    if isinstance(likelihood, Bernoulli):
        exists = episode.query.mask[..., None] & episode.context.classes[:, None]
        share = episode.query.y[exists].mean().clamp(1e-6, 1 - 1e-6)
        each = -(share * share.log() + (1 - share) * (1 - share).log())
        return ways.float().mean() * each
    if isinstance(likelihood, SquaredError):
        return 0.5 * variance.sum()
    return 0.5 * (2 * math.pi * math.e * variance).log().sum()


class PlateauWatch:
    """Says once, in the log, that a training has not begun to learn, and what to change.

    Learners that adapt in one forward pass stay at the loss of chance for a while, and then drop. A training that is
    still there after a fifth of its steps, its loss since half of them within 2 % of that of chance, may never leave.

    Args:
        likelihood: of the learner.
        config: the run.
    """

    def __init__(self, likelihood: Likelihood, config: RunConfig) -> None:
        self.likelihood, self.config = likelihood, config
        self.rows: list[tuple[int, float, float]] = []
        self.said = False
        self._chance, self._batches = torch.zeros(()), 0

    def meet(self, episode: Episode) -> None:
        """Take note of the tasks of a training batch."""
        if not self.said:
            chance = loss_of_chance(self.likelihood, episode).detach().float()
            self._chance, self._batches = self._chance.to(chance.device) + chance, self._batches + 1

    def judge(self, step: int, share: float, loss: float) -> str:
        """What to say after the loss of the batches met since the last call; nothing most of the time.

        Args:
            step: of the training.
            share: of the training that is over.
            loss: mean over those batches.
        """
        if self.said or not self._batches:
            return ""
        self.rows.append((step, loss, float(self._chance) / self._batches))
        self._chance, self._batches = torch.zeros(()), 0
        if share < PATIENCE or step < max(FEWEST_STEPS, 2 * self.config.training.warmup):
            return ""
        late = [row for row in self.rows if row[0] > step / 2]
        found, chance = (sum(row[at] for row in late) / len(late) for at in (1, 2))
        # A negative loss of chance, as densities have, is no measure of a share.
        if found < chance - (1 - NEAR) * abs(chance):
            return ""
        self.said = True
        return (
            f"After {step} steps the training loss is still that of chance ({found:.3f}; chance {chance:.3f}). "
            "Learners that adapt in one pass wait there before they drop, and some never do. "
            + self._advice()
        )

    def _advice(self) -> str:
        """What to change, the likeliest first."""
        training, tasks = self.config.training, self.config.episode
        changes = [f"training.rate={training.rate / 3:.2g} (or {3 * training.rate:.2g})"]
        if tasks.tasks < 32:
            changes.append(f"episode.tasks={max(8, 4 * tasks.tasks)}")
        if training.warmup < training.steps // 10:
            changes.append(f"training.warmup={training.steps // 10}")
        if isinstance(tasks.way, int) and tasks.way > 2:
            changes.append(f"episode.way=[2, {tasks.way}]")
        if isinstance(tasks.shot, int) and tasks.shot < 5:
            changes.append(f"episode.shot=[{tasks.shot}, 5]")
        return "Try, one at a time: " + "; ".join(changes) + "."
