"""Mixtures: tasks of several sources in one run, each task of one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import draw_from
from quickstudy.data.source import DataError, PoolSource, Prior, Split, TaskSource
from quickstudy.data.streams import GroupStreams
from quickstudy.data.text_tasks import Texts
from quickstudy.episode import Episode, Stream, leaves, padding_value, tree_map

_WEIGHT = re.compile(r"\s*(?:([\d.]+(?:[eE][+-]?\d+)?)\s*\*\s*)?\(")

Draw = Callable[[torch.Generator], Episode]
Shapes = list[tuple[int, ...]]
"""Of the tensors of an episode, all axes but that of tasks."""


class Mixed(NamedTuple):
    """A source of a mixture."""

    name: str
    weight: float
    source: TaskSource


def read_mixture(text: str | None) -> list[tuple[float, str]]:
    """Weights and specs of ``(SPEC)+2*(SPEC)+…``, a spec of any source in parentheses with its weight before it.

    Raises:
        DataError: the text is written otherwise, or there are fewer than two sources.

    >>> read_mixture("(sinusoid)+2*(linear,dims=1)")
    [(1.0, 'sinusoid'), (2.0, 'linear,dims=1')]
    """
    text = text or ""
    found: list[tuple[float, str]] = []
    at = 0
    while at < len(text):
        match = _WEIGHT.match(text, at)
        end = _closing(text, match.end()) if match else None
        if match is None or end is None or text[end + 1 : end + 2] not in ("", "+"):
            break
        found.append((float(match[1] or 1), text[match.end() : end].strip()))
        at = end + 2
    if at < len(text) or text.endswith("+") or len(found) < 2:
        raise DataError(
            f"A mixture is written mixture:(SPEC)+(SPEC), with weights such as 2*(SPEC) where they differ; found "
            f"{text!r}."
        )
    return found


def _closing(text: str, start: int) -> int | None:
    """Where the parenthesis that was opened before ``start`` is closed."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place
    return None


class Mixture(Prior):
    """Several sources in one run: each task is of one of them, ``p_i ~ w_i n_i^(1 / T)``.

    ``mixture:(sinusoid)+2*(linear,dims=1)`` or ``mixture:(glyphs)+(omniglot:FOLDER),temperature=2``. n_i is the number
    of training examples of a data set, 1 of a world, which has no end. At temperature 1 a data set counts as much as it
    holds; the higher T, the more evenly; at the default, weights alone count.

    Arivazhagan et al. 2019, Massively Multilingual Neural Machine Translation in the Wild, where T is 1 to 100. Differs
    from the paper: it is tasks that are drawn, not sentences, and sources have weights.

    A batch mixes tasks of all sources. Rows of fewer numbers have zeros behind, texts and names are padded. Training
    examples are varied as each source varies its own. Who answers a task is not told of which source it is.

    Args:
        sources: at least two, of one kind of examples, and all of classes or all of as many values.
        temperature: T.

    Raises:
        DataError: the sources cannot be mixed; says which and why.
        ValueError: the temperature is not positive.

    >>> from quickstudy.data.synthetic import Linear, Sinusoid
    >>> parts = [Mixed("waves", 1, Sinusoid()), Mixed("planes", 3, Linear(dims=2))]
    >>> mixture = Mixture(parts)
    >>> mixture.shares.tolist(), mixture.inputs
    ([0.25, 0.75], 2)
    """

    def __init__(self, sources: Sequence[Mixed], *, temperature: float = math.inf) -> None:
        if not temperature > 0:
            raise ValueError(f"The temperature must be positive; found {temperature}.")
        self.mixed, self.temperature = tuple(sources), temperature
        self.sources: Mapping[str, TaskSource] = {each.name: each.source for each in self.mixed}
        _check(self.mixed)
        first = self.mixed[0].source
        self.kind = first.kind  # type: ignore[misc]
        self.values, self.labels = _values(first), first.labels
        self.inputs = max(map(_inputs, self.sources.values()))
        self.shares = _shares(self.mixed, temperature)
        """float64 (source,), how often a task is of each."""
        self._shapes: dict[tuple[Split, EpisodeDesign], Shapes] = {}
        self._draws: dict[tuple[str, Split, EpisodeDesign, int], Draw] = {}

    def of(self, change: Callable[[TaskSource], TaskSource]) -> Mixture:
        """The same mixture, in the same shares, of sources that were changed."""
        changed = Mixture([each._replace(source=change(each.source)) for each in self.mixed])
        changed.temperature, changed.shares = self.temperature, self.shares
        return changed

    def prepare(self, encoder: Any) -> None:
        for source in self.sources.values():
            source.prepare(encoder)
        self._shapes, self._draws = {}, {}

    def draw(
        self, split: Split, design: EpisodeDesign, *, tasks: int, generator: torch.Generator
    ) -> Episode:
        shapes = self._common(split, design)

        def draw(name: str, count: int) -> Episode:
            return _padded(self._draw_of(name, split, design, count)(generator), shapes)

        mixed: Episode = self._mixed(draw, tasks, generator)
        return mixed

    def draw_stream(
        self,
        split: Split,
        design: EpisodeDesign,
        *,
        tasks: int,
        positions: int,
        generator: torch.Generator,
    ) -> Stream:
        """A batch of streams, each of one source, whose streams share what they share there."""
        shapes = self._common(split, design)

        def draw(name: str, count: int) -> Stream:
            source = self.sources[name]
            if isinstance(source, Prior):
                stream = source.draw_stream(
                    split, design, tasks=count, positions=positions, generator=generator
                )
            else:
                assert isinstance(source, PoolSource)
                groups = GroupStreams(source.pool(split), design, tasks=count, positions=positions)
                stream = groups.stream(generator, source.augment if split == "train" else None)
            return Stream(tuple(_padded(each, shapes) for each in stream.episodes))

        mixed: Stream = self._mixed(draw, tasks, generator)
        return mixed

    def _mixed(
        self, draw: Callable[[str, int], Any], tasks: int, generator: torch.Generator
    ) -> Any:
        """What ``draw`` makes of so many tasks of each source, in the order in which the sources came up."""
        which = torch.multinomial(self.shares, tasks, replacement=True, generator=generator)
        counts = which.bincount(minlength=len(self.sources)).tolist()
        drawn = [draw(name, n) for name, n in zip(self.sources, counts, strict=True) if n]
        place = which.argsort(stable=True).argsort()
        return tree_map(lambda *each: torch.cat(each)[place], *drawn)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "mixture",
            "shares": dict(zip(self.sources, self.shares.tolist(), strict=True)),
            "sources": {name: source.describe() for name, source in self.sources.items()},
        }

    def _common(self, split: Split, design: EpisodeDesign) -> Shapes:
        """The shapes that tasks of all sources are padded to."""
        if (split, design) not in self._shapes:
            probes = [
                self._draw_of(name, split, design, 1)(torch.Generator().manual_seed(0))
                for name in self.sources
            ]
            shapes = [[tuple(leaf.shape[1:]) for leaf in leaves(probe)] for probe in probes]
            self._shapes[split, design] = [
                tuple(map(max, zip(*each, strict=True))) for each in zip(*shapes, strict=True)
            ]
        return self._shapes[split, design]

    def _draw_of(self, name: str, split: Split, design: EpisodeDesign, tasks: int) -> Draw:
        """What draws so many tasks of one source, its training examples varied."""
        key, source = (name, split, design, tasks), self.sources[name]
        if isinstance(source, Prior):
            return lambda generator: source.draw(split, design, tasks=tasks, generator=generator)
        assert isinstance(source, PoolSource)
        if key not in self._draws:
            draw = draw_from(source.pool(split), design, tasks=tasks)
            varied = source.augment if split == "train" else None
            self._draws[key] = lambda generator: draw.episode(generator, varied)
        return self._draws[key]


