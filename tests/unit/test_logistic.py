"""Bursts of logistic tasks: drawn as they should be, and answered by who averages over all rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.build import build_source
from quickstudy.data.design import EpisodeDesign, check_design, fit_design
from quickstudy.data.draw import Episodes
from quickstudy.data.logistic import Logistic
from quickstudy.data.source import DataError
from quickstudy.episode import Episode, take_tasks, tree_map

DESIGN = EpisodeDesign(way=2, shot=(2, 12), queries=10)


def drawn(world: Logistic, *, tasks: int = 50, seed: int = 0) -> tuple[Episode, Tensor]:
    return world.draw_known(DESIGN, tasks=tasks, generator=torch.Generator().manual_seed(seed))


def likelihood(found: Tensor, episode: Episode) -> Tensor:
    """The mean log-probability of the true classes, (task,)."""
    return found.double().gather(-1, episode.query.y[..., None])[..., 0].mean(1)


def on_a_grid(world: Logistic, episode: Episode, task: int, *, ends: float = 6.0) -> np.ndarray:
    """Probabilities of the second class by the sum over a grid of slopes and offsets, for one number in an example."""
    axis = np.linspace(-ends, ends, 601)
    slope, offset = np.meshgrid(axis * world.sharpness, axis, indexing="ij")

    def chance(x: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(slope * x + offset)))

    weight = np.exp(-0.5 * (slope / world.sharpness) ** 2 - 0.5 * offset**2)
    support = episode.support
    for x, y, exists in zip(*(each[task].numpy() for each in support), strict=True):
        if exists:
            weight = weight * (chance(x[0]) if y else 1 - chance(x[0]))
    weight /= weight.sum()
    return np.array([(weight * chance(x)).sum() for x in episode.query.x[task, :, 0].numpy()])


def test_the_answer_is_that_of_a_fine_grid() -> None:
    world = Logistic(dims=1, sharpness=3.0)
    episode, _ = drawn(world, tasks=3)
    found = world.exact(
        tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, episode)
    )
    for task in range(3):
        wanted = on_a_grid(world, episode, task)
        both = np.log(np.stack([1 - wanted, wanted], -1))
        np.testing.assert_allclose(found[task].numpy(), both, atol=0.008)
        np.testing.assert_allclose(found[task].exp().numpy()[:, 1], wanted, atol=0.002)


def test_the_answer_is_that_of_many_rules_from_the_prior() -> None:
    """Three numbers in an example: each rule weighs as the support is likely under it."""
    world = Logistic(dims=3, sharpness=2.0)
    episode, _ = drawn(world, tasks=2)
    generator = torch.Generator().manual_seed(1)
    rules = torch.randn(100_000, 4, generator=generator)
    rules[:, :3] *= 2.0 / math.sqrt(3)
    found = world.exact(episode)
    for task in range(2):
        kept = episode.support.mask[task]
        sign = 2.0 * episode.support.y[task, kept] - 1
        score = rules[:, :3] @ episode.support.x[task, kept].T + rules[:, 3:]
        weight = F.logsigmoid(sign * score).sum(1).softmax(0)
        assert float(1 / weight.square().sum()) > 500
        asked = rules[:, :3] @ episode.query.x[task].T + rules[:, 3:]
        wanted = weight @ torch.sigmoid(asked)
        torch.testing.assert_close(found[task, :, 1].exp(), wanted, rtol=0, atol=0.03)


def test_nobody_does_better_but_who_knows_the_rule() -> None:
    world, blunt = Logistic(), Logistic(sharpness=1.0)
    episode, rule = drawn(world, tasks=80)
    exact, oracle, other = (
        likelihood(found, episode)
        for found in (world.exact(episode), world.oracle(episode, rule), blunt.exact(episode))
    )
    for better, worse in ((oracle, exact), (exact, other)):
        gained = better - worse
        assert float(gained.mean()) > 2 * float(gained.std()) / math.sqrt(80)


def test_probabilities_are_shares() -> None:
    """Of the queries that are said to be of a class with some probability, that share is."""
    world = Logistic(dims=4)
    episode, _ = drawn(world, tasks=80)
    said, right = world.exact(episode)[..., 1].exp(), episode.query.y.float()
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (said >= low) & (said < low + 0.25)
        deviation = float((said[inside] * (1 - said[inside])).sum().sqrt()) / int(inside.sum())
        assert abs(float((right - said)[inside].mean())) < 4 * deviation


def test_classes_follow_the_rule() -> None:
    world = Logistic()
    episode, rule = drawn(world, tasks=300)
    chance = world.oracle(episode, rule)[..., 1].exp()
    rest = episode.query.y - chance
    deviation = float((chance * (1 - chance)).sum().sqrt()) / chance.numel()
    assert abs(float(rest.mean())) < 4 * deviation
    assert abs(float((rest * (chance - 0.5)).mean())) < 4 * deviation


def test_every_support_has_both_classes_and_answers_are_the_same_each_time() -> None:
    world = Logistic()
    episode, _ = drawn(world)
    for label in (0, 1):
        assert bool(((episode.support.y == label) & episode.support.mask).any(1).all())
    assert episode.context.classes.tolist() == [[True, True]] * 50
    first, again = (Episodes(world, "test", DESIGN, tasks=2, length=4, seed=1)[3] for _ in range(2))
    assert torch.equal(first.query.x, again.query.x)
    assert torch.equal(world.exact(first), world.exact(again))
    one = take_tasks(episode, slice(7, 8))
    torch.testing.assert_close(world.exact(one), world.exact(episode)[7:8])


def test_hidden_examples_say_nothing() -> None:
    world = Logistic()
    episode, _ = drawn(world, tasks=5)
    x, y, mask = episode.support
    other = episode.support._replace(
        x=torch.where(mask[..., None], x, 9.0), y=torch.where(mask, y, 1)
    )
    found = world.exact(episode._replace(support=other))
    torch.testing.assert_close(found, world.exact(episode))


def test_nothing_known_is_the_prior() -> None:
    world = Logistic()
    episode, _ = drawn(world, tasks=2)
    none = episode.support._replace(mask=torch.zeros_like(episode.support.mask))
    found = world.exact(episode._replace(support=none))
    torch.testing.assert_close(found.exp(), torch.full_like(found, 0.5), rtol=0, atol=1e-3)


def test_tasks_have_two_classes_and_two_examples() -> None:
    world = build_source("logistic,dims=3,sharpness=2")
    assert isinstance(world, Logistic)
    assert (world.inputs, world.sharpness) == (3, 2.0)
    openly = {"way": None, "queries": 5, "within_group": False, "most_way": 20, "examples": 9}
    assert fit_design(world, "train", shot=4, **openly).way == 2
    for wrong in (EpisodeDesign(3, 4, 5), EpisodeDesign(2, (1, 4), 5)):
        with pytest.raises(DataError, match="2 classes, at least 2 support examples"):
            check_design(world, "train", wrong)
    with pytest.raises(ValueError, match="at least 1; found 0"):
        Logistic(dims=0)
    with pytest.raises(ValueError, match="positive number; found 0"):
        Logistic(sharpness=0.0)
