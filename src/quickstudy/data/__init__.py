"""Task sources by name; ``SOURCES`` is the only list of them."""

from __future__ import annotations

from quickstudy.data.images import ImageSource
from quickstudy.data.omniglot import OmniglotSource
from quickstudy.data.glyphs import Glyphs
from quickstudy.data.source import TaskSource
from quickstudy.data.text import TextSource

SOURCES: dict[str, type[TaskSource]] = {
    "omniglot": OmniglotSource,
    "images": ImageSource,
    "text": TextSource,
}
