"""One task drawn from the data, and what a learner answered: pictures, texts or numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor

from quickstudy.data.design import EpisodeDesign, span
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Pool, PoolSource, Split
from quickstudy.data.text_tasks import Texts
from quickstudy.episode import leaves
from quickstudy.evaluation import answering
from quickstudy.evaluation.attention import answer_with_attention
from quickstudy.learners.base import Learner
from quickstudy.likelihood import Categorical

LARGEST_PICTURE = 96
"""Pixels; larger pictures are shrunk before they are put into the page."""
SHOWN = 5
"""Queries of each class that are shown."""


def design_of(scores: Mapping[str, Any]) -> EpisodeDesign:
    """The shape of the tasks of an evaluation."""
    return EpisodeDesign(
        span(scores["way"]),
        span(scores["shot"]),
        int(scores["queries"]),
        bool(scores["within_group"]),
        int(scores.get("unlabelled", 0)),
    )


class Drawn(NamedTuple):
    """One task and the answers to its queries."""

    class_names: list[str]
    support: list[list[str]]
    """HTML of each support example, by class."""
    queries: list[list[str]]
    """HTML of each query, by class."""
    probabilities: Tensor
    """(class, query, way)."""
    attention: Tensor | None = None
    """(class, query, support), how queries share their attention, of a learner whose queries attend; by class."""

    @property
    def answers(self) -> Tensor:
        """int64 (class, query), the class that was answered."""
        return self.probabilities.argmax(-1)


def draw_task(
    learner: Learner,
    source: PoolSource,
    design: EpisodeDesign,
    *,
    split: Split = "test",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Drawn:
    """The first task of a seed, as the learner answers it.

    Args:
        design: of the task; of a range of ways or shots the largest is taken, and at least one example to show.

    Raises:
        DataError: the split cannot fill the design.
    """
    whole = replace(
        design,
        way=span(design.way)[1],
        shot=max(1, span(design.shot)[1]),
        unlabelled=design.unlabelled if learner.semi_supervised else 0,
    )
    source.prepare(learner.encoder)
    episodes = Episodes(source, split, whole, seed=seed)
    episode = episodes[0].to(device)
    with answering(learner, device):
        outputs, attention = answer_with_attention(learner, episode)
    likelihood = cast(Categorical, learner.likelihood)
    probabilities = likelihood.probabilities(outputs, episode.context)[0].cpu()
    drawn = episodes.drawn(0)
    classes, support, queries = drawn.classes[0], drawn.support[0], drawn.query[0]
    pool = source.pool(split)
    shown = Shown(source, pool, split)
    return Drawn(
        class_names=[pool.class_names[i] for i in classes.tolist()],
        support=[[shown.example(row) for row in rows] for rows in support.tolist()],
        queries=[[shown.example(row) for row in rows] for rows in queries.tolist()],
        probabilities=probabilities.unflatten(0, (len(classes), -1)),
        attention=None
        if attention is None
        else attention[0].cpu().unflatten(0, (len(classes), -1)),
    )


class Shown:
    """Examples of a pool as HTML."""

    def __init__(self, source: PoolSource, pool: Pool, split: Split) -> None:
        self.kind, self.pool = source.kind, pool
        self.ink = self.kind == "image" and is_ink(leaves(pool.x)[0])
        self.texts = source.pool_texts(split) if isinstance(source, Texts) else None

    def example(self, row: int) -> str:
        """One example: an ``img`` element, or escaped text."""
        if self.texts is not None:
            return escape(self.texts[row])
        x = leaves(self.pool.x)[0][row]
        if self.kind == "image" or (self.kind == "several" and x.ndim == 3):
            return f'<img alt="" src="{picture(x)}"{" class=ink" if self.ink else ""}>'
        numbers = [f"{number:.3g}" for number in x.flatten()[:6].tolist()]
        return escape(", ".join(numbers) + (", …" if x.numel() > 6 else ""))


def picture(x: Tensor) -> str:
    """An image (channel, height, width), uint8 or float in 0 … 1, as the address of an embedded PNG."""
    if x.is_floating_point():
        x = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    array = x[0].numpy() if len(x) == 1 else x[:3].permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def is_ink(images: Tensor) -> bool:
    """Whether images (image, channel, height, width) are bright drawings on black, which a page may show on paper."""
    some = images[:: max(1, len(images) // 100)]
    return some.shape[1] == 1 and float((some == 0).float().mean()) > 0.4
