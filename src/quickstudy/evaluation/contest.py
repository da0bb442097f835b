"""Several learners on the same tasks; every example passes through every encoder once, however many tasks it is in.

Task i of a seed is the same whatever the number of tasks, the learner or the memory at hand, so differences are paired.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.data.calling import Tokenizes
from quickstudy.data.design import EpisodeDesign, check_design, fixed_tasks, span
from quickstudy.data.draw import Episodes
from quickstudy.data.features import with_features
from quickstudy.data.known import ClassWorld
from quickstudy.data.mixture import Mixture
from quickstudy.data.source import Pool, PoolSource, Split, TaskSource
from quickstudy.episode import (
    WORD_PADDING,
    Episode,
    Examples,
    Inputs,
    labelled,
    leaves,
    take_tasks,
    tree_map,
    without_support,
)
from quickstudy.evaluation.measures import Measures, joined, measured
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Likelihood, SquaredError
from quickstudy.nn.encoders import Encoder, RawEncoder, encode
from quickstudy.nn.words import present

TASKS_AT_ONCE = 16
"""Most tasks that are scored in one piece."""
BYTES_AT_ONCE = 64_000_000
"""Most bytes of examples in one piece; fewer tasks go together when they are large."""
EXAMPLES_AT_ONCE = 512
"""Examples that pass through an encoder in one piece."""

Progress = Callable[[int, int], None]
"""Called with the number of tasks scored so far and of all tasks."""


@contextmanager
def answering(module: nn.Module, device: torch.device | str = "cpu") -> Iterator[None]:
    """Keep a learner or an encoder on ``device``, in evaluation mode and without gradients; its modes are put back."""
    modes = [(each, each.training) for each in module.modules()]
    module.to(device).eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for each, mode in modes:
            each.training = mode


def learned_from(learner: Learner, episode: Episode) -> Examples:
    """The support as a learner may see it: without the examples that have no label, if it does not learn from such."""
    return episode.support if learner.semi_supervised else labelled(episode.support)


def answer_batch(
    learner: Learner, episode: Episode, *, adapted: bool = True, unlabelled: bool = True
) -> Tensor:
    """Outputs (task, query, …) for the queries of an episode, after adapting to its support or before.

    Before adapting, nothing is known of a task but how many classes it has: neither support nor names nor description.
    ``unlabelled``: examples without a label are learned from, too, by who can.
    """
    learner.likelihood.check(episode.query)
    support, context = learned_from(learner, episode), episode.context
    if not unlabelled:
        support = labelled(support)
    if not adapted:
        support = without_support(support)
        context = context._replace(
            names=context.names[..., :0],
            description=tree_map(lambda said: said[..., :0], context.description),
        )
    state = learner.adapt(support, context)
    return learner.predict(state, episode.query.x, context)


def score_tasks(
    learner: Learner,
    batches: Iterable[Episode],
    *,
    adapted: bool = True,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The metric of each task, (task,).

    Args:
        learner: what is scored; its outputs are judged by its own likelihood.
        batches: batches of tasks.
        adapted: whether the learner sees the support sets.
        device: where to compute.
    """
    with answering(learner, device):
        return torch.cat(
            [
                learner.likelihood.task_score(
                    answer_batch(learner, batch, adapted=adapted).double(),
                    batch.query,
                    batch.context,
                ).cpu()
                for batch in (batch.to(device) for batch in batches)
            ]
        )


def is_inductive(learner: Learner, episode: Episode, *, device: torch.device | str = "cpu") -> bool:
    """Whether the answer to a query stays the same when all other queries are exchanged.

    The first and the last query of each task are asked twice, once among their own companions and once among others;
    a learner that lets queries inform one another (by batch statistics, for one) answers differently.
    """
    with answering(learner, device):
        episode = episode.to(device)
        state = learner.adapt(learned_from(learner, episode), episode.context)
        before = learner.predict(state, episode.query.x, episode.context)
        for kept in (0, -1):

            def exchange(x: Tensor, kept: int = kept) -> Tensor:
                other = x.roll(1, dims=1)
                other[:, kept] = x[:, kept]
                return other

            x = tree_map(exchange, episode.query.x)
            after = learner.predict(state, x, episode.context)
            if not torch.allclose(before[:, kept], after[:, kept], rtol=1e-4, atol=1e-5):
                return False
    return True


