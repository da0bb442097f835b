"""MAML++: what changes while training goes on, against plain loops of autograd."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from learner_table import shaken, vector_encoder
from quickstudy.episode import Episode, Examples, Task, collate, take_tasks
from quickstudy.learners.gradient import MAML

close = torch.testing.assert_close


def vector_episode() -> Episode:
    def task(way: int, shot: int, queries: int) -> Task:
        labels = torch.arange(way).repeat_interleave(shot)
        x, asked = (torch.randn(n, 6, dtype=torch.float64) for n in (len(labels), queries))
        return Task(x, labels, asked, torch.randint(way, (queries,)), way)

    return collate([task(3, 3, 5), task(2, 2, 4)])


def plain_loss(learner: MAML, episode: Episode, counts: list[float], *, first: bool) -> Tensor:
    """The queries after each step, weighed, by a loop over tasks and steps."""
    fast, losses = learner.fast, []
    for index in range(episode.tasks):
        one = take_tasks(episode, slice(index, index + 1))
        weights = dict(learner.encoder.named_parameters())
        weights["head"] = torch.zeros(one.context.classes.shape[1], 9, dtype=torch.float64)
        weights["head"].requires_grad_()
        moving = [*fast.names, "head"]

        def loss(part: Examples, weights: dict[str, Tensor], one: Episode = one) -> Tensor:
            own = {name: value for name, value in weights.items() if name != "head"}
            features = torch.func.functional_call(learner.encoder, own, (part.x[0],))
            logits = nn.functional.pad(features, (0, 1), value=1.0) @ weights["head"].T
            return learner.likelihood.nll(logits[None], part, one.context)

        def rate(name: str, k: int) -> Tensor | float:
            if learner.sizes.kind == "fixed":
                return fast.sizes.rate
            learned = learner.sizes.learned
            if name != "head":
                return learned[f"encoder/{name}/rate".replace(".", "/")][k]
            parts = [learned[f"head/{part}/rate"][k] for part in ("weight", "bias")]
            return torch.cat([parts[0].expand(8), parts[1].expand(1)])

        for k, count in enumerate(counts):
            own = [weights[name] for name in moving]
            slopes = torch.autograd.grad(loss(one.support, weights), own, create_graph=not first)
            for name, slope in zip(moving, slopes, strict=True):
                weights[name] = weights[name] - rate(name, k) * slope
            if count:
                losses.append(count * loss(one.query, weights))
    return torch.stack(losses).sum() / episode.tasks


def same_gradients(learner: MAML, loss: Tensor, other: Tensor | tuple[Tensor, ...]) -> None:
    """Those of a loss, and those of another or that are known already."""
    weights = list(learner.parameters())
    own = torch.autograd.grad(loss, weights)
    known = torch.autograd.grad(other, weights) if isinstance(other, Tensor) else other
    assert all(slope.any() or slope.abs().max() < 1e-12 for slope in known)
    close(own, known, rtol=1e-9, atol=1e-12)


EASED = {
    0.0: (1 / 3, 1 / 3, 1 / 3),
    0.2: (0.2, 0.2, 0.6),
    0.5: (0.0, 0.0, 1.0),
    1.0: (0.0, 0.0, 1.0),
}
"""How far the training is, and what the queries of each step then count."""


def eased_maml(**options: object) -> tuple[MAML, Episode]:
    torch.manual_seed(0)
    learner = shaken(MAML(vector_encoder(), steps=3, rate=0.3, multi_step=0.5, **options))
    assert isinstance(learner, MAML)
    return learner, vector_episode()


@cache
def plain(
    adapt: str, rates: str, counts: tuple[float, ...], first: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss and meta-gradient of the plain loop, which knows of no strategy and no chunks."""
    learner, episode = eased_maml(adapt=adapt, rates=rates)
    loss = plain_loss(learner, episode, list(counts), first=first)
    return loss.detach(), torch.autograd.grad(loss, list(learner.parameters()))


@pytest.mark.parametrize("strategy", ["auto", "unroll", "sweep", "sqrt", "first"])
@pytest.mark.parametrize("adapt", ["all", "head"])
@pytest.mark.parametrize("rates", ["fixed", "step"])
@pytest.mark.parametrize("chunk", [0, 1])
def test_queries_of_every_step_count_as_a_plain_loop_weighs_them(
    strategy: str, adapt: str, rates: str, chunk: int
) -> None:
    learner, episode = eased_maml(strategy=strategy, adapt=adapt, rates=rates, tasks_at_once=chunk)
    for share, counts in EASED.items():
        learner.progress(share)
        assert learner.step_weights() == pytest.approx(counts)
        loss = learner(episode)
        expected, gradient = plain(adapt, rates, counts, strategy == "first")
        close(loss.detach(), expected, rtol=1e-12, atol=1e-12)
        same_gradients(learner, loss, gradient)


def test_gradients_are_of_first_order_at_the_beginning() -> None:
    learner = shaken(MAML(vector_encoder(), steps=3, rate=0.3, first_order=0.3))
    episode = vector_episode()
    for share, first in ((0.0, True), (0.29, True), (0.3, False), (1.0, False)):
        learner.progress(share)
        expected = plain_loss(learner, episode, [0.0, 0.0, 1.0], first=first)
        same_gradients(learner, learner(episode), expected)


def test_both_go_together() -> None:
    learner = shaken(MAML(vector_encoder(), steps=2, rate=0.3, multi_step=1.0, first_order=1.0))
    episode = vector_episode()
    learner.progress(0.5)
    expected = plain_loss(learner, episode, [0.25, 0.75], first=True)
    same_gradients(learner, learner(episode), expected)


def test_in_the_end_and_before_anybody_tells_it_is_plain_maml() -> None:
    encoder, episode = shaken(vector_encoder()), vector_episode()
    plain = MAML(encoder, steps=3, rate=0.3).double()
    eased = MAML(encoder, steps=3, rate=0.3, multi_step=1.0, first_order=1.0).double()
    expected = torch.autograd.grad(plain(episode), list(plain.parameters()))
    told = []
    for share in (None, 0.0, 1.0):
        if share is not None:
            eased.progress(share)
        found = torch.autograd.grad(eased(episode), list(eased.parameters()))
        told.append(all(map(torch.equal, found, expected)))
    assert told == [True, False, True]


def test_answers_do_not_depend_on_the_progress() -> None:
    learner = shaken(MAML(vector_encoder(), steps=3, multi_step=1.0, first_order=1.0))
    support, _, context = vector_episode()
    states = []
    for share in (0.0, 1.0):
        learner.progress(share)
        states.append(learner.adapt(support, context))
    close(*states, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"multi_step": 1.5}, {"first_order": -0.1}])
def test_a_share_outside_of_the_training_is_named(options: dict[str, float]) -> None:
    ((name, share),) = options.items()
    with pytest.raises(ValueError, match=f"{name} is a share .* found {share}"):
        MAML(vector_encoder(), **options)
