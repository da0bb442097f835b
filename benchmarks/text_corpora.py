"""Tables of texts and labels made of dialogues, for benchmarks that train on texts and test on them."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Rows = Iterator[tuple[str, str]]

VALIDATION = 12
"""One class of so many is for validation."""
TURN = 7
"""Fewest words of a turn that says what a dialogue is about."""


def _words(name: str) -> str:
    """«FindBus_1» as one says it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.split("_1")[0]).replace("_", " ").lower()


def _kind(service: str) -> str:
    """What kind of service «RentalCars_2» is."""
    return _words(service.split("_")[0])


def _dialogues(folder: Path) -> Iterator[dict[str, Any]]:
    for part in ("train", "dev", "test"):
        with gzip.open(folder / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)


def _user_turns(folder: Path) -> Iterator[dict[str, Any]]:
    for dialogue in _dialogues(folder):
        yield from (turn for turn in dialogue["turns"] if turn["speaker"] == "USER")


def opening_intents(folder: Path) -> Rows:
    """What users of Schema-Guided Dialogue say when they state an intent, and the service and intent that it is."""
    for turn in _user_turns(folder):
        for frame in turn["frames"]:
            intent = frame["state"]["active_intent"]
            opens = any(each["act"] == "INFORM_INTENT" for each in frame["actions"])
            if opens and intent != "NONE":
                yield turn["utterance"], f"{_kind(frame['service'])}: {_words(intent)}"


def single_acts(folder: Path) -> Rows:
    """What users of Schema-Guided Dialogue say to ask for a slot or to fill one, and the service, act and slot."""
    for turn in _user_turns(folder):
        if len(turn["frames"]) == 1:
            (frame,) = turn["frames"]
            acts = [(each["act"], each["slot"]) for each in frame["actions"]]
            if (
                len(acts) == 1
                and acts[0][0] in ("REQUEST", "INFORM")
                and acts[0][1] not in ("", "intent")
            ):
                act, slot = acts[0]
                service = _kind(frame["service"])
                yield turn["utterance"], f"{service}: {act.lower()} {_words(slot)}"


def subjects(sgd: Path, fewrel: Path) -> Rows:
    """What texts are about: turns of dialogues of Schema-Guided Dialogue, and sentences of Wikipedia of FewRel.

    Args:
        sgd: its folder; the label of a turn of :data:`TURN` words or more is the kind of service.
        fewrel: its folder; the label of a sentence is the relation that it states.
    """
    for dialogue in _dialogues(sgd):
        services = dialogue["services"]
        for turn in dialogue["turns"] if len(services) == 1 else ():
            if len(turn["utterance"].split()) >= TURN:
                yield turn["utterance"], _kind(services[0])
    names = json.loads((fewrel / "pid2name.json").read_text(encoding="utf-8"))
    with gzip.open(fewrel / "val_wiki.json.gz", "rt", encoding="utf-8") as file:
        for relation, rows in json.load(file).items():
            yield from ((" ".join(row["tokens"]), names[relation][0]) for row in rows)


def few_labels(folder: Path) -> Rows:
    """Sentences of NLU++ with one to three intents; all of them together are the label."""
    with gzip.open(folder / "banking.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            intents = sorted(record.get("intents", []))
            if 1 <= len(intents) <= 3:
                yield record["text"], " ".join(map(_words, intents))


def write_table(path: Path, rows: Iterable[tuple[str, str]], *, least: int, split: str = "") -> int:
    """Write those classes that have at least so many different texts, and return how many there are.

    Args:
        path: the CSV file.
        rows: texts and labels.
        least: texts of a class.
        split: of every class; by default train, and validation for one class of :data:`VALIDATION`.
    """
    by_label: dict[str, dict[str, None]] = {}
    for text, label in rows:
        by_label.setdefault(label, {})[text] = None
    kept = [(label, texts) for label, texts in sorted(by_label.items()) if len(texts) >= least]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "split"])
        for number, (label, texts) in enumerate(kept):
            part = split or ("validation" if number % VALIDATION == VALIDATION - 1 else "train")
            table.writerows([text, label, part] for text in texts)
    return len(kept)
