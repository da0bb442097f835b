"""A new task of 5 classes and 8 sentences of each: accuracy and time against SetFit, on three hard sets.

The tasks are of unseen topics of HuffPost, of the intents of BANKING77 that are for testing, and of all kinds of
questions of TREC. Each way of learning starts from MiniLM and from the sentences; what counts is processor time to
learn a task and to answer its queries, one thread. SetFit is its package by default (``pip install
'quickstudy[setfit]'``). ``quickstudy`` is the artifact that ``text_training.py`` keeps, which met none of these sets
but BANKING77; there it is logistic regression with names on MiniLM and its words, which nobody has trained.

python benchmarks/against_setfit.py FOLDER ARTIFACT [--episodes 20] [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import load_artifact
from quickstudy.build import build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote, PoolSource
from quickstudy.evaluation.alternatives import Alternative, ByArtifact, alternative, untrained
from quickstudy.evaluation.compare import TextTasks, compare
from quickstudy.nn.pretrained import HuggingFaceEncoder
from record import record

LEXICAL = 0.8
SETS = {"huffpost": True, "banking77": False, "trec,protocol=all": True}
"""Spec to whether the artifact may be asked, for it met no text of it in training."""
QUERIES = {"huffpost": 10, "banking77": 10, "trec,protocol=all": 3}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("artifact", type=Path, help="that text_training.py kept")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    trained = ByArtifact(load_artifact(chosen.artifact))
    plain = untrained(lexical=LEXICAL, name="linear_head", names=True)
    others = {name: alternative(name) for name in ("setfit", "logreg")}
    sets: dict[str, Any] = {}
    for spec, fair in SETS.items():
        source = build_source(located(spec, chosen.folder))
        assert isinstance(source, PoolSource)
        source.prepare(HuggingFaceEncoder())
        design = EpisodeDesign(5, 8, QUERIES[spec])
        episodes = 2 if chosen.smoke else chosen.episodes
        tasks = TextTasks(source, "test", design, episodes=episodes, seed=0)
        ways: dict[str, Alternative] = {"quickstudy": trained if fair else plain, **others}
        found = compare(ways, tasks)
        seconds = {
            name: each["fit_seconds"]["mean"] + each["predict_seconds"]["mean"]
            for name, each in found.items()
        }
        name = spec.partition(",")[0]
        sets[name] = {
            "methods": found,
            "times_faster_than_setfit": seconds["setfit"] / seconds["quickstudy"],
            "times_faster_to_learn": found["setfit"]["fit_seconds"]["mean"]
            / found["quickstudy"]["fit_seconds"]["mean"],
        }
        print(name, sets[name], flush=True)
    figures = {"threads": 1, "way": 5, "shot": 8, "episodes": chosen.episodes, "sets": sets}
    record("against_setfit", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
