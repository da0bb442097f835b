"""Tasks some of whose queries are of no class of theirs, and what a learner says of them.

Tasks are drawn with more classes than they will have; the support of those beyond is taken away and their queries are
asked all the same. Where a data set brings examples of no class, tasks are asked about those instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.features import with_features
from quickstudy.data.source import DataError, Pool, PoolSource, Split, TaskSource
from quickstudy.episode import (
    Episode,
    Examples,
    Inputs,
    concatenate,
    labelled,
    leaves,
    tree_map,
)
from quickstudy.evaluation.contest import Contest, vectors_of
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Categorical
from quickstudy.rejection import SCORES, Embedded, ScoreName, output_scores

LEFT_OUT = 5
"""Most classes of a task that are asked for and not learned."""
STRANGERS = 256
"""Most examples of no class that a task is asked about, where a data set brings such."""


def leave_out(episode: Episode, classes: int) -> tuple[Episode, Tensor]:
    """Take the support of each task's last classes away.

    Args:
        episode: of tasks that tell classes apart, which are numbered in random order.
        classes: how many of each task.

    Returns:
        The episode, in which those classes do not exist, and bool (task, query): which queries are of a class that
        does. The labels of the others are meaningless.

    >>> from quickstudy.episode import Task, collate
    >>> x, y = torch.zeros(3, 1), torch.arange(3)
    >>> left, known = leave_out(collate([Task(x, y, x, y, way=3)]), 1)
    >>> left.support.mask.tolist(), left.context.classes.tolist(), known.tolist()
    ([[True, True, False]], [[True, True]], [[True, True, False]])
    """
    ways = episode.context.classes.sum(1) - classes
    most = int(ways.max())

    def within(examples: Examples) -> Tensor:
        return examples.mask & (examples.y < ways[:, None])

    context = episode.context
    exists = torch.arange(most, device=ways.device) < ways[:, None]
    kept, known = within(episode.support), within(episode.query)
    # A label beyond the classes that exist would be out of range.
    support = episode.support._replace(y=torch.where(kept, episode.support.y, 0), mask=kept)
    query = episode.query._replace(y=torch.where(known, episode.query.y, 0))
    names = context.names[:, :most]
    return Episode(support, query, context._replace(classes=exists, names=names)), known


def and_strangers(episode: Episode, strangers: Inputs, first: int) -> tuple[Episode, Tensor]:
    """Ask each task about examples of no class as well, at most :data:`STRANGERS`.

    They are dealt: none comes again before all have come.

    Args:
        episode: of tasks that tell classes apart.
        strangers: examples of no class, (example, …).
        first: number of the episode's first task; those before it were dealt theirs.

    Returns:
        The episode, with these behind its queries, and bool (task, query): which queries are of a class.

    >>> from quickstudy.episode import Task, collate
    >>> x, y = torch.zeros(2, 1), torch.arange(2)
    >>> asked, known = and_strangers(collate([Task(x, y, x, y, way=2)]), torch.ones(1, 1), 0)
    >>> asked.query.x.flatten().tolist(), known.tolist()
    ([0.0, 0.0, 1.0], [[True, True, False]])
    """
    tasks, count = len(episode.query.mask), len(leaves(strangers)[0])
    each = min(STRANGERS, count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    dealt = torch.arange(first * each, (first + tasks) * each).view(tasks, each) % count
    rows = order[dealt]
    x = tree_map(lambda leaf, like: leaf[rows].to(like.device), strangers, episode.query.x)
    of_none = Examples(
        x, episode.query.y.new_zeros(tasks, each), episode.query.mask.new_ones(tasks, each)
    )
    known = torch.cat([episode.query.mask, ~of_none.mask], 1)
    return episode._replace(query=concatenate(episode.query, of_none)), known


def strangers_of(
    source: PoolSource, split: Split, learner: Learner, *, encoded: bool, device: torch.device | str
) -> Inputs | None:
    """Examples of no class (example, …) that a data set brings, as its tasks hold examples; None where it has none.

    Args:
        source: the data set.
        split: of it.
        learner: whose encoder reads them.
        encoded: whether tasks hold what the encoder makes of examples.
        device: where to compute.
    """
    source = with_features(source, learner.encoder)  # type: ignore[assignment]
    found = source.strangers(split)
    return found if found is None or not encoded else vectors_of(found, learner.encoder, device)


@dataclass
class Asked:
    """What a learner said of the queries of many tasks."""

    scores: dict[ScoreName, Tensor]
    """Of each score, (task, query)"""
    known: Tensor
    """bool (task, query), which are of a class of their task."""
    right: Tensor
    """bool (task, query), which are answered rightly, were none refused."""
    asked: Tensor
    """bool (task, query), False for padding."""
    variances: Tensor
    """Within classes, of each feature of an embedding, (width,)"""
    out_of_scope: bool = False
    """Whether the others are examples of no class that the data set brings, and not of classes left out."""


def ask(
    learner: Learner,
    source: TaskSource,
    *,
    split: Split,
    design: EpisodeDesign,
    episodes: int,
    seed: int = 0,
    variances: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Asked:
    """Ask a learner for classes that it has seen examples of, and for others.

    Args:
        learner: of classes.
        source: where tasks are drawn from.
        split: of the source.
        design: of the tasks as the learner meets them; as many classes again, at most :data:`LEFT_OUT` and as many as
            there are, are asked for beside these, or examples of no class that the data set brings, at most
            :data:`STRANGERS` in a task. Examples without a label are of the classes left out too, as a user's are.
        episodes: how many tasks.
        seed: with the split, decides which tasks.
        variances: within training classes; by default those within the classes of these tasks.
        device: where to compute.

    Raises:
        DataError: the split has no class beside those of a task, or cannot fill the design; the learner predicts
            numbers.
    """
    if not isinstance(learner.likelihood, Categorical) or not isinstance(source, PoolSource):
        raise DataError(
            "Only a learner of classes can say that a query is of none; this one, or this source, is of numbers, or of "
            "many labels for an example, which may have none."
        )
    source.prepare(learner.encoder)
    contest = Contest(source, split=split, seed=seed, device=device)
    contest.enter("learner", learner)
    # Tasks of the entered learner hold embeddings; one that adapts its encoder reads the examples themselves.
    reader = contest.contestants["learner"].module
    assert isinstance(reader, Learner)
    strangers = strangers_of(source, split, learner, encoded=reader is not learner, device=device)
    beside = 0 if strangers is not None else _left_out(source.pool(split), split, design)
    low, way = span(design.way)
    wider = replace(design, way=(low + beside, way + beside))
    parts: dict[str, list[Tensor]] = {name: [] for name in ("known", "right", "asked", *SCORES)}
    spread, free, embedded, first = torch.zeros(()), torch.zeros(()), [], 0
    for each in contest.rounds(wider, episodes):
        contestant, drawn = each["learner"]
        if strangers is None:
            episode, known = leave_out(drawn, beside)
        else:
            episode, known = and_strangers(drawn, strangers, first)
            first += len(known)
        outputs = contestant.answer(episode)
        chosen = Categorical.mask(outputs, episode.context).argmax(-1)
        way = episode.context.classes.shape[1]
        told = labelled(episode.support)
        learned = Embedded.of(reader.encode(told.x), told, way)
        queries = reader.encode(episode.query.x)
        embedded.append((learned, queries))
        within, number = Embedded.of(queries, episode.query._replace(mask=known), way).within()
        spread, free = spread + within.sum(0).cpu(), free + number.sum().cpu()
        right = known & (chosen == episode.query.y)
        found: dict[str, Tensor] = {"known": known, "right": right, "asked": episode.query.mask}
        for name, value in (found | {**output_scores(outputs, episode.context)}).items():
            parts[name].append(value.cpu())
    if variances is None:
        # With one query of each class there is nothing to see of their spread; every feature counts alike.
        variances = spread / free if free > 0 else torch.ones_like(spread)
    parts["mahalanobis"] = [
        learned.distances(queries, variances.to(queries.device)).cpu()
        for learned, queries in embedded
    ]
    whole = {name: torch.cat(each) for name, each in parts.items()}
    scores = {name: whole[name] for name in SCORES}
    return Asked(
        scores, whole["known"], whole["right"], whole["asked"], variances, strangers is not None
    )


def _left_out(pool: Pool, split: Split, design: EpisodeDesign) -> int:
    """How many classes beside those of a task are asked for.

    Raises:
        DataError: there is none.
    """
    way = span(design.way)[1]
    need = span(design.shot)[1] + design.queries
    enough = pool.enough(span(design.shot)[1], design.queries)
    available = int(enough.sum())
    if design.within_group and available:
        available = int(pool.groups[enough].bincount().max())
    beside = min(LEFT_OUT, way, available - way)
    if beside < 1:
        where = " in its largest group" if design.within_group else ""
        raise DataError(
            f"Tasks of {way} classes leave no class out: the {split} split has {available} with {need} examples or "
            f"more{where}, and at least {way + 1} are needed. Choose a smaller way, or add classes."
        )
    return beside
