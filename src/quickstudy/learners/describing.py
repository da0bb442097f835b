"""What a task says of itself, as tokens: its description, the names of its classes, and its support."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Context, Examples
from quickstudy.learners.metric import class_sums
from quickstudy.nn.words import NameReader, present


class Described(NamedTuple):
    """What is known of each task, as tokens."""

    tokens: Tensor
    """(task, token, width)"""
    mask: Tensor
    """bool (task, token), which there are"""
    names: Tensor
    """What the name of each class says, (task, way, width); zero columns where nobody reads names."""
    named: Tensor
    """bool (task, way), which classes have a name"""
    spoken: Tensor
    """What the encoder makes of the names, (task, way, features); zero columns where it reads none."""


class Describer(nn.Module):
    """Makes tokens of a task: one of its description, and one of each class, or of each example of values.

    The token of a class is ``P(mean_i f(x_i)) + R(name)``, of which either may be absent; of an example of values,
    ``P([f(x_i); y_i])``; of a description, ``R(words)`` or ``A numbers``.

    Args:
        features: of an encoded example.
        width: of a token.
        names: read names of classes, and descriptions in words.
        reads_words: the learner's encoder does, where names are read; else they are read byte by byte.
        numbers: of a description; 0: none has any.
        values: numbers of a label; 0: it is a class.
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        names: bool,
        reads_words: bool,
        numbers: int,
        values: int,
    ) -> None:
        super().__init__()
        self.names, self.numbers, self.values = names, numbers, values
        self.features, self.width = features, width
        self.examples = nn.Sequential(
            nn.Linear(features + values, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        if numbers:
            self.from_numbers = nn.Linear(numbers, width)
        self.words = NameReader(width) if names and not reads_words else None
        if names:
            self.from_words = nn.Linear(features if reads_words else width, width)

    def forward(
        self,
        support: Examples,
        context: Context,
        shown: Tensor,
        encode: Callable[[Tensor], Tensor],
    ) -> Described:
        """The tokens of some tasks.

        Args:
            support: encoded, (task, example, features).
            context: what is known of the tasks.
            shown: bool (task, 1), whether names and description are.
            encode: what reads words (task, name, word), if the encoder does.

        Raises:
            ValueError: a description has another number of numbers than there should be.
        """
        named, spoken, names = self._named(context, shown, encode)
        if self.values:
            tokens = self.examples(torch.cat([support.x, support.y.to(support.x.dtype)], -1))
            exist = support.mask
        else:
            sums, counts = class_sums(support.x, support, context.classes.shape[1])
            means = self.examples(sums / counts.clamp(min=1)[..., None])
            tokens, exist = means * (counts > 0)[..., None], (counts > 0) | named
            if self.names:
                tokens = tokens + names
        said, is_said = self._description(context, shown, encode)
        tokens, exist = torch.cat([tokens, said], 1), torch.cat([exist, is_said], 1)
        return Described(tokens, exist, names, named, spoken)

    def _named(
        self, context: Context, shown: Tensor, encode: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which classes have a name, what the encoder makes of it, and what it says, (task, way, width)."""
        shape = context.classes.shape
        nothing = next(self.parameters()).new_zeros(*shape, 0)
        if not self.names:
            return torch.zeros_like(context.classes), nothing, nothing
        if not context.names.shape[-1]:
            none = nothing.new_zeros(*shape, self.width)
            spoken = nothing if self.words else nothing.new_zeros(*shape, self.features)
            return torch.zeros_like(context.classes), spoken, none
        named = context.classes & present(context.names) & shown
        spoken = nothing if self.words else encode(context.names)
        names = self._read(context.names, None if self.words else spoken)
        return named, spoken, names * named[..., None]

    def _description(
        self, context: Context, shown: Tensor, encode: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A token of what a task says of itself, (task, 1, width), or none; and where it says something."""
        said = context.description
        if said.shape[-1] and said.is_floating_point():
            if said.shape[-1] != self.numbers:
                raise ValueError(
                    f"Found descriptions of {said.shape[-1]} numbers, but this learner takes {self.numbers}; build it "
                    f"with numbers={said.shape[-1]}."
                )
            token = self.from_numbers(said.to(next(self.parameters()).dtype))
            return token[:, None], shown
        if said.shape[-1] and self.names:
            spoken = None if self.words else encode(said[:, None])
            return self._read(said[:, None], spoken), present(said)[:, None] & shown
        return next(self.parameters()).new_zeros(said.shape[0], 0, self.width), shown[:, :0]

    def _read(self, words: Tensor, spoken: Tensor | None) -> Tensor:
        """What words (task, name, word) say, (task, name, width)."""
        found = spoken
        if found is None:
            assert self.words is not None
            found = self.words(words)
        read: Tensor = self.from_words(found.to(next(self.parameters()).dtype))
        return read
