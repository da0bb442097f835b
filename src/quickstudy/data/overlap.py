"""Texts of a test that the training holds too, word for word or nearly, and data sets of one origin."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quickstudy.data.mixture import Mixture
from quickstudy.data.source import Split, TaskSource
from quickstudy.data.text_tasks import Texts

NEAR = 0.6
"""Jaccard similarity from which two texts count as nearly the same; one word in ten may differ."""
WORDS = 64
"""Words of a text that are compared; more of it few encoders read."""
RUN = 3
"""Words of a shingle."""
AT_ONCE = 2000
"""Training texts that are compared in one piece, which bounds the memory."""
SHOWN = 3
"""Pairs that a report shows."""

SHARED: tuple[tuple[tuple[str, str], str], ...] = (
    (("hwu64", "liu"), "both were made of one collection of utterances"),
    (("clinc150", "banking77"), "some intents of CLINC150 are about banking and credit cards"),
    *(
        (
            ("fdu_mtl", f"leopard/{task}"),
            "both hold Amazon reviews of books, DVDs and kitchen things",
        )
        for task in ("sentiment", "rating")
    ),
)
"""Data sets of one origin or about the same things, and why; a name stands for all that begin with it."""

_WORD = re.compile(r"\w+")
Rows = npt.NDArray[np.int64]


class Twin(NamedTuple):
    """A text of a test and the training text that is most like it."""

    tested: int
    training: int
    similarity: float
    """Of their shingles, 0 … 1."""
    exact: bool
    """Whether they have the same words in the same order."""


def words_in(text: str) -> list[str]:
    """The words of a text, whatever its case, punctuation, blanks and width of letters.

    >>> words_in("Where's  my CARD?!")
    ['where', 's', 'my', 'card']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def shingles(words: Sequence[str]) -> set[int]:
    """Hashes of all runs of three words of the first 64, those that begin before the text or end behind it included."""
    padded = [""] * (RUN - 1) + list(words[:WORDS]) + [""] * (RUN - 1)
    return {hash(tuple(padded[i : i + RUN])) for i in range(len(padded) - RUN + 1)}


def twins(training: Sequence[str], tested: Sequence[str], *, near: float = NEAR) -> list[Twin]:
    """Texts of a test that are in the training too: the same words, or ``|a ∩ b| / |a ∪ b| ≥ near`` of their shingles.

    Broder 1997, On the Resemblance and Containment of Documents; found without comparing all pairs by the rarest
    shingles of each tested text, ``|b| - ⌈near |b|⌉ + 1`` of them, one of which a similar text must hold (Bayardo et
    al. 2007, Scaling Up All Pairs Similarity Search). Nothing is missed.

    Args:
        training: texts.
        tested: others.
        near: from 0 (excluded) to 1.

    Returns:
        For each tested text that has any, the most similar training text.

    Raises:
        ValueError: ``near`` is out of range.

    >>> twins(["Where is my card?", "hello"], ["where is my card", "good bye"])
    [Twin(tested=0, training=0, similarity=1.0, exact=True)]
    """
    if not 0 < near <= 1:
        raise ValueError(f"near must lie above 0 and be at most 1; found {near}.")
    rows: dict[int, list[int]] = {}
    sets = []
    for row, text in enumerate(tested):
        words = words_in(text)
        rows.setdefault(hash(tuple(words)), []).append(row)
        sets.append(shingles(words))
    rare = _Rare(sets, near)
    del sets
    found: dict[int, Twin] = {}
    for start in range(0, len(training), AT_ONCE):
        read = [words_in(text) for text in training[start : start + AT_ONCE]]
        for place, words in enumerate(read, start=start):
            for row in rows.get(hash(tuple(words)), []):
                if row not in found or not found[row].exact:
                    found[row] = Twin(row, place, 1.0, True)
        pieces = [shingles(words) for words in read]
        for a, row in rare.candidates(pieces):
            if row in found and found[row].exact:
                continue
            own = shingles(words_in(tested[row]))
            similarity = len(pieces[a] & own) / len(pieces[a] | own)
            if similarity >= near and (row not in found or similarity > found[row].similarity):
                found[row] = Twin(row, start + a, similarity, False)
    return [found[row] for row in sorted(found)]


