"""Tasks shared out among threads, each with a core of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.config import ConfigError
from quickstudy.episode import Episode, Stream, leaves, take_tasks
from quickstudy.functional import same_autocast, summed
from quickstudy.learners.base import Learner


class TaskThreads:
    """The loss of a batch of tasks, its gradient made by several threads.

    A CPU splits operations badly among its cores where tensors are small, as in an inner loop, but tasks well. Each
    thread has one core, a share of the tasks and the learner's structure for itself, since fast weights stand in for
    parameters while a model runs; the parameters are those of the learner. Gradients are added in the order of the
    tasks, so the result does not depend on which thread is done first.

    Args:
        learner: whose loss.
        count: of threads.

    Raises:
        ConfigError: the learner drops activations at random, which would depend on the order of the threads.
    """

    def __init__(self, learner: Learner, count: int) -> None:
        random = [name for name, part in learner.named_modules() if _drops(part)]
        if random:
            raise ConfigError(
                f"Threads draw random numbers in no fixed order, and the learner has dropout in {random[0]!r}; set its "
                "dropout to 0, or training.threads to 1."
            )
        self.learner = learner
        same = {id(tensor): tensor for tensor in chain(learner.parameters(), learner.buffers())}
        self.copies = [learner, *(copy.deepcopy(learner, dict(same)) for _ in range(count - 1))]
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def progress(self, share: float) -> None:
        for each in self.copies:
            each.progress(share)

    def __call__(self, batch: Episode | Stream, *, horizon: int = 0) -> Tensor:
        """The mean loss of the tasks or streams, differentiable once; ``horizon`` as for the learner."""
        size = -(-batch.tasks // len(self.copies))
        starts = range(0, batch.tasks, size)
        autocast = same_autocast(leaves(batch)[0].device.type)

        def loss(learner: Learner, start: int) -> Tensor:
            part: Episode | Stream = take_tasks(batch, slice(start, start + size))
            found: Tensor = learner(part, horizon=horizon) * (part.tasks / batch.tasks)
            return found

        def each(function: Callable[[Any], Any], losses: list[Any]) -> Any:
            def call(loss: Any) -> Any:
                with autocast():
                    return function(loss)

            return self._pool.map(call, losses)

        losses = [partial(loss, *pair) for pair in zip(self.copies, starts, strict=False)]
        trained = [value for value in self.learner.parameters() if value.requires_grad]
        return summed(losses, trained, each=each)


def _drops(part: nn.Module) -> bool:
    chance = getattr(part, "p" if isinstance(part, nn.modules.dropout._DropoutNd) else "dropout", 0)
    return isinstance(chance, float) and chance > 0
