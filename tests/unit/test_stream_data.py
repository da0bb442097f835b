"""Streams of tasks as they are drawn, and the exact answers to streams of sine waves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from quickstudy.data import shared_waves
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.shared_waves import SharedSinusoid
from quickstudy.data.source import DataError, Pool, PoolSource, Split, TaskSource
from quickstudy.data.streams import GroupStreams, Streams
from quickstudy.data.synthetic import Linear, Sinusoid
from quickstudy.episode import Stream, leaves, take_tasks, tree_map

close = torch.testing.assert_close


class Numbered(PoolSource):
    """Examples that say which class they are of, of three groups of 7, 7 and 3 classes."""

    kind = "vector"

    def pool(self, split: Split) -> Pool:
        sizes, each = (7, 7, 3), 6
        groups = torch.arange(3).repeat_interleave(torch.tensor(sizes))
        classes = torch.arange(len(groups))
        x = torch.stack([classes.repeat_interleave(each), torch.arange(each).repeat(len(classes))])
        names = [f"{number}" for number in classes.tolist()]
        counts = torch.full((len(classes),), each)
        return Pool(x.T.float(), counts, names, groups, ["a", "b", "c"], classes[:, None])


def classes_of(stream: Stream) -> list[list[list[int]]]:
    """The classes of each task of each position, by label."""
    found = []
    for episode in stream.episodes:
        support = episode.support
        rows = support.x[..., 0].long()
        ways = episode.context.classes.shape[1]
        found.append([[int(rows[t][support.y[t] == c][0]) for c in range(ways)]
                      for t in range(stream.tasks)])  # fmt: skip
    return found


@pytest.mark.parametrize("source", [Numbered(), Linear(), SharedSinusoid()])
def test_a_stream_is_a_function_of_seed_split_and_index(source: TaskSource) -> None:
    design = EpisodeDesign(3 if isinstance(source, PoolSource) else 1, (1, 2), 2)

    def drawn(index: int, seed: int = 0, split: Split = "train") -> list[Tensor]:
        return leaves(
            Streams(source, split, design, positions=3, tasks=2, length=9, seed=seed)[index]
        )

    again = drawn(4)
    assert all(torch.equal(*pair) for pair in zip(drawn(4), again, strict=True))
    for other in (drawn(5), drawn(4, seed=1), drawn(4, split="validation")):
        assert not torch.equal(other[0], again[0])


def test_classes_of_a_stream_are_of_one_group_and_come_once_as_far_as_they_go() -> None:
    draws = Streams(Numbered(), "train", EpisodeDesign(3, 1, 2), positions=5, tasks=40)
    classes = torch.tensor(classes_of(draws[0])).transpose(0, 1)
    groups = Numbered().pool("train").groups[classes]
    assert (groups == groups[:, :1, :1]).all()
    assert groups[:, 0, 0].unique().tolist() == [0, 1, 2]
    for stream, group in zip(classes, groups[:, 0, 0].tolist(), strict=True):
        each = 1 if group == 2 else 2
        for start in range(0, 5, each):
            dealt = stream[start : start + each].flatten()
            assert len(dealt.unique()) == len(dealt)
    assert (classes[:, 0] != classes[:, 2]).any()


def test_a_habit_keeps_its_labels_over_the_stream() -> None:
    design = EpisodeDesign(3, 2, 4)
    stream = Streams(Numbered(), "train", design, positions=6, habit=2, tasks=20)[0]
    for which in range(stream.tasks):
        one = take_tasks(stream, slice(which, which + 1))
        meaning: list[set[int]] = [set(), set(), set()]
        for episode in one.episodes:
            assert episode.context.names.shape[2] == 0
            for part in (episode.support, episode.query):
                for row, label in zip(part.x[0, :, 0].tolist(), part.y[0].tolist(), strict=True):
                    meaning[label].add(int(row))
            shown = episode.support.x[0].view(3, 2, 2)
            assert (shown[:, 0, 0] == shown[:, 1, 0]).all(), "a label shows one of its classes"
            rows = torch.cat([episode.support.x[0], episode.query.x[0]])
            assert len(rows.unique(dim=0)) == len(rows), "no example comes twice in a task"
        assert all(len(each) <= 2 for each in meaning)
        assert len(set.union(*meaning)) == sum(map(len, meaning)), "no class has two labels"
    asked = torch.cat([episode.query.x[..., 0] for episode in stream.episodes], 1)
    assert len(asked[0].unique()) == 6


def test_ways_and_shots_may_be_ranges_in_a_habit() -> None:
    design = EpisodeDesign((2, 3), (1, 2), 2)
    stream = Streams(Numbered(), "train", design, positions=4, habit=2, tasks=30)[0]
    ways = torch.stack([episode.context.classes.sum(1) for episode in stream.episodes])
    assert (ways == ways[:1]).all()
    assert ways.unique().tolist() == [2, 3]
    shots = torch.stack([episode.support.mask.sum(1) for episode in stream.episodes])
    assert int(shots.min()) >= 2
    assert int(shots.max()) <= 6


@pytest.mark.parametrize(
    ("source", "design", "more", "said"),
    [
        (Numbered(), EpisodeDesign(9, 1, 2), {}, "found 7 in its largest group"),
        (Numbered(), EpisodeDesign(6, 1, 2), {"habit": 3}, "need 18 classes"),
        (Sinusoid(), EpisodeDesign(1, 1, 2), {"habit": 2}, "set habit to 0"),
        (Sinusoid(), EpisodeDesign(1, 1, 2), {"positions": 0}, "at least 1 task"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    source: PoolSource, design: EpisodeDesign, more: dict[str, int], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        Streams(source, "train", design, **{"positions": 2, **more})


def test_groups_that_are_all_too_small_are_named() -> None:
    with pytest.raises(DataError, match="no group has the 8 of a task"):
        GroupStreams(Numbered().pool("train"), EpisodeDesign(8, 1, 2), tasks=1, positions=2)


def test_tasks_of_other_worlds_share_nothing_and_have_the_same_exact_answers() -> None:
    world = Linear(dims=3, noise=0.1)
    stream = Streams(world, "test", EpisodeDesign(1, 3, 4), positions=2, tasks=2)[0]
    for told, episode in zip(world.exact_stream(stream), stream.episodes, strict=True):
        close(told.mean, world.exact(episode).mean)


def waves(world: SharedSinusoid, *, positions: int, shot: int, tasks: int = 1) -> Stream:
    design = EpisodeDesign(1, shot, 6)
    return Streams(world, "test", design, positions=positions, tasks=tasks)[0]


def test_waves_of_a_stream_share_amplitude_and_range_of_phases() -> None:
    world = SharedSinusoid(noise=0.02, narrowing=8)
    stream = waves(world, positions=5, shot=40, tasks=3)
    found = []
    for episode in stream.episodes:
        x, y = episode.support.x.double(), episode.support.y.double()
        # y = A cos φ · sin x - A sin φ · cos x
        solved = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], -1), y).solution[..., 0]
        found.append(torch.stack([solved.norm(dim=1), torch.atan2(-solved[:, 1], solved[:, 0])]))
    amplitude, phase = torch.stack(found).unbind(1)
    assert float((amplitude - amplitude[:1]).abs().max()) < 0.03
    reach = phase.max(0).values - phase.min(0).values
    assert bool(((reach > 0.02) & (reach < math.pi / 8 + 0.1)).all())
    assert float(amplitude[0].std()) > 0.1


def by_sampling(world: SharedSinusoid, stream: Stream, draws: int) -> tuple[Tensor, Tensor]:
    """Mean and log density of the queries of the last task, (query,): the prior, weighed by all supports."""
    generator = torch.Generator().manual_seed(1)

    def even(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(draws, generator=generator, dtype=torch.float64)

    amplitude, start = even(0.1, 5.0), even(0.0, math.pi)
    log_weight = torch.zeros(draws, dtype=torch.float64)
    for episode in stream.episodes:
        phase = start + even(0.0, math.pi / world.narrowing)
        for x, y in zip(*(each[0, :, 0].tolist() for each in episode.support[:2]), strict=True):
            log_weight -= 0.5 * ((y - amplitude * torch.sin(x - phase)) / world.noise).square()
    weight = log_weight.softmax(0)
    assert 1 / float(weight.square().sum()) > 5000
    value = amplitude * torch.sin(episode.query.x[0].double() - phase)
    rest = (episode.query.y[0].double() - value) / world.noise
    chance = (-0.5 * rest.square()).exp() / (world.noise * math.sqrt(2 * math.pi))
    return value @ weight, (chance @ weight).log()


@pytest.mark.parametrize("positions", [1, 3])
def test_the_exact_answers_are_those_of_weighed_samples(positions: int) -> None:
    world = SharedSinusoid(noise=0.6, narrowing=4)
    stream = waves(world, positions=positions, shot=2)
    mean, log_density = by_sampling(world, stream, 1_000_000)
    told = world.exact_stream(stream)[-1]
    close(told.mean[0, :, 0].double(), mean, atol=0.03, rtol=0)
    assert told.log_density is not None
    close(told.log_density[0].double(), log_density, atol=0.03, rtol=0)


def test_a_finer_grid_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SharedSinusoid()
    stream = waves(world, positions=4, shot=2)
    coarse = world.exact_stream(stream)
    monkeypatch.setattr(shared_waves, "FINENESS", 3.5)
    for one, other in zip(coarse, world.exact_stream(stream), strict=True):
        close(one.mean, other.mean, atol=1e-4, rtol=0)
        close(one.log_density, other.log_density, atol=1e-3, rtol=0)


def test_one_who_forgets_is_one_whose_stream_begins() -> None:
    world = SharedSinusoid()
    stream = waves(world, positions=2, shot=2)
    told = world.exact_stream(stream)
    close(told[0].mean, world.exact(stream.episodes[0]).mean, atol=1e-4, rtol=0)
    assert not torch.allclose(told[1].mean, world.exact(stream.episodes[1]).mean, atol=0.05)


def test_hidden_examples_tell_nothing_and_no_example_leaves_the_prior() -> None:
    world = SharedSinusoid(noise=0.5, narrowing=4)
    stream = waves(world, positions=2, shot=3)
    first, second = stream.episodes
    mask = first.support.mask.clone()
    mask[:, 1] = False
    hidden = first._replace(support=first.support._replace(mask=mask))
    kept = tree_map(lambda leaf: leaf[:, [0, 2]], first.support)
    fewer = Stream((first._replace(support=kept), second))
    for one, other in zip(
        world.exact_stream(Stream((hidden, second))), world.exact_stream(fewer), strict=True
    ):
        close(one.mean, other.mean, atol=1e-4, rtol=0)
    nothing = first._replace(support=first.support._replace(mask=torch.zeros_like(mask)))
    told = world.exact(nothing)
    # E[A sin(x - φ)] of the prior, A and φ being independent.
    start = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    away = torch.linspace(0, math.pi / 4, 501, dtype=torch.float64)
    phase = start[:, None] + away
    x = first.query.x[0, :, 0].double()
    expected = torch.stack([2.55 * torch.sin(each - phase).mean() for each in x])
    close(told.mean[0, :, 0].double(), expected, atol=2e-3, rtol=0)


def test_bad_settings_of_the_waves_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 0\.02; found 0\.0"):
        SharedSinusoid(noise=0.0)
    with pytest.raises(ValueError, match="at least 1; found 0"):
        SharedSinusoid(narrowing=0)
