"""How invented tables come about: columns and scores from random mechanisms, and what observation makes of them.

Everything is drawn for a whole batch of tasks with array operations; a mechanism is worked out for every task of the
batch and each task keeps the one that it was dealt.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from quickstudy.data.synthetic import uniform

LAYERS = 2
TREES, DEPTH = 12, 3
WAVES = 48
SPARE = 3
"""Bins of a score beyond the number of classes, at most."""


def choose(shares: list[float], shape: tuple[int, ...], generator: Generator) -> Tensor:
    """int64 of the shape: each entry drawn by itself, i with ``shares[i]`` of the weight."""
    ends = torch.tensor(shares).cumsum(0)
    return torch.bucketize(torch.rand(shape, generator=generator) * ends[-1], ends[:-1])


def log_uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Numbers whose logarithms are evenly distributed."""
    return uniform(shape, math.log(low), math.log(high), generator).exp()


def pick(options: list[Tensor], which: Tensor) -> Tensor:
    """Of tensors of one shape, entry by entry the one that ``which``, of a shape that fits, names."""
    found = options[0]
    for place, option in enumerate(options[1:], start=1):
        found = torch.where(which == place, option, found)
    return found


def standard(x: Tensor) -> Tensor:
    """(task, row, column) with mean 0 and deviation 1 over the rows."""
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-6)


def bent(x: Tensor, which: Tensor) -> Tensor:
    """One of eight activations, by ``which``."""
    return pick(
        [x, x.tanh(), x.relu(), (2 * x).sin(), x.abs(), (-x * x).exp(), x.sign(), x * x.sigmoid()],
        which,
    )


def noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """(task, row, column): of each column normal, uniform, heavy-tailed or two clusters, all of deviation about 1."""
    normal = torch.randn(shape, generator=generator)
    flat = uniform(shape, -math.sqrt(3), math.sqrt(3), generator)
    other = torch.randn(shape, generator=generator)
    heavy = normal * (other.abs() + 0.1).rsqrt() / 1.5
    clusters = normal * 0.4 + torch.where(other > 0.3, 1.0, -1.0)
    kinds = choose([5, 2, 1, 1], (shape[0], 1, shape[2]), generator)
    return pick([normal, flat, heavy, clusters], kinds)


