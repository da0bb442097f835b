"""Texts and the names of classes and groups, as learners read them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from quickstudy.data.source import DataNote, Pool
from quickstudy.data.splitting import shortened
from quickstudy.nn.words import bytes_of

MOST_NAMED = 5
"""Labels that a note names, each with those that are like it."""


@runtime_checkable
class Tokenizes(Protocol):
    """An encoder of texts."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts as int64 (example, word), -1 for padding."""


def tokens_of(texts: Sequence[str], encoder: Any) -> Tensor:
    """Texts as the tokens of an encoder, int64 (example, word), -1 for padding, and a note where it cannot read them.

    An encoder that says what it could not read, as :class:`quickstudy.nn.pretrained.HuggingFaceEncoder` does, is
    quoted: how many texts are longer than it reads, and how many hold no word or letter that it knows.
    """
    reading = getattr(encoder, "reading", None)
    if reading is None:
        tokens: Tensor = encoder.tokenize(texts)
        return tokens
    found = reading(texts)
    for rows, what, todo in (
        (
            found.cut,
            f"longer than the {encoder.words} tokens that the encoder reads and cut off there",
            "shorten them, or train with a larger encoder.words",
        ),
        (
            found.unknown,
            "without a single word or letter that the encoder knows, so they all look alike to it",
            "use an encoder that was trained on this script",
        ),
    ):
        if rows:
            are = "is" if len(rows) == 1 else "are"
            warnings.warn(
                f"{len(rows):,} of {len(texts):,} texts {are} {what}, such as {shortened(texts[rows[0]])!r}; {todo}.",
                DataNote,
                stacklevel=3,
            )
    return found.tokens


def note_alike(labels: Iterable[str]) -> None:
    """Say which labels differ only in case, blanks or underscores, and so may be meant for one class.

    >>> note_alike(["card_arrival", "card_arrived"])
    """
    _note_kin(
        labels,
        lambda label: readable(label).casefold(),
        "read alike, but each is a class of its own; write it in one way where one class is meant",
    )


def note_trimmed(labels: Iterable[str]) -> None:
    """Say which labels of a file differ only in the blanks around them, which are taken away.

    >>> note_trimmed(["card_arrival", "card arrival"])
    """
    _note_kin(
        labels,
        str.strip,
        "differ only in the blanks around them and are one class; write it in one way",
    )


def _note_kin(labels: Iterable[str], same: Callable[[str], str], said: str) -> None:
    kin: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        kin.setdefault(same(label), []).append(label)
    found = [" and ".join(map(repr, sorted(names))) for names in kin.values() if len(names) > 1]
    if found:
        more = f" ({len(found) - MOST_NAMED} more such)" if len(found) > MOST_NAMED else ""
        names = ", ".join(found[:MOST_NAMED])
        warnings.warn(f"The labels {names}{more} {said}.", DataNote, stacklevel=3)


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
