"""Random variations: of images, which keep their class, and of whole tasks, each of which becomes another task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.data.source import DataError
from quickstudy.episode import Episode


@dataclass(frozen=True)
class Variation:
    """How far images are varied; every amount is drawn evenly between plus and minus the bound.

    Args:
        turn: degrees.
        scale: change of size on each axis, as a fraction.
        shear: change of x along y, as a fraction.
        shift: of the image's side.
        wave: elastic displacement, of the image's side.
        weight: thicker (up to 1: a pixel on each side) or thinner.
        lean: largest share of the weight's range that thins instead of thickening; 0.5 for as much of either.
    """

    turn: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 0.05
    wave: float = 0.0
    weight: float = 0.0
    lean: float = 0.5


def neighbourhood(images: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest, or smallest, of the 3 x 3 pixels around each pixel; those outside the image do not count.

    Args:
        images: (…, row, column).
        choose: ``torch.maximum`` or ``torch.minimum``.

    >>> neighbourhood(torch.tensor([[[[0.0, 1.0, 0.0, 0.0]]]]), torch.maximum).tolist()
    [[[[1.0, 1.0, 1.0, 0.0]]]]
    """
    # One side after the other, which is a fifth of the work of pooling; a repeated edge changes no extreme.
    wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = choose(choose(wide[..., :-2, :], wide[..., 1:-1, :]), wide[..., 2:, :])
    return choose(choose(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def vary(
    images: Tensor, variation: Variation, generator: torch.Generator, *, size: int | None = None
) -> Tensor:
    """Vary each image by itself, in one pass over the batch.

    Args:
        images: uint8 (example, channel, height, width), ink bright on dark.
        variation: the bounds.
        generator: decides every amount.
        size: side of the result; that of the images when absent.

    Returns:
        uint8 (example, channel, size, size).

    >>> still = Variation(turn=0, scale=0, shear=0, shift=0)
    >>> picture = torch.randint(0, 255, (1, 1, 8, 8), dtype=torch.uint8)
    >>> int((vary(picture, still, torch.Generator()).int() - picture.int()).abs().max()) <= 1
    True
    """
    count, side = len(images), size or images.shape[-1]

    def amount(bound: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * bound

    angle = amount(variation.turn * math.pi / 180)
    wide, high, shear = (
        1 + amount(variation.scale),
        1 + amount(variation.scale),
        amount(variation.shear),
    )
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([cos / wide, shear - sin, amount(2 * variation.shift)], 1),
            torch.stack([sin, cos / high, amount(2 * variation.shift)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [count, 1, side, side], align_corners=False)
    if variation.wave:
        knots = torch.randn(count, 2, 5, 5, generator=generator) * (2 * variation.wave)
        wave = F.interpolate(knots, size=(side, side), mode="bilinear", align_corners=True)
        grid = grid + wave.permute(0, 2, 3, 1)
    out = F.grid_sample(images.float(), grid, align_corners=False)
    if variation.weight:
        drawn = torch.rand(count, 1, 1, 1, generator=generator)
        weight = (
            variation.weight * (drawn - variation.lean) / max(variation.lean, 1 - variation.lean)
        )
        thick, thin = neighbourhood(out, torch.maximum), neighbourhood(out, torch.minimum)
        out = out + weight.clamp(min=0) * (thick - out) + weight.clamp(max=0) * (out - thin)
    return out.round_().clamp_(0, 255).to(torch.uint8)


GREY = 0.2
"""Standard deviation that projected pixels are brought to, of a range of 1; five of them span black to white."""


def project_tasks(episode: Episode, share: float, generator: torch.Generator) -> Episode:
    """Send the examples of some tasks through random linear maps, one to a task: one data set has no end of tasks.

    ``x ← A x`` with ``A_ij ~ N(0, 1 / d)``, the same for support and query. Pixels are mapped as rows of numbers about
    the mean of the task's support, and then brought to grey with a standard deviation of :data:`GREY`.

    Kirsch et al. 2022, General-Purpose In-Context Learning by Meta-Learning Transformers. Differs from the paper: a
    share of the tasks may stay as they are.

    Args:
        episode: examples are rows of numbers, float (task, example, column), or images, uint8.
        share: chance of a task to be mapped.
        generator: decides every map.

    Raises:
        DataError: the examples are neither.

    >>> from quickstudy.episode import Examples
    >>> x = torch.randn(1, 4, 8)
    >>> some = Examples(x, torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool))
    >>> episode = project_tasks(Episode(some, some, None), 1.0, torch.Generator().manual_seed(0))
    >>> episode.support.x.shape, bool((episode.support.x == episode.query.x).all())
    (torch.Size([1, 4, 8]), True)
    """
    sets = (episode.support, episode.query)
    support = episode.support.x
    pixels = isinstance(support, Tensor) and support.dtype == torch.uint8
    if not isinstance(support, Tensor) or not (pixels or support.is_floating_point()):
        raise DataError(
            "Tasks are projected where examples are images or rows of numbers; leave episode.projected at 0."
        )
    tasks, size = support.shape[0], support[0, 0].numel()
    chosen = (torch.rand(tasks, generator=generator) < share).nonzero().flatten()
    mapped = [part.x.clone() for part in sets]
    for task in chosen.tolist():
        matrix = torch.randn(size, size, generator=generator) / math.sqrt(size)
        rows = [x[task].flatten(1).to(matrix.dtype) / (255 if pixels else 1) for x in mapped]
        if pixels:
            seen = rows[0][sets[0].mask[task]]
            centre = seen.mean(0)
            rows = [(row - centre) @ matrix.T for row in rows]
            scale = GREY / rows[0][sets[0].mask[task]].std().clamp(min=1e-6)
            rows = [((row * scale + 0.5).clamp(0, 1) * 255).round() for row in rows]
        else:
            rows = [row @ matrix.T for row in rows]
        for x, row in zip(mapped, rows, strict=True):
            x[task] = row.view_as(x[task]).to(x.dtype)
    found = (part._replace(x=x) for part, x in zip(sets, mapped, strict=True))
    return episode._replace(support=next(found), query=next(found))
