"""Task sources by name; ``SOURCES`` is the only list of them."""

from __future__ import annotations

from quickstudy.data.areas import ShortTexts
from quickstudy.data.corpora import (
    AgNews,
    Banking77,
    Clinc150,
    FduMtl,
    HuffPost,
    Reuters,
    Snips,
    Trec,
)
from quickstudy.data.families import Families
from quickstudy.data.fewrel import FewRel
from quickstudy.data.fonts import FontSource
from quickstudy.data.gaussian_process import GaussianProcess
from quickstudy.data.glyphs import GlyphSource
from quickstudy.data.hidden_words import HiddenWords
from quickstudy.data.images import ImageSource
from quickstudy.data.items import RecordSource
from quickstudy.data.leopard import Leopard
from quickstudy.data.logistic import Logistic
from quickstudy.data.mixture import Mixture
from quickstudy.data.nlupp import NluPlusPlus
from quickstudy.data.omniglot import OmniglotSource
from quickstudy.data.shared_waves import SharedSinusoid
from quickstudy.data.source import TaskSource
from quickstudy.data.synthetic import Linear, Sinusoid
from quickstudy.data.tables import InventedTables
from quickstudy.data.text import TextSource

SOURCES: dict[str, type[TaskSource]] = {
    "glyphs": GlyphSource,
    "fonts": FontSource,
    "omniglot": OmniglotSource,
    "images": ImageSource,
    "text": TextSource,
    "short_texts": ShortTexts,
    "hidden_words": HiddenWords,
    "clinc150": Clinc150,
    "banking77": Banking77,
    "snips": Snips,
    "huffpost": HuffPost,
    "reuters": Reuters,
    "trec": Trec,
    "ag_news": AgNews,
    "fewrel": FewRel,
    "fdu_mtl": FduMtl,
    "leopard": Leopard,
    "nlupp": NluPlusPlus,
    "records": RecordSource,
    "sinusoid": Sinusoid,
    "shared_sinusoid": SharedSinusoid,
    "linear": Linear,
    "gaussian_process": GaussianProcess,
    "logistic": Logistic,
    "families": Families,
    "tables": InventedTables,
    "mixture": Mixture,
}