def vectors_of(x: Inputs, encoder: Encoder, device: torch.device | str) -> Tensor:
    """What an encoder makes of examples (example, …), (example, width), computed on ``device`` and kept on the CPU.

    They pass through it :data:`EXAMPLES_AT_ONCE` at a time.
    """
    count = len(leaves(x)[0])
    pieces = (slice(at, at + EXAMPLES_AT_ONCE) for at in range(0, max(count, 1), EXAMPLES_AT_ONCE))
    with answering(encoder, device):
        found = [
            encode(encoder, tree_map(lambda tensor: tensor.to(device)[None], take_tasks(x, piece)))
            for piece in pieces
        ]
    return torch.cat([each[0].cpu() for each in found])


def encoded_names(names: Tensor, encoder: Encoder, device: torch.device | str) -> Tensor:
    """What an encoder that reads names makes of those of some classes, (class, width), padding of one without a name.

    Where no class has a name, that is what comes back.
    """
    if not names.shape[1]:
        return names
    vectors = vectors_of(names, encoder, device)
    return vectors.masked_fill(~present(names)[:, None], WORD_PADDING)


class FixedPool(PoolSource):
    """A source of one split that is at hand already."""

    kind = "vector"

    def __init__(self, pool: Pool) -> None:
        self.fixed = pool

    def pool(self, split: Split) -> Pool:
        return self.fixed


class EncodedPool(FixedPool):
    """A pool whose examples are what an encoder makes of another pool's, each encoded when it is first required.

    Args:
        pool: the other.
        encoder: of its examples.
        device: where to compute.
        names: the encoder reads the names of classes too, and what it makes of them takes their place.
    """

    def __init__(
        self, pool: Pool, encoder: Encoder, device: torch.device | str, *, names: bool = False
    ) -> None:
        self.raw, self.encoder, self.device = pool.x, encoder, device
        example = self.encoded(torch.zeros(1, dtype=torch.int64))
        count = pool.examples
        self.known = torch.zeros(count, dtype=torch.bool)
        x = torch.zeros(count, encoder.width, dtype=example.dtype)
        called = encoded_names(pool.names, encoder, device) if names else pool.names
        super().__init__(dataclasses.replace(pool, x=x, names=called))

    def encoded(self, rows: Tensor) -> Tensor:
        """Vectors (row, width) of some rows."""
        return vectors_of(take_tasks(self.raw, rows), self.encoder, self.device)

    def require(self, rows: Tensor) -> None:
        """Make sure that these rows of the pool can be read."""
        missing = rows[~self.known[rows]].unique()
        for piece in missing.split(EXAMPLES_AT_ONCE):
            self.fixed.x[piece] = self.encoded(piece)
        self.known[missing] = True


class BagOfTokens(Encoder):
    """How often each token of a vocabulary occurs in a text.

    >>> BagOfTokens(torch.tensor([4, 7]))(torch.tensor([[7, 7, 4, -1], [9, 7, -1, -1]])).tolist()
    [[1.0, 2.0], [0.0, 1.0]]
    """

    def __init__(self, vocabulary: Tensor) -> None:
        super().__init__()
        self.width = len(vocabulary)
        self.register_buffer("vocabulary", vocabulary.sort().values, persistent=False)

    def forward(self, x: Inputs) -> Tensor:
        vocabulary: Tensor = self.get_buffer("vocabulary")
        place = torch.searchsorted(vocabulary, x).clamp(max=self.width - 1)
        counts = x.new_zeros(len(x), self.width, dtype=torch.get_default_dtype())
        return counts.scatter_add_(1, place, (vocabulary[place] == x).to(counts.dtype))


