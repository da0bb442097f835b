"""One task of a world as it was answered: a function, what was known of it, and what the learner makes of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Split, World
from quickstudy.evaluation import answer_batch, answering
from quickstudy.learners.base import Learner
from quickstudy.likelihood import predicted_values
from quickstudy.report import figures, words

QUERIES = 200
"""Queries of the drawn task: enough for a smooth line."""


class DrawnFunction(NamedTuple):
    """One task of a world and what was said of it; of several values the first."""

    support: tuple[Tensor, Tensor]
    """x (example, inputs) and y (example,)."""
    queries: Tensor
    """(query, inputs), in ascending order of the first number."""
    truth: Tensor
    """(query,)"""
    before: Tensor
    """(query,), answers before adaptation."""
    after: Tensor
    """(query,)"""

    def error(self, answers: Tensor) -> float:
        """Mean squared error of some answers."""
        return float((answers - self.truth).square().mean())


def draw_function(
    learner: Learner,
    world: World,
    design: EpisodeDesign,
    *,
    split: Split = "test",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> DrawnFunction:
    """The first task of a seed, asked in many places, as the learner answers it before and after adaptation.

    Args:
        design: of the task; of a range of shots the largest is taken.
    """
    whole = EpisodeDesign(design.way, span(design.shot)[1], QUERIES)
    episode = Episodes(world, split, whole, seed=seed)[0].to(device)
    with answering(learner, device):
        before, after = (
            predicted_values(learner.likelihood, answer_batch(learner, episode, adapted=adapted))
            for adapted in (False, True)
        )
    order = episode.query.x[0, :, 0].argsort()
    return DrawnFunction(
        support=(episode.support.x[0].cpu(), episode.support.y[0, :, 0].cpu()),
        queries=episode.query.x[0, order].cpu(),
        truth=episode.query.y[0, order, 0].cpu(),
        before=before[0, order, 0].cpu(),
        after=after[0, order, 0].cpu(),
    )


def drawn_function(drawn: DrawnFunction, seed: int) -> str:
    """A card with one task: a curve over one input, else answers against the truth."""
    curve = drawn.queries.shape[1] == 1
    chart = figures.function_chart(drawn) if curve else figures.agreement_chart(drawn)
    known = f"{len(drawn.truth)} questions after {words.plural(len(drawn.support[1]), 'example', 'examples')}"
    which = f"The first task of seed {seed}; it was not chosen. Beside the names, mean squared errors over {known}."
    what = (
        "The dots are what the model was given to learn from, the dashed line is the truth."
        if curve
        else "Each dot is a question: the true value to the right, the answer upwards; on the dashed line both agree."
    )
    legend = "".join(
        f'<li style="--swatch:var(--{colour})">{words.method(name)}: {drawn.error(answers):.3g}</li>'
        for name, colour, answers in (
            ("learner", "accent", drawn.after),
            ("before_adaptation", "series-2", drawn.before),
        )
    )
    return (
        f'<figure class="card"><h3>One task, as it was answered</h3><figcaption>{which} {what}</figcaption>{chart}'
        f'<ul class="legend">{legend}</ul></figure>'
    )
