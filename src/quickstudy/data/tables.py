"""Invented tables: endless small data sets of numbers and categories, to learn from how tables are."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from quickstudy.data import table_prior as prior
from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.source import Prior, Split
from quickstudy.data.synthetic import numbers_in_examples, split_up
from quickstudy.episode import Context, Episode, Examples

MECHANISMS = (4.0, 3.0, 3.0)
"""Shares of causal networks, of functions of correlated columns, and of clusters by class."""


class InventedTables(Prior):
    """Tables whose columns and classes, or values, come from a random mechanism.

    A task is dealt a random causal network with noise at every unit, a function (linear, of single columns, smooth,
    trees, products) of correlated columns, of which few or many matter, or clusters by class. Scores are cut into
    classes at random quantiles, or the highest of several wins, with noise; columns are observed skewed, in levels, as
    categories or with gaps (NaN). Classes are as frequent as it happens, and a query of a class that the support lacks
    does not count.

    Hollmann et al. 2023, TabPFN: A Transformer That Solves Small Tabular Classification Problems in a Second, section
    4. Differs from the paper: functions and clusters beside the networks.

    Args:
        columns: of a task at most; a task has its own number of them, and constant ones behind.
        fewest_columns: of a task.
        predicts: ``classes``, as many as the way of the tasks, or ``values``, one for each query.

    Raises:
        ValueError: the numbers of columns do not ascend from 1.

    >>> world, design = InventedTables(columns=4), EpisodeDesign(way=3, shot=20, queries=5)
    >>> episode = world.draw("test", design, tasks=2, generator=torch.Generator().manual_seed(0))
    >>> episode.support.x.shape, episode.query.y.shape
    (torch.Size([2, 20, 4]), torch.Size([2, 5]))
    """

    kind = "vector"

    def __init__(
        self,
        *,
        columns: int = 10,
        fewest_columns: int = 2,
        predicts: Literal["classes", "values"] = "classes",
    ) -> None:
        if not 1 <= fewest_columns <= columns:
            raise ValueError(
                f"The numbers of columns must ascend from at least 1; found {fewest_columns} to {columns}."
            )
        self.inputs, self.fewest = columns, fewest_columns
        self.values = 1 if predicts == "values" else 0

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        rows, way = numbers_in_examples(design), span(design.way)[1]
        x, scores, dealt = self._mechanisms(tasks, rows, way, generator)
        if self.values:
            y = prior.values_of(scores, generator)
            return split_up(self._seen(x, generator), y, design, generator)
        ways = torch.randint(span(design.way)[0], way + 1, (tasks,), generator=generator)
        y = prior.classes_of(scores, ways, generator)
        clustered, theirs = prior.clusters(rows, self.inputs, ways, generator)
        x = torch.where((dealt == 2)[:, None, None], clustered, x)
        y = torch.where((dealt == 2)[:, None], theirs, y)
        wrong = 0.15 * torch.rand(tasks, 1, generator=generator) ** 2
        wrong = wrong * (torch.rand(tasks, 1, generator=generator) < 0.3)
        anything = (torch.rand(tasks, rows, generator=generator) * ways[:, None]).long()
        y = torch.where(torch.rand(tasks, rows, generator=generator) < wrong, anything, y)
        return _told_apart(split_up(self._seen(x, generator), y[..., None], design, generator), way)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "invented tables",
            "licence": "none needed",
            "tasks": "endless",
            "columns": [self.fewest, self.inputs],
        }

    def _mechanisms(
        self, tasks: int, rows: int, way: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Columns, scores (task, row, way or 1), and which mechanism each task was dealt."""
        count = max(1, way)
        shares = list(MECHANISMS[:2] if self.values else MECHANISMS)
        dealt = prior.choose(shares, (tasks,), generator)
        x, scores = prior.network(tasks, rows, self.inputs, count, generator)
        free = prior.correlated(tasks, rows, self.inputs, generator)
        other = prior.functions(free, count, generator)
        function = (dealt == 1)[:, None, None]
        return torch.where(function, free, x), torch.where(function, other, scores), dealt

    def _seen(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What is observed of the columns; those beyond a task's number are constant."""
        tasks, _, columns = x.shape
        x = prior.observed(x, generator)
        if self.fewest == columns:
            return x
        count = torch.randint(self.fewest, columns + 1, (tasks, 1, 1), generator=generator)
        return torch.where(torch.arange(columns) < count, x, 0)


def _told_apart(episode: Episode, way: int) -> Episode:
    """The same tasks with classes in place of values; what the support lacks is no class and no query."""
    support, query, context = episode
    y, asked = support.y[..., 0].long(), query.y[..., 0].long()
    member = torch.nn.functional.one_hot(y, way).bool() & support.mask[..., None]
    exists = member.any(1)
    return Episode(
        support=Examples(support.x, y, support.mask),
        query=Examples(query.x, asked, query.mask & exists.gather(1, asked)),
        context=Context(
            exists, context.description, torch.zeros(len(y), way, 0, dtype=torch.int64)
        ),
    )