Answer = Callable[[Episode], Any]
"""Outputs (task, query, …) for the queries of an episode; an :class:`quickstudy.data.exact.Exact` of who knows them."""


class Contestant(NamedTuple):
    """One way of answering."""

    answer: Answer
    likelihood: Likelihood
    """What its outputs mean."""
    source: TaskSource
    """The tasks, in the form that it reads."""
    module: nn.Module
    """What must be in evaluation mode."""
    bare: bool = False
    """It can answer without examples: it reads the names of the classes, and they have names; or it predicts values."""


def learns_from_features(learner: Learner) -> bool:
    """Whether a learner answers the same when its encoder has read every example once, beforehand."""
    # An encoder of tables makes no vector of a row by itself.
    fixed = learner.fixed_encoding and not learner.inner_loop and learner.encoder.width > 0
    # Who reads names otherwise than the encoder of the examples does needs them as they are.
    reads_otherwise = bool(getattr(learner, "names", False)) and not isinstance(
        learner.encoder, Tokenizes
    )
    return fixed and not reads_otherwise


def on_features(learner: Learner, width: int) -> Learner:
    """The same learner, sharing its parameters, for examples that its encoder has encoded already."""
    shallow = copy.copy(learner)
    shallow._modules = {**learner._modules, "encoder": RawEncoder(width)}
    return shallow


