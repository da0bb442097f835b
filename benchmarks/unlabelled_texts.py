"""What texts without a label are worth beside a few that have one.

MODEL=CORPUS pairs: a model, the folder of an artifact or the name of one that ships, ``text``, and the corpus that it
is asked about, on none of whose texts it was trained. A task has all classes of the corpus's test split with texts
enough, five or ten texts of each with their labels, and some hundreds or thousands without, drawn from what is left of
these classes as often as chance has it; 30 texts of each class are asked about, which are never among them. Where a
corpus has published parts, only its test part is asked about. All tasks of one shot have the same labelled texts and
the same queries, however many others are given. ``--distractors`` lets a task have half of the classes, and draws what
has no label from the other half as well. Compared are logistic regression on the model's features, the same after the
encoder was trained on the labelled texts (fine_tune), and logistic regression on frozen MiniLM, all with the names of
the classes. How labels are guessed was chosen on TREC, on HuffPost's training topics and on CLINC150 (by a model
trained without it).

FOLDER holds a folder for each corpus. What was measured before stays in the results.

python benchmarks/unlabelled_texts.py FOLDER MODEL=CORPUS … [--tune] [--distractors] [--draws 5]
    [--shots 5 10] [--amounts 0 100 400 2000] [--smoke]
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import load_artifact
from quickstudy.build import build_learner, build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.derive import derive
from quickstudy.evaluation.contest import Contest
from quickstudy.evaluation.measures import summary
from quickstudy.machine import hardware
from record import earlier, record
from text_tuning import TUNING

FROZEN: dict[str, Any] = {"name": "text", "model": "minilm"}
SHOTS = (5, 10)
QUERIES = 30
AMOUNTS = (0, 100, 400, 2000)
APART = ("banking77", "clinc150", "trec")
"""Corpora whose published training and test parts have the same classes."""


def measured(contest: Contest, design: EpisodeDesign, amounts: list[int], draws: int) -> Any:
    """Accuracies by contestant and amount, and what more texts add in pairs."""
    found: dict[str, Any] = {"way": design.way, "draws": draws}
    first: dict[str, torch.Tensor] = {}
    for amount in amounts:
        start = time.process_time()
        scores = contest.scores(replace(design, unlabelled=amount), draws)
        first = first or scores
        found[str(amount)] = {
            name: {**summary(each), "gain": summary(each - first[name])}
            for name, each in scores.items()
        } | {"seconds": time.process_time() - start}
        print(amount, found[str(amount)], flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("pairs", nargs="+", metavar="MODEL=CORPUS")
    parser.add_argument("--tune", action="store_true", help="fine_tune takes part")
    parser.add_argument("--distractors", action="store_true", help="of other classes, too")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--amounts", type=int, nargs="+", default=AMOUNTS, help="0 comes first")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    corpora = earlier("unlabelled_texts", "corpora")
    for pair in chosen.pairs:
        model, _, corpus = pair.rpartition("=")
        artifact = load_artifact(model)
        protocol = ",protocol=all" if corpus in APART else ""
        source = build_source(located(f"{corpus}{protocol}", chosen.folder))
        contest = Contest(source, split="test")
        contest.enter("trained", artifact.learner)
        if chosen.tune:
            contest.enter("tuned", derive(artifact, TUNING).learner)
        contest.enter("frozen", build_learner({"name": "linear_head", "names": True}, FROZEN))
        source.prepare(artifact.learner.encoder)
        name = f"{corpus}, fine-tuned too" if chosen.tune else corpus
        name += ", half of other classes" if chosen.distractors else ""
        before = corpora.get(name, {})
        found = dict(before["shots"]) if before.get("model") == artifact.id else {}
        for shot in (1,) if chosen.smoke else chosen.shots:
            way = 3 if chosen.smoke else int(source.pool("test").enough(shot, QUERIES).sum())
            beside = way // 2 if chosen.distractors else 0
            design = EpisodeDesign(way - beside, shot, QUERIES, distractors=beside)
            draws = 2 if chosen.smoke else chosen.draws
            found[str(shot)] = measured(contest, design, chosen.amounts, draws)
            found[str(shot)]["processor"] = hardware()["processor"]
            corpora[name] = {"model": artifact.id, "shots": found}
            figures = {"threads": 1, "queries": QUERIES, "corpora": corpora}
            record("unlabelled_texts", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
