"""Encoders map each example to a vector of ``width`` features; they know nothing of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from quickstudy.episode import Inputs, leaves, take_tasks, tree_map
from quickstudy.nn.layers import LearnedPositions, Norm, SinusoidalPositions, Transformer

LARGEST_CPU_TENSOR = 4_000_000
"""Bytes of one activation map above which examples go through a CPU in pieces: larger tensors leave the cache."""


class Encoder(nn.Module, ABC):
    """Examples in, vectors out."""

    width: int
    """Features of an encoded example."""
    bytes_per_example: int = 0
    """Size of the largest activation of one example; 0 when unknown (examples then go through in one piece)."""
    pretrained: bool = False
    """The weights came from elsewhere, not from a random generator."""

    def assets(self) -> dict[str, bytes]:
        """File name to content: what rebuilds this encoder beside its options and weights; nothing for most."""
        return {}

    @classmethod
    def from_assets(cls, assets: Mapping[str, bytes], **options: Any) -> Self:
        """An encoder of the shape of the one that gave ``assets``, its weights still to be loaded."""
        return cls(**options)

    @abstractmethod
    def forward(self, x: Inputs) -> Tensor:
        """Encode a tree of tensors (example, …) as (example, width)."""


def encode(encoder: Encoder, x: Inputs) -> Tensor:
    """Encode examples with a task axis: (task, example, …) to (task, example, width).

    On a CPU the examples go through the encoder in pieces that stay in the cache; results do not depend on
    it.

    >>> encode(VectorEncoder(inputs=3, width=8, layers=1), torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 8])
    """
    first = leaves(x)[0]
    tasks, examples = first.shape[:2]
    flat = tree_map(lambda tensor: tensor.flatten(0, 1), x)
    count = tasks * examples
    piece = count
    if first.device.type == "cpu" and encoder.bytes_per_example:
        piece = max(1, LARGEST_CPU_TENSOR // encoder.bytes_per_example)
    if piece >= count:
        return encoder(flat).unflatten(0, (tasks, examples))
    starts = range(0, count, piece)
    pieces = [encoder(take_tasks(flat, slice(i, i + piece))) for i in starts]
    return torch.cat(pieces).unflatten(0, (tasks, examples))


class ImageEncoder(Encoder):
    """A small convolutional stem, then a Transformer over its feature map, then the mean over tokens.

    The stem is what lets a Transformer learn from few images (Xiao et al. 2021, Early Convolutions Help
    Transformers See Better). Group norm keeps examples apart from one another, so scores stay inductive.

    Args:
        width: features of a token and of the result.
        layers: Transformer layers.
        heads: attention heads.
        channels: channels of the images.
        size: height and width of the images, in pixels; a multiple of 4.
        positions: how tokens know their place.
        dropout: while training.

    Inputs: (example, channel, height, width), uint8 in 0 … 255 or float in 0 … 1.

    Raises:
        ValueError: images of another shape than the encoder was built for.
    """

    def __init__(
        self,
        width: int = 64,
        *,
        layers: int = 2,
        heads: int = 4,
        channels: int = 1,
        size: int = 28,
        positions: Literal["learned", "sinusoidal", "none"] = "learned",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(f"The image size must be a multiple of 4; found {size}.")
        if width % 8:
            raise ValueError(f"The width must be a multiple of 8; found {width}.")
        if positions not in ("learned", "sinusoidal", "none"):
            raise ValueError(
                f"The positions must be learned, sinusoidal or none; found {positions!r}."
            )
        self.width, self.size, self.channels = width, size, channels
        half = width // 2
        self.bytes_per_example = 4 * half * size * size // 2
        self.stem = nn.Sequential(
            nn.Conv2d(channels, half, 3, padding=1, stride=2),
            nn.GroupNorm(4, half),
            nn.ReLU(),
            nn.Conv2d(half, width, 3, padding=1, stride=2),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width),
        )
        self.positions: nn.Module = (
            LearnedPositions(width, length=(size // 4) ** 2)
            if positions == "learned"
            else SinusoidalPositions(width)
            if positions == "sinusoidal"
            else nn.Identity()
        )
        self.transformer = Transformer(width, layers=layers, heads=heads, dropout=dropout)

    def forward(self, x: Inputs) -> Tensor:
        if tuple(x.shape[1:]) != (self.channels, self.size, self.size):
            raise ValueError(
                f"Images of shape {tuple(x.shape[1:])} (channel, height, width), but this encoder takes "
                f"{(self.channels, self.size, self.size)}; resize the images, or build the encoder with their size."
            )
        dtype = self.transformer.norm.weight.dtype
        pixels = x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
        tokens = self.stem(pixels).flatten(2).transpose(1, 2)
        return self.transformer(self.positions(tokens)).mean(1)


class VectorEncoder(Encoder):
    """A residual perceptron over rows of numbers; rows with fewer numbers are padded with zeros.

    ``h_0 = W x``, ``h_{l+1} = h_l + GELU(W_l Norm(h_l))``, result ``Norm(h_L)``.

    Args:
        inputs: most numbers in a row.
        width: features of the result.
        layers: residual layers.

    Raises:
        ValueError: rows with more than ``inputs`` numbers.

    >>> VectorEncoder(inputs=4, width=8)(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(self, inputs: int = 32, *, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.inputs, self.width = inputs, width
        self.embed = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(
            nn.Sequential(Norm(width), nn.Linear(width, width), nn.GELU()) for _ in range(layers)
        )
        self.norm = Norm(width)

    def forward(self, x: Inputs) -> Tensor:
        if x.ndim != 2 or x.shape[1] > self.inputs:
            raise ValueError(
                f"Rows of shape {tuple(x.shape[1:])}, but this encoder takes at most {self.inputs} numbers a row; "
                "select columns, or train an artifact with more inputs."
            )
        x = nn.functional.pad(x.to(self.embed.weight.dtype), (0, self.inputs - x.shape[1]))
        hidden = self.embed(x)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.norm(hidden)


class RawEncoder(Encoder):
    """No encoder at all: each example is its numbers in a row, pixels in 0 … 1.

    Args:
        inputs: how many numbers an example has.

    >>> RawEncoder(inputs=4)(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.width = inputs

    def forward(self, x: Inputs) -> Tensor:
        flat = x.flatten(1)
        if flat.shape[1] != self.width:
            raise ValueError(
                f"Examples of {flat.shape[1]} numbers, but this encoder takes {self.width}."
            )
        return flat.float() / 255 if x.dtype == torch.uint8 else flat