def correlated(tasks: int, rows: int, columns: int, generator: Generator) -> Tensor:
    """Columns that share a few factors, (task, row, column)."""
    own = noise((tasks, rows, columns), generator)
    factors = noise((tasks, rows, max(1, columns // 3)), generator)
    loads = torch.randn(tasks, factors.shape[2], columns, generator=generator)
    loads = loads * (torch.rand(loads.shape, generator=generator) < 0.6)
    share = torch.rand(tasks, 1, columns, generator=generator) ** 0.7
    share = share * (torch.rand(tasks, 1, 1, generator=generator) < 0.8)
    return standard(
        share * standard(factors @ loads) + (1 - share * share).clamp(min=0.01).sqrt() * own
    )


def network(
    tasks: int, rows: int, columns: int, scores: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A random causal network, some of whose units are columns and some others scores.

    Hollmann et al. 2023, TabPFN, section 4.2: units of a random MLP with noise at each. Columns may be causes or
    effects of the scores, or both may have causes in common.
    """
    units = max(columns, scores) + 2
    x = noise((tasks, rows, units), generator)
    x = x * log_uniform((tasks, 1, units), 0.3, 3.0, generator)
    loud = log_uniform((tasks, 1, 1), 0.02, 0.5, generator)
    kept = uniform((tasks, 1, 1), 0.1, 0.6, generator)
    kind = choose([4, 3, 2, 1, 1, 1, 1, 2], (tasks, 1, 1), generator)
    layers = []
    for _ in range(LAYERS):
        weights = torch.randn(tasks, units, units, generator=generator)
        weights = weights * (torch.rand(weights.shape, generator=generator) < kept)
        mixed = choose([4, 3, 2, 1, 1, 1, 1, 2], (tasks, 1, units), generator)
        one = torch.rand(tasks, 1, 1, generator=generator) < 0.6
        x = standard(bent(standard(x @ weights), torch.where(one, kind, mixed)))
        own = log_uniform((tasks, 1, units), 0.5, 2.0, generator)
        x = x + loud * own * noise((tasks, rows, units), generator)
        layers.append(x)
    found = torch.cat(layers, 2)
    order = torch.randperm(found.shape[2], generator=generator)
    return (
        standard(found[..., order[scores : scores + columns]]),
        standard(found[..., order[:scores]]),
    )


def relevance(tasks: int, columns: int, generator: Generator) -> Tensor:
    """How much each column says, (task, column), from all the same to very few."""
    keys = torch.rand(tasks, columns, generator=generator)
    decay = log_uniform((tasks, 1), 0.3, 12.0, generator)
    return (-decay * keys).exp() * (keys <= keys.amin(1, keepdim=True).clamp(min=0.9))


def functions(x: Tensor, scores: int, generator: Generator) -> Tensor:
    """Scores (task, row, score) that are functions of columns: linear, of single columns, smooth, trees or products."""
    tasks, _, columns = x.shape
    weight = relevance(tasks, columns, generator)

    def weights(*shape: int) -> Tensor:
        drawn = torch.randn(tasks, columns, *shape, generator=generator)
        return drawn * weight.view(tasks, columns, *(1 for _ in shape))

    linear = x @ weights(scores)
    pitch = log_uniform((tasks, 1, columns), 0.3, 1.8, generator)
    turn = uniform((tasks, 1, columns), 0, 2 * math.pi, generator)
    single = (x * pitch + turn).sin() @ weights(scores)
    length = log_uniform((tasks, 1, 1), 1.0, 6.0, generator)
    inner = weights(WAVES) / weight.norm(dim=1)[:, None, None] / length
    waves = (x @ inner * 1.5 + uniform((tasks, 1, WAVES), 0, 2 * math.pi, generator)).cos()
    smooth = waves @ torch.randn(tasks, WAVES, scores, generator=generator)
    product = (x @ weights(scores)) * (x @ weights(scores)) + 0.3 * linear
    shares = choose([4, 2, 3, 4, 2], (tasks, 1, 1), generator)
    return standard(
        pick(
            [standard(linear), single, smooth, trees(x, weight, scores, generator), product], shares
        )
    )


def trees(x: Tensor, weight: Tensor, scores: int, generator: Generator) -> Tensor:
    """The sum of random oblivious trees over columns drawn by their weight, (task, row, score)."""
    tasks, rows, _ = x.shape
    asked = torch.multinomial(weight, TREES * DEPTH, replacement=True, generator=generator)
    where = torch.randint(rows, (tasks, TREES * DEPTH), generator=generator)
    entries = x.gather(2, asked[:, None].expand(-1, rows, -1))
    cuts = entries.gather(1, where[:, None])
    # A tree of less depth asks the same thing of every row at its lower levels.
    depth = torch.randint(1, DEPTH + 1, (tasks, 1, TREES, 1), generator=generator)
    bits = (entries > cuts).view(tasks, rows, TREES, DEPTH) & (torch.arange(DEPTH) < depth)
    leaf = (bits * 2 ** torch.arange(DEPTH)).sum(-1)
    values = torch.randn(tasks, TREES, 2**DEPTH, scores, generator=generator)
    count = log_uniform((tasks, 1, 1, 1), 1, TREES + 1, generator).floor()
    values = values * (torch.arange(TREES).view(1, TREES, 1, 1) < count)
    flat = (leaf + torch.arange(TREES) * 2**DEPTH).flatten(1)[..., None].expand(-1, -1, scores)
    return values.flatten(1, 2).gather(1, flat).view(tasks, rows, TREES, scores).sum(2)


def clusters(rows: int, columns: int, ways: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Columns whose distribution is told by the class, (task, row, column), and the classes, int64 (task, row).

    ``ways`` says how many classes each task has, int64 (task,).
    """
    tasks, way = len(ways), int(ways.max())
    each = torch.randint(1, 4, (tasks, 1), generator=generator)
    which = (torch.rand(tasks, rows, generator=generator) * each).long()
    odds = -torch.rand(tasks, way, generator=generator).clamp(min=1e-3).log() + 0.3
    odds = odds * (torch.arange(way) < ways[:, None])
    y = torch.multinomial(odds, rows, replacement=True, generator=generator)
    apart = log_uniform((tasks, 1, 1), 0.5, 3.0, generator)
    centres = torch.randn(tasks, way * 3, columns, generator=generator)
    centres = centres * apart * relevance(tasks, columns, generator)[:, None]
    spread = correlated(tasks, rows, columns, generator)
    size = log_uniform((tasks, way * 3, columns), 0.4, 1.6, generator)
    size = torch.where(torch.rand(tasks, 1, 1, generator=generator) < 0.5, size, 1.0)
    place = (y * 3 + which)[..., None].expand(-1, -1, columns)
    return standard(spread * size.gather(1, place) + centres.gather(1, place)), y


def classes_of(scores: Tensor, ways: Tensor, generator: Generator) -> Tensor:
    """Classes, int64 (task, row), of scores (task, row, way): bins of the first score, or whose score is highest.

    ``ways`` says how many classes each task has, int64 (task,).
    """
    tasks, rows, way = scores.shape
    doubt = log_uniform((tasks, 1, 1), 0.02, 0.7, generator)
    scores = scores + doubt * torch.randn(scores.shape, generator=generator)
    exists = torch.arange(way) < ways[:, None]
    ahead = 0.7 * torch.randn(tasks, 1, way, generator=generator)
    highest = (scores + ahead).masked_fill(~exists[:, None], -math.inf).argmax(2)
    # In some tasks a class has several bins, so that no score is high for it everywhere.
    spare = torch.randint(0, SPARE + 1, (tasks,), generator=generator)
    bins = ways + spare * (torch.rand(tasks, generator=generator) < 0.3)
    widths = -torch.rand(tasks, way + SPARE, generator=generator).clamp(min=1e-3).log() + 0.4
    widths = widths * (torch.arange(way + SPARE) < bins[:, None])
    ends = (widths / widths.sum(1, keepdim=True)).cumsum(1)[:, :-1].contiguous()
    rank = scores[..., 0].argsort(1).argsort(1) / rows
    which = torch.searchsorted(ends, rank, right=True).minimum(bins[:, None] - 1)
    owners = torch.rand(tasks, way, generator=generator).masked_fill(~exists, 2).argsort(1)
    owners = torch.cat([owners, owners[:, :1].expand(-1, SPARE)], 1)
    again = torch.arange(way + SPARE) >= ways[:, None]
    anyone = (torch.rand(tasks, way + SPARE, generator=generator) * ways[:, None]).long()
    cut = torch.where(again, anyone, owners).gather(1, which)
    return torch.where(torch.rand(tasks, 1, generator=generator) < 0.6, cut, highest)


def values_of(scores: Tensor, generator: Generator) -> Tensor:
    """Values (task, row, 1) of scores (task, row, score): the first of them with noise, about 0 with deviation 1.

    In some tasks the noise grows with the score, and in some the values are skewed.
    """
    tasks = len(scores)
    score = scores[..., :1]
    doubt = log_uniform((tasks, 1, 1), 0.02, 1.0, generator)
    grows = uniform((tasks, 1, 1), 0.1, 0.8, generator)
    grows = grows * (torch.rand(tasks, 1, 1, generator=generator) < 0.3)
    own = torch.randn(score.shape, generator=generator)
    y = standard(score + doubt * (grows * score.clamp(-3, 3)).exp() * own)
    skew = log_uniform((tasks, 1, 1), 0.2, 1.0, generator)
    kind = choose([4, 2, 1], (tasks, 1, 1), generator)
    return standard(pick([y, (skew * y.clamp(-4, 4)).exp(), (-skew * y.clamp(-4, 4)).exp()], kind))


def observed(x: Tensor, generator: Generator) -> Tensor:
    """Columns as somebody wrote them down: skewed, cut into levels, as categories, with gaps."""
    tasks, rows, columns = x.shape
    power = log_uniform((tasks, 1, columns), 0.4, 2.5, generator)
    level = torch.randint(2, 9, (tasks, 1, columns), generator=generator)
    rank = (x.argsort(1).argsort(1) + 0.5) / rows
    skew = uniform((tasks, 1, columns), 0.4, 2.0, generator)
    steps = (rank**skew * level).floor()
    # Categories have no order: a fixed shuffle of the levels.
    shuffled = (steps * 7 + torch.randint(9, (tasks, 1, columns), generator=generator)) % 11
    kinds = choose([9, 2, 2, 1, 2, 1, 1], (tasks, 1, columns), generator)
    plain = torch.rand(tasks, 1, 1, generator=generator) < 0.4
    x = pick(
        [
            x,
            (x.clamp(-6, 6) * power * 0.6).exp(),
            x.sign() * x.abs() ** power,
            rank,
            steps,
            shuffled,
            (rank > uniform((tasks, 1, columns), 0.1, 0.9, generator)).float(),
        ],
        torch.where(plain, 0, kinds),
    )
    rate = uniform((tasks, 1, columns), 0, 0.4, generator)
    rate = rate * (torch.rand(tasks, 1, columns, generator=generator) < 0.5)
    rate = rate * (torch.rand(tasks, 1, 1, generator=generator) < 0.25)
    return x.masked_fill(torch.rand(x.shape, generator=generator) < rate, math.nan)
