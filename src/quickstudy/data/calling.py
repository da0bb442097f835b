"""What classes and groups are called, as learners read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from quickstudy.data.source import Pool
from quickstudy.nn.words import bytes_of


@runtime_checkable
class Tokenizes(Protocol):
    """An encoder of texts."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts as int64 (example, word), -1 for padding."""


def readable(name: str) -> str:
    """A class name as one would say it.

    >>> readable("card_arrival")
    'card arrival'
    """
    return " ".join(name.replace("_", " ").split())


def words_of(names: Sequence[str], encoder: Any = None) -> Tensor:
    """Names as learners read them, int64 (name, word), -1 for padding: tokens of an encoder of texts, or else bytes.

    >>> words_of(["b_c", "d/e"]).tolist()
    [[98, 32, 99], [100, 32, 101]]
    """
    if isinstance(encoder, Tokenizes):
        return encoder.tokenize([readable(name) for name in names])
    # A class below a group is called group/class.
    return bytes_of([readable(name.replace("/", " ")) for name in names])


def described(pool: Pool, encoder: Any = None, said: Mapping[str, str] | None = None) -> Pool:
    """The same pool, in which a task within a group says of itself what its group says, or else is called.

    Args:
        pool: what tasks are drawn from.
        encoder: that reads its examples.
        said: of each group.
    """
    words = [(said or {}).get(name) or name for name in pool.group_names]
    return replace(pool, descriptions=words_of(words, encoder)) if any(words) else pool