class Contest:
    """Several ways of answering, on the same tasks of one split.

    Args:
        source: where tasks are drawn from, without augmentation.
        split: of the source.
        seed: with the split, decides which tasks are drawn.
        device: where to compute.
    """

    def __init__(
        self, source: TaskSource, *, split: Split, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.source, self.split, self.seed, self.device = source, split, seed, device
        self.contestants: dict[str, Contestant] = {}
        self.ablations: list[str] = []
        """Which contestants are the learner without one of its parts."""

    def read_by(self, encoder: Encoder) -> TaskSource:
        """The tasks, in the form that this encoder reads."""
        self.source.prepare(encoder)
        return self._of_split(self.source)

    def fed_to(self, encoder: Encoder) -> TaskSource:
        """The tasks as training feeds them to this encoder: a frozen one has encoded each example once."""
        return self._of_split(with_features(self.source, encoder))

    def _of_split(self, source: TaskSource) -> TaskSource:
        """The tasks of the split, which stay as they are when the source is prepared for another encoder."""
        if isinstance(source, Mixture):
            return source.of(self._of_split)
        return FixedPool(source.pool(self.split)) if isinstance(source, PoolSource) else source

    def encoded(self, encoder: Encoder, *, names: bool = False) -> EncodedPool | None:
        """The examples as this encoder sees them, a frozen one has seen them before; None where no example recurs.

        Args:
            encoder: that reads them.
            names: it reads the names of the classes as well.
        """
        source = with_features(self.source, encoder)
        if not isinstance(source, PoolSource):
            return None
        return EncodedPool(source.pool(self.split), encoder, self.device, names=names)

    def enter(
        self,
        name: str,
        learner: Learner,
        source: TaskSource | None = None,
        *,
        unadapted: str | None = None,
        without_unlabelled: str | None = None,
    ) -> None:
        """Add a learner.

        Args:
            name: what to call it.
            learner: that answers.
            source: where its inputs come from; by default its own encoder decides.
            unadapted: what to call the same learner as it answers without having seen the support.
            without_unlabelled: what to call the same learner as it answers without those examples that have no label.
        """
        reads = bool(getattr(learner, "names", False))
        if source is None and learns_from_features(learner):
            source = self.encoded(learner.encoder, names=reads)
            if source is not None:
                learner = on_features(learner, learner.encoder.width)
        if source is None:
            source = self.fed_to(learner.encoder)
        answer = partial(answer_batch, learner)
        bare = learner.likelihood.of_values
        if reads and isinstance(source, PoolSource):
            bare = source.pool(self.split).names.shape[1] > 0
        entered = Contestant(answer, learner.likelihood, source, learner, bare)
        self.contestants[name] = entered
        if unadapted is not None:
            before = partial(answer_batch, learner, adapted=False)
            self.contestants[unadapted] = entered._replace(answer=before)
        if without_unlabelled is not None:
            less = partial(answer_batch, learner, unlabelled=False)
            self.contestants[without_unlabelled] = entered._replace(answer=less)
            self.ablations.append(without_unlabelled)

    def enter_rule(self, name: str, rule: Answer, *, bare: bool = False) -> None:
        """Add a rule that says a value for each query of an episode, or knows their distribution.

        Args:
            name: what to call it.
            rule: that answers.
            bare: whether it can answer without examples.
        """
        module = nn.Identity()
        self.contestants[name] = Contestant(rule, SquaredError(), self.source, module, bare)

    def available(self, design: EpisodeDesign, episodes: int) -> int:
        """So many tasks, or all there are where the data set comes with its tasks."""
        check_design(self.source, self.split, design)
        most = fixed_tasks(self.source, self.split, design)
        return episodes if most is None else min(episodes, most)

    def rounds(
        self, design: EpisodeDesign, episodes: int
    ) -> Iterator[dict[str, tuple[Contestant, Episode]]]:
        """The tasks, some at a time, as each contestant reads them; without examples, those who can do without.

        Of a data set that comes with its tasks there are no more than it has.

        Raises:
            DataError: the split cannot fill the design.
        """
        episodes = self.available(design, episodes)
        none = span(design.shot)[1] == 0
        taking_part = {name: c for name, c in self.contestants.items() if c.bare or not none}
        sources = {id(each.source): each.source for each in taking_part.values()}
        draws = {
            key: Episodes(source, self.split, design, length=episodes, seed=self.seed)
            for key, source in sources.items()
        }
        size = max(
            sum(t.nbytes for t in leaves((draw[0].support.x, draw[0].query.x)))
            for draw in draws.values()
        )
        step = min(TASKS_AT_ONCE, max(1, BYTES_AT_ONCE // size))
        with ExitStack() as stack:
            for each in taking_part.values():
                stack.enter_context(answering(each.module, self.device))
            for start in range(0, episodes, step):
                which = range(start, min(start + step, episodes))
                batches = {}
                for key, draw in draws.items():
                    source = sources[key]
                    if isinstance(source, EncodedPool):
                        source.require(torch.cat([draw.drawn(i).rows() for i in which]))
                    batch = tree_map(lambda *parts: torch.cat(parts), *(draw[i] for i in which))
                    batches[key] = batch.to(self.device)
                yield {name: (each, batches[id(each.source)]) for name, each in taking_part.items()}

    def measures(
        self, design: EpisodeDesign, episodes: int, progress: Progress | None = None
    ) -> dict[str, Measures]:
        """All that is measured of each task, by contestant and name, each (task,)."""
        found: dict[str, list[Measures]] = {name: [] for name in self.contestants}
        known, done = isinstance(self.source, ClassWorld), 0
        episodes = self.available(design, episodes)
        for each in self.rounds(design, episodes):
            for name, (contestant, batch) in each.items():
                answer = contestant.answer(batch)
                found[name].append(measured(answer, contestant.likelihood, batch, of_classes=known))
            done += batch.tasks
            if progress is not None:
                progress(done, episodes)
        return {name: joined(parts) for name, parts in found.items() if parts}

    def scores(
        self, design: EpisodeDesign, episodes: int, progress: Progress | None = None
    ) -> dict[str, Tensor]:
        """The metric of each task, (task,), of each contestant."""
        found = self.measures(design, episodes, progress)
        return {name: each["score"] for name, each in found.items()}
