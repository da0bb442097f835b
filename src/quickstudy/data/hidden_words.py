"""Tasks from plain text without labels: which word is hidden in this sentence?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from quickstudy.cache import digest
from quickstudy.data.records import cell, check_columns, is_table, records_of, text_lines
from quickstudy.data.sampling import at_most
from quickstudy.data.source import DataError
from quickstudy.data.text_tasks import HIDDEN, Divided, LabelledText, Texts, divided

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")

VOCABULARY = 1_000_000
"""Words that are counted at a time; where there are more, the rarest are forgotten, which bounds the memory."""
REACH = 24
"""Words before and behind a hidden one that are kept of a long line, so that the encoder sees what is hidden."""
CONTEXT = 3
"""Fewest words of a sentence beside the hidden one."""


class HiddenWords(Texts):
    """Plain text without labels: a class is a word, its examples are sentences in which that word is hidden.

    Of the file each line, or each cell of the column of texts, is a sentence. Words are runs of letters, whatever their
    case; where a word stands twice in a sentence, it is hidden twice. Each sentence is an example of one word only, so
    that no word and no sentence is in two splits, nor in two classes of a task: of the chosen words that it holds, the
    one which lacks the fewest sentences of ``least``, and where none lacks any, the rarest. Learners do not read what
    the classes are called: it is the answer.

    Bansal et al. 2020, Self-Supervised Meta-Learning for Few-Shot Natural Language Classification Tasks (SMLMT).
    Differs from the paper: words are chosen by the bounds below and by chance among those that keep them, are split
    before tasks are drawn, and a sentence stands for one word in all tasks.

    The file is read twice, line by line; the memory is bounded by ``words`` times ``most`` sentences.

    Args:
        path: a table with a column of texts (.csv, .tsv, .jsonl), or any other file in UTF-8 with a sentence on each
            line; either may be packed with gzip.
        text: the column of the texts.
        least: sentences that a word needs.
        most: sentences of a word that are kept, drawn by ``seed``.
        share: words in more than this share of all sentences are left out; they say little of a sentence.
        words: most words, drawn by ``seed``.
        validation: share of the words for validation.
        test: share for testing.
        seed: other words, sentences and splits.

    Raises:
        DataError: the file cannot be used, or holds too few such words; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        text: str = "text",
        least: int = 20,
        most: int = 100,
        share: float = 0.05,
        words: int = 1000,
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not path:
            raise DataError(
                "Hidden words need a file: hidden_words:FILE.txt with a sentence on each line, or "
                "hidden_words:FILE.csv with a column text."
            )
        if not 2 <= least <= most or words < 2 or not 0 < share <= 1:
            raise ValueError(
                f"least is at least 2 and at most most, words at least 2, and share above 0 and at most 1; found "
                f"least={least}, most={most}, words={words} and share={share}."
            )
        counted = _counted(path, text)
        chosen = _chosen(counted, least=least, share=share, words=words, seed=seed)
        found = at_most(
            _hidden(path, text, chosen, least=least),
            most,
            of=lambda each: each.label,
            mark=lambda each: each.text,
            seed=seed,
        )
        sentences = Counter(each.label for each in found)
        found = [each for each in found if sentences[each.label] >= least]
        kept = {each.label for each in found}
        if len(kept) < 2:
            raise DataError(
                f"{path} holds {counted.sentences:,} sentences, and of the words that stand in {least} or more of "
                f"them, but in no more than {share:.0%} of all, {len(kept)} have {least} sentences of their own; a "
                "task needs at least 2. Add sentences, or choose a smaller least or a larger share."
            )
        classes = divided(path, found, validation=validation, test=test, seed=seed)
        super().__init__(
            path,
            [each.text for each in found],
            Divided(classes.parts, {}),
            facts={"name": "hidden_words", "path": path, "sentences": counted.sentences},
            hidden=True,
        )


class _Counted(NamedTuple):
    sentences: int
    holding: Mapping[str, int]
    """How many sentences hold each word."""


def _sentences(path: str, column: str) -> Iterator[tuple[str, str]]:
    """Each sentence, and where it stands."""
    if not is_table(path):
        yield from ((text, f"{path}, line {line}") for line, text in text_lines(path))
        return
    for record in records_of(path):
        check_columns(path, [record], [column])
        yield cell(path, record, column), f"{path}, line {record.line}"


def _counted(path: str, column: str) -> _Counted:
    """How many sentences hold each word; of a very large vocabulary, a little less for rare words."""
    sentences, forgotten = 0, 0
    holding: dict[str, int] = {}
    for text, _ in _sentences(path, column):
        sentences += 1
        for word in {match[0].casefold() for match in _WORD.finditer(text)}:
            holding[word] = holding.get(word, 0) + 1
        while len(holding) > VOCABULARY:
            forgotten += 1
            holding = {word: count for word, count in holding.items() if count > forgotten}
    return _Counted(sentences, holding)


def _chosen(
    counted: _Counted, *, least: int, share: float, words: int, seed: int
) -> Mapping[str, int]:
    """The words that become classes, and how many sentences hold each."""
    able = [
        word
        for word, count in counted.holding.items()
        if least <= count <= share * counted.sentences
    ]
    drawn = sorted(able, key=lambda word: digest([seed, word]))[:words]
    return {word: counted.holding[word] for word in drawn}


def _hidden(
    path: str, column: str, chosen: Mapping[str, int], *, least: int
) -> Iterator[LabelledText]:
    """The sentences that hold a chosen word, without one of them."""
    own = dict.fromkeys(chosen, 0)
    for text, place in _sentences(path, column):
        places = list(_WORD.finditer(text))
        known = {match[0].casefold() for match in places} & chosen.keys()
        if not known:
            continue
        # Words would starve one another if the rarest always took the sentence.
        word = min(
            known, key=lambda each: (own[each] >= least, -min(own[each], least), chosen[each], each)
        )
        out = [i for i, match in enumerate(places) if match[0].casefold() == word]
        if len(places) - len(out) < CONTEXT:
            continue
        own[word] += 1
        first, last = max(0, out[0] - REACH), min(len(places) - 1, out[0] + REACH)
        start = places[first].start() if first else 0
        end = places[last].end() if last < len(places) - 1 else len(text)
        pieces = []
        for i in out:
            if i <= last:
                pieces.append(text[start : places[i].start()])
                start = places[i].end()
        yield LabelledText(HIDDEN.join([*pieces, text[start:end]]), word, place)
