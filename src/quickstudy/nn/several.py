"""Examples of several parts, such as an image, a text and numbers, each through an encoder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import WORD_PADDING, Inputs
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Norm, Transformer
from quickstudy.nn.words import NameReader, bytes_of, present


class WordsEncoder(Encoder):
    """Short texts, read byte by byte; nothing is pretrained.

    Args:
        width: features of a text.
        buckets: rows of the reader's tables.

    >>> encoder = WordsEncoder(8)
    >>> encoder(encoder.tokenize(["red fox", "grey wolf"])).shape
    torch.Size([2, 8])
    """

    def __init__(self, width: int = 64, *, buckets: int = 4096) -> None:
        super().__init__()
        self.width = width
        self.reader = NameReader(width, buckets=buckets)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts as int64 (example, word), their bytes, -1 for padding."""
        words = bytes_of(texts)
        return words if words.shape[1] else words.new_full((len(texts), 1), WORD_PADDING)

    def forward(self, x: Inputs) -> Tensor:
        found: Tensor = self.reader(x)
        return found


class SeveralEncoders(Encoder):
    """Examples of several parts, each through an encoder of its own, into one space of tokens.

    ``t_m = P_m f_m(x_m) + c_m`` for each part m, with a learned code c_m; the Transformer lets the parts of an example
    see one another, and the result is the mean over those that are there. What is not there is masked: an image that is
    black, a text without words, numbers of which none is given. Single numbers that are missing count as zero.

    Args:
        parts: name to encoder; in a configuration, name to a mapping of a name and options.
        width: features of the result.
        layers: of the Transformer over the parts; 0 for their mean as they are.
        heads: of its attention.

    Inputs: name to what the part's encoder takes, (example, …) each.

    Raises:
        ValueError: there are no parts, or an example has others.

    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> encoder = SeveralEncoders({"text": WordsEncoder(8), "numbers": VectorEncoder(2, width=8)}, width=8)
    >>> encoder({"text": bytes_of(["fox", "wolf"]), "numbers": torch.zeros(2, 2)}).shape
    torch.Size([2, 8])
    """

    codes: nn.Parameter

    def __init__(
        self, parts: Mapping[str, Encoder], *, width: int = 64, layers: int = 1, heads: int = 4
    ) -> None:
        super().__init__()
        if not parts or layers < 0:
            raise ValueError(
                f"Examples of several parts need at least one part and 0 or more layers; found {list(parts)} and "
                f"{layers}."
            )
        self.width = width
        self.parts = nn.ModuleDict(dict(parts))
        self.project = nn.ModuleDict({n: nn.Linear(e.width, width) for n, e in parts.items()})
        self.codes = nn.Parameter(torch.empty(len(parts), width))
        self.transformer = Transformer(width, layers=layers, heads=heads) if layers else None
        self.norm = Norm(width)
        self.bytes_per_example = max(each.bytes_per_example for each in parts.values())
        self.pretrained = any(each.pretrained for each in parts.values())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the codes anew."""
        nn.init.normal_(self.codes, std=0.5)

    def part(self, name: str) -> Encoder:
        """The encoder of a part."""
        return cast(Encoder, self.parts[name])

    def assets(self) -> dict[str, bytes]:
        return {
            f"{name}.{file}": content
            for name in self.parts
            for file, content in self.part(name).assets().items()
        }

    def read(self, x: Mapping[str, Any]) -> dict[str, Tensor]:
        """Parts as they come from a file, texts still strings, as tensors."""
        found = {}
        for name, given in x.items():
            tokenize = getattr(self.parts[name], "tokenize", bytes_of)
            found[name] = given if isinstance(given, Tensor) else tokenize(list(given))
        return found

    def forward(self, x: Inputs) -> Tensor:
        if not isinstance(x, Mapping) or set(x) != set(self.parts):
            found = ", ".join(x) if isinstance(x, Mapping) else "one tensor"
            raise ValueError(
                f"Found {found}, but examples for this encoder have the parts {', '.join(self.parts)}."
            )
        there = torch.stack([_there(x[name]) for name in self.parts], 1)
        tokens = [
            self.project[name](self.part(name)(_filled(x[name], there[:, i]))) + self.codes[i]
            for i, name in enumerate(self.parts)
        ]
        read = torch.stack(tokens, 1)
        if self.transformer is not None:
            # Where nothing is there, attention must still sum to one.
            seen = there | ~there.any(1, keepdim=True)
            read = self.transformer(read, mask=seen[:, None, None])
        kept = there[..., None].to(read.dtype)
        mean = (read * kept).sum(1) / kept.sum(1).clamp(min=1)
        return cast(Tensor, self.norm(mean))


def _there(x: Tensor) -> Tensor:
    """Which examples have this part at all, bool (example,)."""
    if x.dtype == torch.int64:
        return present(x)
    if x.is_floating_point():
        return (~x.isnan()).flatten(1).any(1)
    return (x != 0).flatten(1).any(1)


def _filled(x: Tensor, there: Tensor) -> Tensor:
    """The part with something harmless where nothing is there."""
    if x.dtype == torch.int64:
        x = x if x.shape[1] else F.pad(x, (0, 1), value=WORD_PADDING)
        first = torch.arange(x.shape[1], device=x.device) == 0
        return torch.where(~there[:, None] & first, 0, x)
    return x.nan_to_num(0.0) if x.is_floating_point() else x
