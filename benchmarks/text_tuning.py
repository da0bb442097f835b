"""The encoder trained on each task, against the same encoder under logistic regression, on all intents of a corpus.

ARTIFACT is what ``text_training.py --without CORPUS --out ARTIFACT`` left: MiniLM meta-trained on other sets of intents
than CORPUS. It is scored with its own head, logistic regression with the names of classes, and with the learner
fine_tune, both on the same tasks, beside logistic regression with names on frozen MiniLM. Tasks have all classes; the
support is from the published training part and the queries from the test part. Settings of fine_tune were chosen on
TREC and on the training and validation parts of CLINC150.

FOLDER holds a folder for the corpus. What was tried before stays in the results, by corpus and the artifact's seed.

python benchmarks/text_tuning.py FOLDER ARTIFACT CORPUS [--draws 3] [--smoke]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import load_artifact
from quickstudy.build import build_learner, build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.derive import derive
from quickstudy.evaluation.contest import Contest
from quickstudy.machine import hardware
from record import compared, earlier, record

TUNING: dict[str, Any] = {"name": "fine_tune", "names": True, "passes": 6}
SHOTS = (5, 10)
QUERIES = 30


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for the corpus")
    parser.add_argument("artifact", type=Path, help="trained on other corpora")
    parser.add_argument("corpus", help="whose classes are the task")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    artifact = load_artifact(chosen.artifact)
    contest = Contest(
        build_source(located(f"{chosen.corpus},protocol=all", chosen.folder)), split="test"
    )
    contest.enter("trained", artifact.learner)
    contest.enter("tuned", derive(artifact, TUNING).learner)
    frozen = {"name": "text", "model": "minilm"}
    contest.enter("logreg_names", build_learner({"name": "linear_head", "names": True}, frozen))
    source = contest.source
    source.prepare(artifact.learner.encoder)
    found = {}
    for shot in (1,) if chosen.smoke else SHOTS:
        pool = source.pool("test")
        way = 3 if chosen.smoke else int(pool.enough(shot, QUERIES).sum())
        start = time.process_time()
        scores = contest.scores(
            EpisodeDesign(way, shot, QUERIES), 2 if chosen.smoke else chosen.draws
        )
        found[str(shot)] = {
            "way": way,
            **compared(scores, "tuned"),
            "seconds": time.process_time() - start,
            "draws": len(scores["tuned"]),
            "processor": hardware()["processor"],
        }
        print(shot, found[str(shot)], flush=True)
    settings = {"threads": 1, "tuning": TUNING, "queries": QUERIES}
    seed = artifact.config.training.seed
    name = f"{chosen.corpus}, seed {seed}" if seed else chosen.corpus
    figures = settings | {"corpora": earlier("text_tuning", "corpora") | {name: found}}
    record("text_tuning", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
