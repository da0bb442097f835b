"""One task of a world as it was answered: a function, what was known of it, and what the learner makes of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.draw import Episodes
from quickstudy.data.known import DensityWorld
from quickstudy.data.source import Split, World
from quickstudy.evaluation import answer_batch, answering
from quickstudy.evaluation.attention import answer_with_attention
from quickstudy.evaluation.measures import Z
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Gaussian, JointGaussian, predicted_values
from quickstudy.report import figures, words

QUERIES = 200
"""Queries of the drawn task: enough for a smooth line."""


class Band(NamedTuple):
    """Answers with the ends of their 95 % intervals, each (query,)."""

    mean: Tensor
    low: Tensor
    high: Tensor


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
    sure: Tensor | None = None
    """(query,), how far the 95 % intervals of the answers after adaptation reach, of a learner that has some."""
    exact: Band | None = None
    """What one who knows the world says, where the learner has intervals to compare."""
    attention: Tensor | None = None
    """(query, example), how queries share their attention, of a learner whose queries attend."""

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
        design: of the task; of a range of shots the largest is taken, and of a learner that says how sure it is, which
            then would leave nothing open, the middle of their logarithms.
    """
    likelihood = learner.likelihood
    fewest, most = span(design.shot)
    if isinstance(likelihood, Gaussian | JointGaussian):
        most = round(math.sqrt(fewest * most))
    whole = EpisodeDesign(design.way, most, QUERIES)
    episode = Episodes(world, split, whole, seed=seed)[0].to(device)
    with answering(learner, device):
        before = answer_batch(learner, episode, adapted=False)
        outputs, attention = answer_with_attention(learner, episode)
    order = episode.query.x[0, :, 0].argsort()

    def in_order(values: Tensor) -> Tensor:
        return values[0, order.to(values.device), 0].cpu()

    sure, exact = None, None
    if isinstance(likelihood, Gaussian | JointGaussian):
        sure = Z * in_order(likelihood.distribution(outputs)[1])
        known = world.exact(episode.to("cpu"))
        if isinstance(world, DensityWorld):
            low, high = world.exact_interval(episode.to("cpu"))
        else:
            low, high = (known.mean + sign * Z * known.deviation for sign in (-1, 1))
        exact = Band(in_order(known.mean), in_order(low), in_order(high))
    return DrawnFunction(
        support=(episode.support.x[0].cpu(), episode.support.y[0, :, 0].cpu()),
        queries=episode.query.x[0, order].cpu(),
        truth=in_order(episode.query.y),
        before=in_order(predicted_values(likelihood, before)),
        after=in_order(predicted_values(likelihood, outputs)),
        sure=sure,
        exact=exact,
        attention=None if attention is None else attention[0, order].cpu(),
    )


def drawn_function(drawn: DrawnFunction, seed: int) -> str:
    """A card with one task: a curve over one input, else answers against the truth."""
    curve = drawn.queries.shape[1] == 1
    chart = figures.function_chart(drawn) if curve else figures.agreement_chart(drawn)
    known = f"{len(drawn.truth)} questions after {words.plural(len(drawn.support[1]), 'example', 'examples')}"
    if curve and drawn.exact is not None:
        bands = " Tinted is where 95 % of the values lie, says the model; between the thin lines, says who knows."
    else:
        bands = ""
    which = f"The first task of seed {seed}; it was not chosen. Beside the names, mean squared errors over {known}."
    what = (
        "The dots are what the model was given to learn from, the dashed line is the truth."
        if curve
        else "Each dot is a question: the true value to the right, the answer upwards; on the dashed line both agree."
    )
    answers = [("learner", "accent", drawn.after), ("before_adaptation", "series-2", drawn.before)]
    if drawn.exact is not None:
        answers.append(("exact", "series-1", drawn.exact.mean))
    legend = "".join(
        f'<li style="--swatch:var(--{colour})">{words.method(name)}: {drawn.error(each):.3g}</li>'
        for name, colour, each in answers
    )
    return (
        f'<figure class="card"><h3>One task, as it was answered</h3><figcaption>{which} {what}{bands}</figcaption>'
        f'{chart}<ul class="legend">{legend}</ul></figure>'
    )


def likelihoods_by_shot(by_shot: figures.ByShot, tasks: int) -> str:
    """A card with the chart of log-likelihoods over shots; empty where the model says no densities."""
    rows = next(iter(by_shot.values()))
    names = [name for name in ("learner", "exact") if "log_likelihood" in rows.get(name, {})]
    if "learner" not in names:
        return ""
    known = " Nobody can be above who knows the world." if "exact" in names else ""
    caption = (
        f"Log-likelihood in nats for each question, on {tasks} tasks for each number of examples; bars are 95 % "
        f"intervals over tasks.{known}"
    )
    legend = "".join(
        f'<li style="--swatch:var(--{figures.series(i)})">{words.method(name)}</li>'
        for i, name in enumerate(names)
    )
    return (
        f'<figure class="card"><h3>How well it knows what it knows</h3><figcaption>{caption}</figcaption>'
        f'{figures.likelihood_chart(by_shot, names)}<ul class="legend">{legend}</ul></figure>'
    )
