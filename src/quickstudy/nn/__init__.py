"""Layers, and every encoder by name; ``ENCODERS`` is the only list of them."""

from __future__ import annotations

from quickstudy.nn.encoders import Encoder, ImageEncoder, RawEncoder, VectorEncoder
from quickstudy.nn.pretrained import HuggingFaceEncoder
from quickstudy.nn.several import SeveralEncoders, WordsEncoder
from quickstudy.nn.tables import TableEncoder

ENCODERS: dict[str, type[Encoder]] = {
    "image": ImageEncoder,
    "vector": VectorEncoder,
    "raw": RawEncoder,
    "text": HuggingFaceEncoder,
    "table": TableEncoder,
    "words": WordsEncoder,
    "several": SeveralEncoders,
}
