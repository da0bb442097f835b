"""Tiny corpora in the published formats, with words of their own for each class."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DOMAINS = [
    "auto",
    "banking",
    "cards",
    "home",
    "kitchen",
    "meta",
    "talk",
    "travel",
    "utility",
    "work",
]
PLACES = ["books", "dvd", "electronics", "toys"]


class Letters:
    """An encoder as far as a source sees it: a word is a letter's number."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        longest = max((len(text) for text in texts), default=0)
        rows = [[ord(letter) for letter in text] + [-1] * (longest - len(text)) for text in texts]
        return torch.tensor(rows, dtype=torch.int64)


def spoken(row: Tensor) -> str:
    return "".join(chr(letter) for letter in row.tolist() if letter >= 0)


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON Lines, packed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def texts(what: str, part: str, count: int) -> Iterator[str]:
    return (f"{what} said {part} {number}" for number in range(count))


def clinc150(folder: Path, *, intents: int = 2, train: int = 6, other: int = 4) -> None:
    folder.mkdir(parents=True)
    domains = {domain: [f"{domain}_{i}" for i in range(intents)] for domain in DOMAINS}
    data: dict[str, list[list[str]]] = {}
    for part, count in (("train", train), ("val", other), ("test", other)):
        data[part] = [
            [text, intent]
            for names in domains.values()
            for intent in names
            for text in texts(intent, part, count)
        ]
        data[f"oos_{part}"] = [[text, "oos"] for text in texts("stranger", part, 10)]
    (folder / "data_full.json").write_text(json.dumps(data), encoding="utf-8")
    (folder / "domains.json").write_text(json.dumps(domains), encoding="utf-8")


def banking77(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part, count in (("train", 10), ("test", 4)):
        with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["text", "category"])
            for number in range(77):
                table.writerows(
                    [text, f"intent_{number}"] for text in texts(f"{number}", part, count)
                )


def snips(folder: Path) -> None:
    for part, count in (("train", 8), ("valid", 3), ("test", 3)):
        rows = [
            {"text": text, "intent": f"Intent{number}", "tags": ["O"] * 4}
            for number in range(7)
            for text in texts(f"{number}", part, count)
        ]
        lines(folder / f"{part}.jsonl.gz", rows)


def headlines(folder: Path) -> None:
    """HuffPost or Reuters, by the name of the folder."""
    splits = {"train": 3, "val": 2, "test": 4}
    names = [f"{split} topic {i}" for split, count in splits.items() for i in range(count)]
    rows = [
        {"text": text, "label": number, "label_name": name, "split": name.split()[0]}
        for number, name in enumerate(names)
        for text in texts(name, "headline", 6)
    ]
    lines(folder / f"{folder.name}.jsonl", rows)


def trec(folder: Path) -> None:
    kinds = [
        "ABBR:exp",
        "DESC:desc",
        "ENTY:other",
        "HUM:desc",
        "LOC:other",
        "NUM:date",
        "NUM:other",
    ]
    for part, count in (("train", 6), ("test", 3)):
        rows = [
            {"text": text, "coarse": kind.split(":")[0], "fine": kind}
            for kind in kinds
            for text in texts(kind, part, count)
        ]
        lines(folder / f"{part}.jsonl", rows)


def ag_news(folder: Path, *, train: bool = False) -> None:
    for part in ("train", "test") if train else ("test",):
        rows = [
            {"title": f"{name} {i} {part}", "description": "it was", "label": 0, "label_name": name}
            for name in ("World", "Sports", "Business", "Sci/Tech")
            for i in range(5)
        ]
        lines(folder / f"{part}.jsonl", rows)


def fewrel(folder: Path, *, train: bool = False) -> None:
    files = {"val_wiki": range(8), "val_nyt": range(6, 10), "val_semeval": range(20, 23)}
    if train:
        files["train_wiki"] = range(30, 40)
    folder.mkdir(parents=True)
    for name, relations in files.items():
        tree = {
            f"P{relation}": [
                {
                    "tokens": ["In", name, "Ada", "Byron", "met", f"{relation}-{i}", "."],
                    "h": ["ada byron", "Q1", [[2, 3]]],
                    "t": ["someone", "Q2", [[5], [0]]],
                }
                for i in range(5)
            ]
            for relation in relations
        }
        data = json.dumps(tree).encode()
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(data))
    names = {f"P{n}": [f"relation {n % 7}" if n < 8 else f"relation {n}", "…"] for n in range(20)}
    (folder / "pid2name.json").write_text(json.dumps(names), encoding="utf-8")


def fdu_mtl(folder: Path) -> None:
    for domain in PLACES:
        rows = [
            {"split": part, "label": label, "text": f"{domain} {label} {part} {i}"}
            for part, count in (("train", 6), ("test", 3))
            for label in (0, 1)
            for i in range(count)
        ]
        lines(folder / f"{domain}.jsonl.gz", [*rows, {"split": "test", "label": 1, "text": " "}])


def leopard(folder: Path) -> None:
    """The task pairs: three classes, two support sets of one shot and three of two, 4, 5 and 6 texts to ask."""
    rows: list[dict[str, str]] = []
    for which, label in enumerate("abc"):
        rows += [
            {"split": "eval", "label": label, "text": f"{label} asked {i}", "text2": "is it"}
            for i in range(4 + which)
        ]
        rows += [
            {
                "split": f"train_{shot}shot_{s}",
                "label": label,
                "text": f"{label} shown {shot} {s} {i}",
            }
            for shot, samples in ((1, 2), (2, 3))
            for s in range(samples)
            for i in range(shot)
        ]
    lines(folder / "pairs.jsonl", rows)


def nlupp(folder: Path, *, folds: int = 6, each: int = 12, split_up: bool = False) -> None:
    """Eight intents, of which a sentence has none, one or two; in one file, or in one for each fold."""
    folder.mkdir(parents=True)
    intents = [
        f"{what}_it" for what in ["block", "change", "close", "find", "make", "move", "pay", "want"]
    ]
    rows: list[dict[str, Any]] = []
    for number in range(folds * each):
        place = number % (len(intents) + 1)
        own = intents[place : place + 1 + (number // 3) % 2]
        row = {"fold": number % folds, "text": f"{number} {' '.join(own)}"}
        rows.append(row | ({"intents": own} if own else {}))
    if split_up:
        for fold in range(folds):
            part = [row for row in rows if row["fold"] == fold]
            named = [{name: row[name] for name in row if name != "fold"} for row in part]
            (folder / f"fold{fold}.json").write_text(json.dumps(named), encoding="utf-8")
    else:
        lines(folder / "banking.jsonl.gz", rows)
    said = {name: {"description": f"is it to {name.replace('_', ' ')}?"} for name in intents}
    (folder / "ontology.json").write_text(json.dumps({"intents": said}), encoding="utf-8")


def write_all(folder: Path) -> Path:
    """Every corpus in a folder of its name."""
    for write in (clinc150, banking77, snips, trec, ag_news, fewrel, fdu_mtl, leopard, nlupp):
        write(folder / write.__name__)
    for name in ("huffpost", "reuters"):
        headlines(folder / name)
    return folder
