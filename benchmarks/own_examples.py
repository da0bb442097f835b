"""What a task's own examples tell of it: how often it will be right, what is of none of its classes, and wrong labels.

The artifact ``text`` learns tasks of corpora that it was not trained on: the test topics of HuffPost's headlines and
all kinds of questions of TREC. A task is asked about 10 texts of each class and about 10 of each of five further
classes, which are of none. What is told of it by its own examples (``held_out``), of which one of each class is left
out at a time, or every example by itself, stands beside what these show: the accuracy, and at the threshold that is to
keep a share of the texts of its classes, how many are kept and how many of the others refused; beside it one threshold
for all, from tasks of 10 classes and 8 examples of each of areas that the artifact left out of the texts that come with
quickstudy. Then one example is given another class of the task, at random: ``found_first`` is how often it is the
surest of the wrong answers, ``found`` how often among them. Nothing here was chosen on these corpora.

FOLDER holds a folder for each corpus. Corpora that were tried before stay in the results.

python benchmarks/own_examples.py FOLDER [--corpora huffpost trec] [--tasks 60] [--smoke]
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.answering import answer, judge
from quickstudy.artifact import Artifact, load_artifact
from quickstudy.build import build_source, located
from quickstudy.data.calling import tokens_of
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote, PoolSource
from quickstudy.evaluation.compare import TextTask, TextTasks
from quickstudy.evaluation.held_out import HeldOut, held_out
from quickstudy.evaluation.measures import summary
from quickstudy.evaluation.unknown import fit_rejection
from quickstudy.learning import extend
from quickstudy.rejection import Rejection
from record import earlier, record

CORPORA = {"huffpost": "huffpost", "trec": "trec,protocol=all"}
SHAPES = ((3, 5), (5, 8), (10, 4))
"""Classes of a task, and examples of each; TREC has too few kinds with questions enough for the last."""
STRANGE, QUERIES = 5, 10
SHARES = (0.95, 0.8)
OTHER = EpisodeDesign(10, 8, 5)
"""Tasks from which the other threshold is learned."""


def split_up(task: TextTask, way: int) -> tuple[TextTask, list[str]]:
    """The task of the first classes of one, and the texts that it is asked about and that are of the others."""
    classes = list(dict.fromkeys(task.labels))[:way]

    def kept(texts: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str]]:
        return [pair for pair in zip(texts, labels, strict=True) if pair[1] in classes]

    own, asked = kept(task.texts, task.labels), kept(task.asked, task.right)
    strange = [t for t, c in zip(task.asked, task.right, strict=True) if c not in classes]
    texts, labels, queries, right = (
        [pair[i] for pair in pairs] for pairs in (own, asked) for i in (0, 1)
    )
    return TextTask(texts, labels, queries, right, []), strange


def measured(artifact: Artifact, whole: TextTask, way: int, other: Rejection, seed: int) -> Any:
    """All figures of one task, by name."""
    task, strange = split_up(whole, way)
    encoder = artifact.learner.encoder
    x, asked, others = (tokens_of(each, encoder) for each in (task.texts, task.asked, strange))
    learned = extend(artifact, None, x, task.labels)
    right = torch.tensor([learned.class_names.index(each) for each in task.right])
    accuracy = float((answer(artifact, learned, asked).argmax(1) == right).double().mean())
    by_parts = held_out(artifact, x, task.labels)
    one_by_one = held_out(artifact, x, task.labels, folds=len(task.labels))
    found: dict[str, Any] = {"accuracy": accuracy}
    for name, left in (("one of each class", by_parts), ("one by one", one_by_one)):
        told = left.accuracy()[0]
        found[name] = {"told": told, "above": told - accuracy, "off": abs(told - accuracy)}
    for name, rejection in [
        *((f"keep {share}", by_parts.rejection(share)) for share in SHARES),
        ("another shape", other),
    ]:
        learned.rejection = rejection
        kept = ~judge(artifact, learned, asked).unknown
        refused = judge(artifact, learned, others).unknown
        found[name] = {"kept": share_of(kept), "refused": share_of(refused)}
    found["wrong label"] = planted(artifact, x, task.labels, seed)
    return found


def planted(artifact: Artifact, x: Any, labels: list[str], seed: int) -> dict[str, float]:
    """Whether an example that is given another class is told apart by its answer."""
    chance = random.Random(seed)
    place = chance.randrange(len(labels))
    other = chance.choice(sorted(set(labels) - {labels[place]}))
    told = [*labels[:place], other, *labels[place + 1 :]]
    left: HeldOut = held_out(artifact, x, told)
    wrong = left.wrong()
    return {"found_first": float(wrong[:1] == [place]), "found": float(place in wrong)}


def share_of(which: Tensor) -> float:
    return float(which.double().mean())


def summaries(rows: list[Any]) -> Any:
    """Mean and interval of each figure over tasks."""
    if isinstance(rows[0], dict):
        return {name: summaries([row[name] for row in rows]) for name in rows[0]}
    return summary(torch.tensor(rows, dtype=torch.float64))


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=CORPORA)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    count = 2 if chosen.smoke else chosen.tasks
    artifact = load_artifact("text")
    artifact.learner.eval()
    areas = build_source("short_texts,test=0")
    areas.prepare(artifact.learner.encoder)
    other = fit_rejection(artifact.learner, areas, design=OTHER, episodes=count, score="similarity")
    corpora = earlier("own_examples", "corpora")
    for name in chosen.corpora:
        source = build_source(located(CORPORA[name], chosen.folder))
        assert isinstance(source, PoolSource)
        source.prepare(artifact.learner.encoder)
        shapes = SHAPES[:1] if chosen.smoke else SHAPES[:2] if name == "trec" else SHAPES
        corpora[name] = {}
        for way, shot in shapes:
            design = EpisodeDesign(way + STRANGE, shot, QUERIES)
            tasks = TextTasks(source, "test", design, episodes=count, seed=0)
            rows = [measured(artifact, tasks[i], way, other, i) for i in range(count)]
            corpora[name][f"{way}-way {shot}-shot"] = summaries(rows)
            print(name, way, shot, corpora[name][f"{way}-way {shot}-shot"], flush=True)
    settings = {"threads": 1, "tasks": count, "queries": QUERIES, "strange": STRANGE}
    found = settings | {"artifact": artifact.id, "corpora": corpora}
    record("own_examples", found, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
