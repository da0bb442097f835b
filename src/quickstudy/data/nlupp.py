"""NLU++: sentences to a bank with several intents each, in the folds of its authors."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from quickstudy.data.many_labels import ManyLabelled, divided_by_label, labelled_many
from quickstudy.data.published import Published
from quickstudy.data.records import ZIPPED, Record, cell, check_columns, read_records
from quickstudy.data.source import SPLITS, DataError, DataNote
from quickstudy.data.text_tasks import Divided, Texts

Protocol = Literal["unseen", "folds"]
"""Whether tasks of each split have intents of their own, or learn all intents from whole folds."""

_FOLD = re.compile(r"fold_?(\d+)\.json(?:\.gz)?")


class NluPlusPlus(Texts):
    """NLU++: 48 intents of sentences to a bank, several in most of them, in 20 folds.

    Casanueva et al. 2022, NLU++: A Multi-Label, Slot-Rich, Generalisable Dataset for Natural Language Understanding in
    Task-Oriented Dialogue. With ``protocol=folds`` each task learns all intents from one fold and is asked about the 19
    others, or from two folds with a shot of 2, and so on: the 20-fold and 10-fold settings of the paper. With
    ``protocol=unseen`` intents are shared out, which is not of the paper. Intents are called what the ontology asks of
    them, where it is there.

    Args:
        path: folder with banking.jsonl, a text, its fold and perhaps its intents on each line, or the published files
            fold0.json … fold19.json, and with ontology.json.
        protocol: ``unseen``, or ``folds`` for all intents, all of them for the test.
        validation: share of the intents held out for validation.
        test: share held out for testing.
        seed: another seed, another split.

    Raises:
        DataError: a file is missing or holds something else; says what to do.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        protocol: Protocol = "unseen",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        if protocol not in ("unseen", "folds"):
            raise DataError(f"The protocol must be unseen or folds; found {protocol!r}.")
        published = Published("nlupp", path)
        examples, folds = _sentences(published)
        where = str(published.folder)
        if protocol == "folds":
            # All of them, as they were published, so that figures can be compared.
            divided = divided_by_label(
                where, [each._replace(split="test") for each in examples], as_given=True
            )
            divided = divided._replace(folds=folds)
            _note_repeats(examples)
        else:
            shares: dict[str, Any] = {"validation": validation, "test": test, "seed": seed}
            divided = divided_by_label(where, examples, conflicts="drop", **shares)
        super().__init__(
            where,
            [each.text for each in examples],
            divided._replace(labels=_called(published, divided)),
            facts=published.facts(protocol=protocol, seed=seed),
        )


def _sentences(published: Published) -> tuple[list[ManyLabelled], list[int]]:
    """All sentences, and the fold of each, counted from 0."""
    examples: list[ManyLabelled] = []
    folds: list[int] = []
    for file, records in _files(published):
        check_columns(file, records, ["text", "fold"])
        examples += labelled_many(str(file), records, label="intents")
        numbers = [cell(file, record, "fold") for record in records]
        if not all(number.isdecimal() for number in numbers):
            raise published.unlike(file.name, next(n for n in numbers if not n.isdecimal()))
        folds += map(int, numbers)
    missing = sorted(set(range(max(folds) + 1)) - set(folds))
    if missing:
        raise DataError(
            f"{published.folder} has no sentence of fold {missing[0]}, but some of fold {max(folds)}; get the files "
            "again."
        )
    return examples, folds


def _files(published: Published) -> Iterator[tuple[Path, list[Record]]]:
    """The one file, or one for each fold, and the records in each."""
    files = {file: _FOLD.fullmatch(file.name) for file in published.folder.glob("fold*.json*")}
    numbers = {file: match[1] for file, match in files.items() if match}
    if published.find("banking.jsonl") is not None or not numbers:
        file = published.file("banking.jsonl")
        yield file, read_records(file, lists=True)
        return
    for file, number in sorted(numbers.items()):
        found = published.tree(file.name.removesuffix(ZIPPED))
        records = []
        for sentence, each in enumerate(found, start=1):
            if not isinstance(each, dict) or not isinstance(each.get("text"), str):
                raise published.unlike(file.name, each)
            intents = json.dumps(each.get("intents") or [])
            cells = {"text": each["text"], "intents": intents, "fold": number}
            records.append(Record(sentence, cells))
        yield file, records


def _called(published: Published, divided: Divided) -> dict[str, str]:
    """What each intent is called."""
    labels = {one.name for split in SPLITS for one in divided.parts[split]}
    if published.find("ontology.json") is None:
        return {name: name for name in labels}
    intents = published.tree("ontology.json")
    try:
        said = {name: str(each["description"]) for name, each in intents["intents"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise published.unlike("ontology.json", error) from error
    return {name: said.get(name, name) for name in labels}


def _note_repeats(examples: list[ManyLabelled]) -> None:
    again = len(examples) - len({each.text for each in examples})
    if again:
        warnings.warn(
            f"{again} sentences stand in the folds more than once, so some are asked about that were learned from; the "
            "folds stay as they were published.",
            DataNote,
            stacklevel=3,
        )
