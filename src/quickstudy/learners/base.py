"""What every learner is: two verbs, ``adapt`` and ``predict``, and a state that is a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from quickstudy.episode import (
    Context,
    Episode,
    Examples,
    Inputs,
    Stream,
    leaves,
    positions,
    tree_map,
)
from quickstudy.functional import added_up, summed
from quickstudy.learners.streams import stream_loss
from quickstudy.likelihood import Likelihood, in_parts
from quickstudy.nn.encoders import Encoder, encode

State = Any
"""What a learner knows of each task: a tree of tensors whose first axis is the task."""


class Learner(nn.Module, ABC):
    """Learns tasks from a few examples.

    ``adapt`` turns support examples into a state and ``predict`` answers queries from it. A state is a value:
    adapting and predicting change neither the learner nor their arguments, so tasks can be batched, saved and
    served side by side. ``adapt`` may start from an earlier state; learning more is a fold.

    Args:
        encoder: maps an example to a vector.
        likelihood: what the outputs mean.

    Raises:
        TypeError: the encoder is another module.
    """

    order_free: ClassVar[bool]
    """The order of the support examples changes nothing."""
    additive: ClassVar[bool]
    """Adapting to a support set in two parts equals adapting to it at once."""
    inner_loop: ClassVar[bool]
    """``adapt`` takes derivatives; such a model must not be sharded inside."""
    fixed_encoding: ClassVar[bool] = True
    """An example is encoded alike in every task, so that this can be done once for many tasks."""
    grows: ClassVar[bool] = False
    """``adapt`` may start from a state of fewer classes; those of the context beyond them are new."""
    semi_supervised: ClassVar[bool] = False
    """``adapt`` learns from support examples without a label as well; any other learner must not be given such."""
    state_type: ClassVar[type]
    """A NamedTuple class whose fields are tensors, or ``dict`` (name to tensor): how a saved state is rebuilt."""

    def __init__(self, encoder: Encoder, likelihood: Likelihood) -> None:
        super().__init__()
        if not isinstance(encoder, Encoder):
            raise TypeError(
                f"A learner stands on a quickstudy.nn.encoders.Encoder, which says how wide its features are; found "
                f"{type(encoder).__name__}. Derive your own from it, and set self.width."
            )
        self.encoder, self.likelihood = encoder, likelihood

    @abstractmethod
    def adapt(self, support: Examples, context: Context, state: State | None = None) -> State:
        """The state after seeing ``support``, starting from ``state`` or from nothing.

        Examples whose mask is False do not count; with none at all the state is what is known before
        adaptation.
        """

    @abstractmethod
    def predict(self, state: State, x: Inputs, context: Context) -> Tensor:
        """Outputs (task, query, way or more) for queries (task, query, …); no query sees another."""

    def carry(self, state: State) -> State | None:
        """What the next task of a stream may start from; ``None`` for nothing."""
        return None

    @property
    def has_memory(self) -> bool:
        """Whether a task may start from what an earlier one left; if not, those of a stream are as any others."""
        return type(self).carry is not Learner.carry

    def encode(self, x: Inputs) -> Tensor:
        """Vectors (task, example, width) of examples (task, example, …)."""
        return encode(self.encoder, x)

    def progress(self, share: float) -> None:
        """Told before each training step how much of the training is over, 0 … 1; by default, nothing follows from it.

        It may change :meth:`outer_loss` and its gradient, and nothing that ``adapt`` and ``predict`` give. A learner
        that nobody tells counts as trained, share 1.
        """

    def settle(self, episodes: Iterable[Episode]) -> bool:
        """Told once when training is over, with validation tasks: choose what training tasks cannot teach.

        Whether anything was changed; by default, nothing is.
        """
        return False

    def together(self, episode: Episode) -> int:
        """How many tasks of an episode the gradient is made of at a time; memory grows with them, and no further."""
        return episode.tasks

    def trouble(self, support: Examples, context: Context) -> str:
        """Why adapting to these examples does not end in finite numbers, in half a sentence; empty when it does."""
        return ""

    def outputs(self, episode: Episode) -> Tensor:
        """Outputs for the queries after adapting to the support, by a shorter way where a learner has one."""
        return self.predict(
            self.adapt(episode.support, episode.context), episode.query.x, episode.context
        )

    def asked(self, state: State, episode: Episode, *, at_once: int) -> Tensor:
        """Mean negative log-likelihood of the queries from a state, its gradient made of so many at a time."""
        _, query, context = episode
        if query.mask.shape[1] <= at_once:
            return self.likelihood.nll(self.predict(state, query.x, context), query, context)

        def loss(part: Examples, share: Tensor, *values: Tensor) -> Tensor:
            left = iter(values)
            same = tree_map(lambda _: next(left), state)
            nll = self.likelihood.task_nll(self.predict(same, part.x, context), part, context)
            return (nll * share.to(nll.dtype)).mean()

        parts = [partial(loss, *part) for part in in_parts(query, at_once)]
        return summed(
            parts, [each for each in self.parameters() if each.requires_grad], leaves(state)
        )

    def query_loss(self, episode: Episode) -> Tensor:
        """Mean negative log-likelihood of the queries after adapting to the support."""
        return self.likelihood.nll(self.outputs(episode), episode.query, episode.context)

    def outer_loss(self, episode: Episode) -> Tensor:
        """What training descends, a mean over tasks: :meth:`query_loss`, unless a method wants another gradient."""
        return self.query_loss(episode)

    def meta_loss(self, batch: Episode | Stream, *, horizon: int = 0) -> Tensor:
        """The outer objective, made of as many tasks, or streams, at a time as :meth:`together` says.

        Args:
            batch: tasks, each descending :meth:`outer_loss`; or streams, each
                :func:`quickstudy.learners.streams.stream_loss`.
            horizon: of streams, tasks through which the gradient goes back; 0 for all.

        Raises:
            EpisodeError: labels are of another kind than the likelihood is of.
        """
        for episode in positions(batch):
            self.likelihood.check(episode.support)
            self.likelihood.check(episode.query)

        def loss(part: Episode | Stream) -> Tensor:
            if isinstance(part, Episode):
                return self.outer_loss(part)
            return stream_loss(self, part, horizon=horizon)

        weights = [value for value in self.parameters() if value.requires_grad]
        return added_up(loss, batch, weights, tasks_at_once=self.together(positions(batch)[0]))

    def forward(self, batch: Episode | Stream, *, horizon: int = 0) -> Tensor:
        """The whole meta-step in one call, so that the hooks of data-parallel wrappers see it."""
        return self.meta_loss(batch, horizon=horizon)
