"""Encoders map each example to a vector of ``width`` features; they know nothing of tasks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Inputs, leaves, take_tasks, tree_map
from quickstudy.functional import inside_transform
from quickstudy.nn.layers import Norm, Transformer
from quickstudy.nn.positions import LearnedPositions, SinusoidalPositions

LARGEST_CPU_TENSOR = 6_100_000
"""Bytes of one activation map above which examples go through a CPU in pieces: larger tensors leave the cache."""


class Encoder(nn.Module, ABC):
    """Examples in, vectors out."""

    width: int
    """Features of an encoded example."""
    bytes_per_example: int = 0
    """Size of the largest activation of one example; 0 when unknown (examples then go through in one piece)."""
    pretrained: bool = False
    """The weights came from elsewhere, not from a random generator."""
    published: str = ""
    """Checksum of the published model that :attr:`given` weights are those of; empty where there is none such."""

    @property
    def given(self) -> frozenset[str]:
        """Weights, by name, that stay what a published model has, so that an artifact may leave them out."""
        return frozenset()

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


@runtime_checkable
class ReadsPairs(Protocol):
    """An encoder that can read two examples in one pass, each in the sight of the other."""

    def read_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors (pair, width) of pairs of examples (pair, …)."""


def encode(encoder: Encoder, x: Inputs) -> Tensor:
    """Encode examples with a task axis: (task, example, …) to (task, example, width).

    On a CPU the examples go through the encoder in pieces that stay in the cache; results do not depend on
    it.

    >>> encode(VectorEncoder(inputs=3, width=8, layers=1), torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 8])
    """
    first = leaves(x)[0]
    tasks, examples = first.shape[:2]
    count = tasks * examples
    if torch.compiler.is_exporting():  # a program of any number of examples has no pieces
        # By way of one axis: the tracer takes the stride of merged axes for min(width, width · examples), which an
        # encoder that gives a view hands on, and then cannot tell that any number of examples will do.
        flat = tree_map(lambda tensor: tensor.reshape(-1).reshape(count, *tensor.shape[2:]), x)
        return encoder(flat).unflatten(0, (tasks, examples))
    flat = tree_map(lambda tensor: tensor.flatten(0, 1), x)
    piece = count
    if first.device.type == "cpu" and encoder.bytes_per_example:
        piece = max(1, LARGEST_CPU_TENSOR // encoder.bytes_per_example)
    if piece >= count:
        return encoder(flat).unflatten(0, (tasks, examples))
    # As few pieces as will do, and none that is much smaller than the others.
    piece = -(-count // -(-count // piece))
    starts = range(0, count, piece)
    pieces = [encoder(take_tasks(flat, slice(i, i + piece))) for i in starts]
    return torch.cat(pieces).unflatten(0, (tasks, examples))


def convolve(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution and group norm, which keeps examples apart from one another."""
    groups = math.gcd(8, max(1, outputs // 2))
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=False),
        nn.GroupNorm(groups, outputs),
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut: ``ReLU(x + C_2(ReLU(C_1(x))))``.

    He et al. 2016, Deep Residual Learning for Image Recognition, with group norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = convolve(channels, channels), convolve(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ImageEncoder(Encoder):
    """A small convolutional stem, then a Transformer over its feature map, then a linear map of all tokens.

    The stem is what lets a Transformer learn from few images (Xiao et al. 2021, Early Convolutions Help
    Transformers See Better); it halves the image three times. Reading out every token keeps what the mean over tokens
    would lose: where a stroke was. Scores stay inductive, for nothing normalises over examples.

    Args:
        width: features of a token and of the result.
        layers: Transformer layers.
        heads: attention heads.
        stem: channels of the stem's residual block; half the width when 0.
        channels: channels of the images.
        size: height and width of the images, in pixels; a multiple of 4.
        positions: how tokens know their place.
        groups: of heads that share keys and values; 0: each head has its own.
        window: how far tokens see one another, row by row; 0: everywhere.
        slots: learned tokens that see and are seen by all, whatever the window.
        readout: ``flatten``, or ``mean`` over the tokens.
        dropout: while training.

    Inputs: (example, channel, height, width), uint8 in 0 … 255 or float in 0 … 1.

    Raises:
        ValueError: an option is out of range; images of another shape than the encoder was built for.

    >>> ImageEncoder(16, layers=1)(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 16])
    """

    def __init__(
        self,
        width: int = 128,
        *,
        layers: int = 1,
        heads: int = 4,
        stem: int = 0,
        channels: int = 1,
        size: int = 28,
        positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned",
        groups: int = 0,
        window: int = 0,
        slots: int = 0,
        readout: Literal["flatten", "mean"] = "flatten",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, right in (
            ("positions", positions, ("learned", "sinusoidal", "rotary", "none")),
            ("readout", readout, ("flatten", "mean")),
        ):
            if value not in right:
                raise ValueError(f"The {name} must be {' or '.join(right)}; found {value!r}.")
        if size % 4:
            raise ValueError(f"The image size must be a multiple of 4; found {size}.")
        if width % 8:
            raise ValueError(f"The width must be a multiple of 8; found {width}.")
        stem = stem or width // 2
        if stem % 4:
            raise ValueError(f"The stem must be a multiple of 4; found {stem}.")
        self.width, self.size, self.channels = width, size, channels
        self.bytes_per_example = stem * size * size
        self.stem = nn.Sequential(
            convolve(channels, stem // 4),
            nn.ReLU(),
            nn.AvgPool2d(2),
            convolve(stem // 4, stem),
            nn.ReLU(),
            nn.AvgPool2d(2),
            Residual(stem),
            convolve(stem, width, stride=2),
        )
        tokens = ((size // 4 + 1) // 2) ** 2
        self.positions: nn.Module = nn.Identity()
        if positions == "learned":
            self.positions = LearnedPositions(width, length=tokens)
        elif positions == "sinusoidal":
            self.positions = SinusoidalPositions(width)
        self.transformer = Transformer(
            width,
            layers=layers,
            heads=heads,
            rotary=positions == "rotary",
            dropout=dropout,
            groups=groups,
            window=window,
            slots=slots,
        )
        self.readout: nn.Module | None = None
        if readout == "flatten":
            self.readout = nn.Linear(tokens * width, width)

    def feature_map(self, pixels: Tensor) -> Tensor:
        """What the stem makes of images, (example, width, row, column)."""
        first, *rest = self.stem
        features: Tensor = first(pixels)
        if not inside_transform():
            # A seventh faster; group norm has no rule for this layout under vmap.
            features = features.contiguous(memory_format=torch.channels_last)
        for layer in rest:
            features = layer(features)
        return features

    def forward(self, x: Inputs) -> Tensor:
        if tuple(x.shape[1:]) != (self.channels, self.size, self.size):
            raise ValueError(
                f"Images of shape {tuple(x.shape[1:])} (channel, height, width), but this encoder takes "
                f"{(self.channels, self.size, self.size)}; resize the images, or build the encoder with their size."
            )
        dtype = self.transformer.norm.weight.dtype
        pixels = x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
        tokens = self.feature_map(pixels).flatten(2).transpose(1, 2)
        tokens = self.transformer(self.positions(tokens))
        return tokens.mean(1) if self.readout is None else self.readout(tokens.flatten(1))


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
