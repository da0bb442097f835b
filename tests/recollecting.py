"""The smallest learner with a memory, and the world on which it is Bayes-optimal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.exact import Exact, normal
from quickstudy.data.source import Split, World
from quickstudy.data.synthetic import numbers_in_examples, split_up
from quickstudy.episode import Context, Episode, Examples, Inputs, Stream, tree_map
from quickstudy.learners.base import Learner
from quickstudy.likelihood import SquaredError
from quickstudy.nn.encoders import RawEncoder

State = dict[str, Tensor]


class Recollecting(Learner):
    """Answers every query with ``(s + trust · S) / (n + trust · N + 1)``, sums and counts of this and of earlier tasks.

    Args:
        fading: what is remembered fades by ``trust`` with each task.
    """

    order_free = True
    additive = False
    inner_loop = False
    state_type = dict

    def __init__(
        self, encoder: RawEncoder | None = None, *, values: int = 1, fading: bool = False
    ) -> None:
        super().__init__(encoder or RawEncoder(1), SquaredError())
        self.trust = nn.Parameter(torch.tensor(0.3))
        self.fading, self.at_once = fading, 0

    def adapt(self, support: Examples, context: Context, state: State | None = None) -> State:
        mask = support.mask.to(support.y.dtype)
        sums, counts = (support.y[..., 0] * mask).sum(1), mask.sum(1)
        if state is None:
            state = {"memory": torch.zeros(*sums.shape, 2, dtype=sums.dtype)}
        return {"memory": state["memory"], "now": torch.stack([sums, counts], 1)}

    def predict(self, state: State, x: Inputs, context: Context) -> Tensor:
        sums, counts = (state["now"] + self.trust * state["memory"]).unbind(1)
        return (sums / (counts + 1))[:, None, None].expand(-1, x.shape[1], 1)

    def carry(self, state: State) -> State | None:
        kept = self.trust * state["memory"] if self.fading else state["memory"]
        return {"memory": kept + state["now"]}

    def together(self, episode: object) -> int:
        return self.at_once or 10**6


class Levels(World):
    """Constants in noise: ``y = level + ε``, level ~ N(0, 1) of a stream, ε ~ N(0, 1)."""

    kind = "vector"

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        return self.draw_stream(
            split, design, tasks=tasks, positions=1, generator=generator
        ).episodes[0]

    def draw_stream(
        self,
        split: Split,
        design: EpisodeDesign,
        *,
        tasks: int,
        positions: int,
        generator: torch.Generator,
    ) -> Stream:
        level, count = torch.randn(tasks, 1, 1, generator=generator), numbers_in_examples(design)
        episodes = []
        for _ in range(positions):
            x, noise = torch.randn(2, tasks, count, 1, generator=generator)
            episodes.append(split_up(x, level + noise, design, generator))
        return Stream(tuple(episodes))

    def exact(self, episode: Episode) -> Exact:
        return self.exact_stream(Stream((episode,)))[0]

    def exact_stream(self, stream: Stream) -> tuple[Exact, ...]:
        told, known = [], torch.zeros(stream.tasks, 2)
        for episode in stream.episodes:
            support, shape = episode.support, episode.query.y.shape
            here = [(support.y[..., 0] * support.mask).sum(1), support.mask.sum(1)]
            known = known + torch.stack(here, 1)
            sums, counts = known[..., None, None].unbind(1)
            mean, deviation = sums / (counts + 1), (1 + 1 / (counts + 1)).sqrt()
            told.append(normal(mean.expand(shape), deviation.expand(shape), episode.query.y))
        return tuple(told)


def streams(*, tasks: int, length: int, double: bool = False) -> Stream:
    """Streams of the world of levels, with two support examples and five queries."""
    generator = torch.Generator().manual_seed(0)
    drawn = Levels().draw_stream(
        "train", EpisodeDesign(1, 2, 5), tasks=tasks, positions=length, generator=generator
    )
    wide = torch.float64 if double else torch.float32
    return tree_map(lambda leaf: leaf.to(wide) if leaf.is_floating_point() else leaf, drawn)