def _padded(episode: Episode, shapes: Shapes) -> Episode:
    """The same tasks, with what is missing at the end of each axis."""
    description = episode.context.description
    if not description.shape[1]:
        # A task without a description has zero columns of any type.
        description = description.long()
    episode = episode._replace(context=episode.context._replace(description=description))
    wanted = iter(shapes)

    def fill(leaf: Tensor) -> Tensor:
        missing = [b - a for a, b in zip(leaf.shape[1:], next(wanted), strict=True)]
        if not any(missing):
            return leaf
        amounts = [each for axis in reversed(missing) for each in (0, axis)]
        return pad(leaf, amounts, value=padding_value(leaf))

    padded: Episode = tree_map(fill, episode)
    return padded


def _values(source: TaskSource) -> int:
    return source.values if isinstance(source, Prior) else 0


def _inputs(source: TaskSource) -> int:
    """Numbers in an example, 0 of a text."""
    if isinstance(source, Prior):
        return source.inputs
    assert isinstance(source, PoolSource)
    return 0 if source.kind == "text" else leaves(source.pool("train").x)[0].shape[1:].numel()


def _shares(mixed: Sequence[Mixed], temperature: float) -> Tensor:
    """How often a task is of each source, float64 (source,)."""
    logs = torch.tensor([each.weight for each in mixed], dtype=torch.float64).log()
    if temperature < math.inf:
        sizes = [_size(each.source) for each in mixed]
        if 0 in sizes:
            raise DataError(
                f"The source {mixed[sizes.index(0)].name} has nothing to train on, so a temperature cannot weigh it by "
                "its size; leave temperature out, and give it a weight, such as 2*(SPEC)."
            )
        logs += torch.tensor(sizes).log() / temperature
    return logs.softmax(0)


def _size(source: TaskSource) -> int:
    if isinstance(source, Texts):  # they can be counted before an encoder has read them
        return len(source.pool_texts("train"))
    return int(source.pool("train").counts.sum()) if isinstance(source, PoolSource) else 1


def _check(sources: Sequence[Mixed]) -> None:
    """Refuse sources that cannot be mixed.

    Raises:
        DataError: says which and why.
    """
    names = [each.name for each in sources]
    if len(set(names)) < len(names) or len(names) < 2:
        raise DataError(
            f"A mixture has at least two sources, each once; found {', '.join(names)}. Give one that is to come more "
            "often a weight, such as 2*(SPEC)."
        )
    for name, weight, source in sources:
        if not 0 < weight < math.inf:
            raise DataError(f"A weight must be positive; found {weight:g} for {name}.")
        first = sources[0]
        for what, one, other in (
            ("examples of the kind", first.source.kind, source.kind),
            ("tasks of", _task(first.source), _task(source)),
            ("images of the shape", _image(first.source), _image(source)),
        ):
            if one != other and () not in (one, other):
                raise DataError(
                    f"These cannot be mixed: {first.name} has {what} {one}, but {name} of {other}. Mix sources that "
                    "one encoder reads and that ask for the same."
                )


def _task(source: TaskSource) -> str:
    values = _values(source)
    many = "many labels for an example" if source.labels == "many" else "classes"
    return f"{values} values" if values else many


def _image(source: TaskSource) -> tuple[int, ...]:
    """Channels, height and width; nothing of what is no image, or of a source that makes its tasks itself."""
    if source.kind != "image" or not isinstance(source, PoolSource):
        return ()
    return tuple(leaves(source.pool("train").x)[0].shape[1:])
