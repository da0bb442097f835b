"""Regression tasks of several families of curves, of which nobody says which one a task is of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.data.curves import FAMILIES, curve_posterior
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.exact import Exact
from quickstudy.data.source import Split, World
from quickstudy.data.synthetic import (
    SMALLEST_KNOWN,
    check_noise,
    numbers_in_examples,
    split_up,
    uniform,
    with_noise,
)
from quickstudy.episode import Episode


class Families(World):
    """Sine waves, lines, parabolas, absolute values and hyperbolic tangents: ``y = f(x) + ε``, x ~ U[-5, 5].

    Each family as often, with ε ~ N(0, noise²) and all unknowns evenly distributed:

    - sinusoid: ``A sin(x - φ)``, A in [0.1, 5], φ in [0, π];
    - line: ``a x + b``, a and b in [-3, 3];
    - quadratic: ``±a (x - c)² + b``, a in [0.02, 0.15], b and c in [-3, 3];
    - absolute: ``a |x - c| + b``, a, b and c in [-3, 3];
    - tanh: ``a tanh(x - c) + b``, a, b and c in [-3, 3].

    Vuorio et al. 2019, Multimodal Model-Agnostic Meta-Learning via Task-Aware Modulation (MMAML), regression; ranges
    and noise are those of the published code, whose tasks have 5 support examples and 5 queries. Differs from the
    published code: the family of each task is drawn, rather than a fifth of each batch.

    The exact answer is the posterior over families and over the curves of each (in about 0.1 s a task); it takes noise
    for at least 0.003, and there is no density below.

    Args:
        noise: standard deviation of ε; queries have it too.
        families: names of some families with ``+`` between them, such as ``line+tanh``; all by default.

    Raises:
        ValueError: the noise is negative, or there is no such family.

    >>> world, design = Families(families="line+tanh"), EpisodeDesign(way=1, shot=5, queries=9)
    >>> episode = world.draw("test", design, tasks=2, generator=torch.Generator().manual_seed(0))
    >>> world.exact(episode).log_density.shape
    torch.Size([2, 9])
    """

    kind = "vector"

    def __init__(
        self, *, noise: float = 0.3, families: str = "sinusoid+line+quadratic+absolute+tanh"
    ) -> None:
        check_noise(noise)
        names = [name.strip() for name in families.split("+")]
        wrong = [name for name in names if name not in FAMILIES]
        if wrong or len(set(names)) < len(names):
            raise ValueError(
                f"The families are {', '.join(FAMILIES)}; found {families!r}. Name each once, with + between them."
            )
        self.noise, self.families = noise, tuple(FAMILIES[name] for name in names)

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        return self.draw_known(design, tasks=tasks, generator=generator)[0]

    def draw_known(
        self, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> tuple[Episode, Tensor]:
        """Tasks as :meth:`draw` draws them, and the family of each, int64 (task,)."""
        family = torch.randint(len(self.families), (tasks,), generator=generator)
        unit = torch.rand(3, tasks, 1, 1, generator=generator)
        x = uniform((tasks, numbers_in_examples(design), 1), -5.0, 5.0, generator)
        y = torch.zeros_like(x)
        for number, (_, factor, low, high, shape) in enumerate(self.families):
            mine = family == number
            share, *rest = unit[:, mine]
            z = [a + (b - a) * u for a, b, u in zip(low, high, rest, strict=False)]
            g, h = shape(x[mine], z)
            y[mine] = (factor[0] + (factor[1] - factor[0]) * share) * g + h
        return split_up(x, with_noise(y, self.noise, generator), design, generator), family

    def exact(self, episode: Episode) -> Exact:
        noise = max(self.noise, SMALLEST_KNOWN)
        return curve_posterior(
            episode, self.families, noise=noise, dense=self.noise >= SMALLEST_KNOWN
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": "families",
            "licence": "none needed",
            "tasks": "endless",
            "families": [family.name for family in self.families],
            "noise": self.noise,
        }