class _Rare:
    """The rarest shingles of some texts, by which similar texts are found.

    Args:
        sets: the shingles of each.
        near: the least similarity.
    """

    def __init__(self, sets: Sequence[set[int]], near: float) -> None:
        self.near, self.sizes = near, np.array([len(each) for each in sets], dtype=np.int64)
        marks, owners = _flat(sets)
        _, which, counts = np.unique(marks, return_inverse=True, return_counts=True)
        order = np.lexsort((marks, counts[which], owners))
        marks, owners = marks[order], owners[order]
        place = np.arange(len(marks)) - (self.sizes.cumsum() - self.sizes)[owners]
        least = np.ceil(near * self.sizes - 1e-9).astype(np.int64)
        kept = place <= (self.sizes - least)[owners]
        order = np.argsort(marks[kept], kind="stable")
        self.marks, self.owners = marks[kept][order], owners[kept][order]

    def candidates(self, sets: Sequence[set[int]]) -> list[tuple[int, int]]:
        """Pairs (place in ``sets``, text) that may be similar: all that are, and some others."""
        marks, owners = _flat(sets)
        first = np.searchsorted(self.marks, marks, side="left")
        count = np.searchsorted(self.marks, marks, side="right") - first
        skipped = np.repeat(first - (count.cumsum() - count), count)
        texts = self.owners[np.arange(count.sum()) + skipped]
        pairs = np.unique(np.stack([np.repeat(owners, count), texts], 1), axis=0)
        sizes = np.array([len(each) for each in sets], dtype=np.int64)[pairs[:, 0]]
        own = self.sizes[pairs[:, 1]]
        alike = np.minimum(sizes, own) >= self.near * np.maximum(sizes, own) - 1e-9
        return [(int(a), int(b)) for a, b in pairs[alike]]


def _flat(sets: Sequence[set[int]]) -> tuple[Rows, Rows]:
    """All members one after another, and which set each is of."""
    marks = np.fromiter((mark for each in sets for mark in each), dtype=np.int64)
    return marks, np.repeat(np.arange(len(sets)), [len(each) for each in sets])


@dataclass(frozen=True)
class Overlap:
    """What the texts of a test and those of a training have in common."""

    tested: int
    """Texts of the test that were compared."""
    exact: int
    """Those whose words are the words of a training text."""
    near: int
    """Those that are nearly a training text."""
    threshold: float
    """The similarity from which they are."""
    examples: list[dict[str, Any]]
    """Some pairs: ``tested``, ``training``, ``similarity``."""
    shared_origin: list[str]
    """Which data sets are of one origin, and why."""
    texts: frozenset[str] = field(repr=False)
    """All texts of the test that are in the training too."""

    def as_json(self) -> dict[str, Any]:
        """Counts and examples, without the texts."""
        return {name: value for name, value in asdict(self).items() if name != "texts"}


def overlap(
    training: TaskSource, tested: TaskSource, *, split: Split, near: float = NEAR
) -> Overlap | None:
    """What a split of some sources has in common with the training split of others; ``None`` if none are of texts.

    A source is not compared with itself: its classes are held out, and its splits are its own affair.

    Args:
        training: a source of texts, or a mixture.
        tested: another.
        split: of the tested ones.
        near: as for :func:`twins`.
    """
    pairs = [
        (one, other)
        for other in _texts_of(tested)
        for one in _texts_of(training)
        if not (one.texts == other.texts and one.parts == other.parts)
    ]
    if not pairs:
        return None
    best: dict[str, tuple[bool, float, str]] = {}
    compared: set[str] = set()
    origins: list[str] = []
    for one, other in pairs:
        known, asked = one.pool_texts("train"), other.pool_texts(split)
        compared |= set(asked)
        for twin in twins(known, asked, near=near):
            text, new = asked[twin.tested], (twin.exact, twin.similarity, known[twin.training])
            best[text] = max(best.get(text, new), new)
        origins += [why for why in [shared_origin(one, other)] if why]
    exact = sum(same for same, _, _ in best.values())
    first = sorted(best.items(), key=lambda each: each[1][:2], reverse=True)[:SHOWN]
    return Overlap(
        tested=len(compared),
        exact=exact,
        near=len(best) - exact,
        threshold=near,
        examples=[
            {"tested": text, "training": known, "similarity": similarity}
            for text, (_, similarity, known) in first
        ],
        shared_origin=list(dict.fromkeys(origins)),
        texts=frozenset(best),
    )


def without_overlap(source: TaskSource, found: Overlap, *, split: Split) -> TaskSource:
    """The same source or mixture, whose split lacks the texts that the training holds too."""
    if isinstance(source, Mixture):
        return source.of(lambda part: without_overlap(part, found, split=split))
    return source.without(split, found.texts) if isinstance(source, Texts) else source


def shared_origin(one: Texts, other: Texts) -> str:
    """Why two data sets are of one origin, in a sentence; empty where nothing is known."""
    names = origin_of(one), origin_of(other)
    for pair, why in SHARED:
        for a, b in (pair, pair[::-1]):
            if names[0].startswith(a) and names[1].startswith(b):
                return f"{names[0]} and {names[1]}: {why}."
    return ""


def origin_of(source: Texts) -> str:
    """What a data set is known by: its name, with its task, or that of a person's own file."""
    name, task = source.facts["name"], source.facts.get("task")
    if "path" in source.facts:
        return Path(source.facts["path"]).name.split(".")[0].lower()
    return f"{name}/{task}" if task else str(name)


def _texts_of(source: TaskSource) -> list[Texts]:
    parts = source.sources.values() if source.sources else [source]
    return [part for part in parts if isinstance(part, Texts)]
