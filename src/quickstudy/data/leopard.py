"""LEOPARD: classification tasks that come with their support sets."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.published import Published
from quickstudy.data.source import DataError, DataNote
from quickstudy.data.splitting import LabelledClass
from quickstudy.data.text_tasks import Divided, Texts

QUERIES = "eval"
"""The split whose texts are asked about."""
_SAMPLE = re.compile(r"train_(\d+)shot_(\d+)")


class Leopard(Texts):
    """LEOPARD: a task with ten fixed support sets of 4, 8 and 16 examples of a class, for evaluation only.

    Bansal et al. 2020, Learning to Few-Shot Learn Across Diverse Natural Language Classification Tasks. Each support
    set is a task, and all texts of the evaluation part are its queries. A second text, which is what is asked about
    (the hypothesis, the name in a sentence), stands before the first.

    Args:
        path: folder with a file TASK.jsonl for each task: split, label, text and perhaps text2 on each line.
        task: which of them, such as ``scitail``.

    Raises:
        DataError: the file is missing or holds something else; says what to do.
    """

    def __init__(self, path: str | None = None, *, task: str) -> None:
        published = Published("leopard", path)
        if published.find(f"{task}.jsonl") is None:
            there = sorted({file.name.split(".")[0] for file in published.folder.glob("*.jsonl*")})
            if there:
                raise DataError(
                    f"There is no task {task!r} in {published.folder}; those there are: {', '.join(there)}."
                )
        rows = published.table(f"{task}.jsonl", ["split", "label", "text"])
        texts: list[str] = []
        asked: dict[str, list[int]] = {}
        chosen: dict[tuple[int, int], dict[str, list[int]]] = {}
        for number, row in enumerate(rows):
            text, second = row.cell("text"), row.record.cells.get("text2", "").strip()
            texts.append(f"{second} : {text}" if second else text)
            split, label = row.cell("split"), row.cell("label")
            sample = _SAMPLE.fullmatch(split)
            if sample is None and split != QUERIES:
                raise DataError(
                    f"{row.place}: found the split {split!r}, expected {QUERIES} or train_<k>shot_<i>."
                )
            if sample is None:
                asked.setdefault(label, []).append(number)
            else:
                key = int(sample[1]), int(sample[2])
                chosen.setdefault(key, {}).setdefault(label, []).append(number)
        labels = sorted(asked)
        _check(str(published.file(f"{task}.jsonl")), labels, chosen)
        shown: dict[str, list[int]] = {label: [] for label in labels}
        for _, sample_of in sorted(chosen.items()):
            for label, members in sample_of.items():
                shown[label] += members
        parts = [
            LabelledClass(label, "", [*shown[label], *asked[label]], len(asked[label]))
            for label in labels
        ]
        _note_repeated(texts, parts)
        super().__init__(
            str(published.folder),
            texts,
            Divided({"train": [], "validation": [], "test": parts}, {one: one for one in labels}),
            facts=published.facts(task=task),
            samples=_samples(labels, chosen),
        )


def _check(
    where: str, labels: list[str], chosen: dict[tuple[int, int], dict[str, list[int]]]
) -> None:
    """Check that every support set has as many examples of each class as it says.

    Raises:
        DataError: one has not, or there is none, or nothing to ask.
    """
    if len(labels) < 2 or not chosen:
        raise DataError(
            f"{where} has {len(labels)} classes to ask about and {len(chosen)} support sets; expected at least 2 and 1."
        )
    for (shot, number), of_class in chosen.items():
        found = {label: len(members) for label, members in of_class.items()}
        if found != dict.fromkeys(labels, shot):
            raise DataError(
                f"{where}: train_{shot}shot_{number} holds {found}; expected {shot} of each of {', '.join(labels)}."
            )


def _samples(
    labels: list[str], chosen: dict[tuple[int, int], dict[str, list[int]]]
) -> dict[int, Tensor]:
    """Of each shot, rows int64 (sample, class, shot)."""
    found: dict[int, list[Any]] = {}
    for (shot, _), of_class in sorted(chosen.items()):
        found.setdefault(shot, []).append([of_class[label] for label in labels])
    return {shot: torch.tensor(rows) for shot, rows in found.items()}


def _note_repeated(texts: list[str], parts: list[LabelledClass]) -> None:
    """Say how many texts are both in a support set and asked about: the published tasks are kept as they are."""
    asked = {texts[row] for one in parts for row in one.rows[len(one.rows) - (one.asked or 0) :]}
    shown = {texts[row] for one in parts for row in one.rows[: len(one.rows) - (one.asked or 0)]}
    if asked & shown:
        warnings.warn(
            f"{len(asked & shown)} texts are in a support set and asked about as well, as published; such as "
            f"{min(asked & shown)[:60]!r}.",
            DataNote,
            stacklevel=3,
        )
