"""New tasks of 5 classes from 8 texts each: the artifact that ships against SetFit, in accuracy and in time.

The corpora took no part in the training of the artifact: the test topics of HuffPost's headlines, all kinds of
questions of TREC, the relations of FewRel's part from SemEval (it trained on other relations, of the part from
Wikipedia). Every way of learning has the same tasks, from the texts to the answers, one after the other in one process
and on one thread; the time is the processor's. Beside the artifact as it ships stand the same with its encoder trained
on the task for some passes (the learner ``fine_tune``), the same artifact with the help of texts of the task's classes
that have no label, of which the others know nothing, and logistic regression on frozen MiniLM with the names of the
classes as examples.

Needs ``pip install 'quickstudy[setfit]'``. FOLDER holds a folder for each corpus. Corpora that were tried before stay
in the results.

python benchmarks/against_setfit.py FOLDER [--corpora huffpost trec fewrel] [--tasks 6] [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import load_artifact
from quickstudy.build import build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote, PoolSource
from quickstudy.derive import derive
from quickstudy.evaluation.alternatives import Alternative, ByArtifact, alternative
from quickstudy.evaluation.compare import TextTasks, compare
from record import earlier, record

CORPORA = {"huffpost": "huffpost", "trec": "trec,protocol=all", "fewrel": "fewrel,target=semeval"}
TUNING: dict[str, Any] = {"name": "fine_tune", "names": True}
PASSES = (1, 8)
SHOT, QUERIES, UNLABELLED = 8, 10, 400


class LabelledOnly:
    """A way of learning that is told of no text without a label."""

    def __init__(self, way: Alternative) -> None:
        self.way, self.predict = way, way.predict

    def fit(self, texts: Sequence[str], labels: Sequence[str], others: Sequence[str] = ()) -> None:
        self.way.fit(texts, labels)


def with_ratios(methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Beside what each way takes, how many times faster than SetFit it is, to learn and with its answers."""
    setfit = methods["setfit"]
    for way in methods.values():
        learn, answer = (
            [each[key]["mean"] for each in (setfit, way)]
            for key in ("fit_seconds", "predict_seconds")
        )
        way["times_faster_to_learn"] = learn[0] / learn[1]
        way["times_faster_in_all"] = (learn[0] + answer[0]) / (learn[1] + answer[1])
    return methods


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=CORPORA)
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    shipped = load_artifact("text")
    ways: dict[str, Alternative] = {"text": ByArtifact(shipped)}
    for passes in PASSES:
        tuned = derive(shipped, TUNING | {"passes": passes})
        ways[f"text, {passes} passes"] = ByArtifact(tuned)
    ways |= {name: alternative(name) for name in ("logreg_names", "setfit")}
    ways = {name: LabelledOnly(way) for name, way in ways.items()}
    ways[f"text, {UNLABELLED} without a label"] = ByArtifact(shipped)
    settings = {"threads": 1, "way": 5, "shot": SHOT, "queries": QUERIES, "artifact": shipped.id}
    for name in chosen.corpora:
        source = build_source(located(CORPORA[name], chosen.folder))
        assert isinstance(source, PoolSource)
        source.prepare(shipped.learner.encoder)
        shape = (2, 2) if chosen.smoke else (SHOT, QUERIES)
        design = EpisodeDesign(5, *shape, unlabelled=UNLABELLED)
        tasks = TextTasks(
            source, "test", design, episodes=2 if chosen.smoke else chosen.tasks, seed=0
        )
        methods = compare(ways, tasks, lambda done, of: print(done, "of", of, flush=True))
        found = {name: {"tasks": len(tasks), "methods": with_ratios(methods)}}
        corpora = earlier("against_setfit", "corpora") | found
        record("against_setfit", settings | {"corpora": corpora}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
