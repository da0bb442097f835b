"""A new task of 5 classes and 8 sentences of each: accuracy and time against SetFit, on three hard sets.

The tasks are of the test topics of HuffPost, of the intents of BANKING77 that are for testing, and of all kinds of
questions of TREC. Each way of learning starts from MiniLM and from the sentences; what counts is processor time to
learn a task and to answer its queries, one thread. SetFit is its package by default (``pip install
'quickstudy[setfit]'``). ``quickstudy`` is the learner linear_head with names=true on the encoder text with lexical=0.8;
nobody has meta-trained it.

python benchmarks/against_setfit.py FOLDER [--episodes 20] [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch

from quickstudy.build import build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote, PoolSource
from quickstudy.evaluation.alternatives import Alternative, alternative, untrained
from quickstudy.evaluation.compare import TextTasks, compare
from quickstudy.nn.pretrained import HuggingFaceEncoder
from record import record

LEXICAL = 0.8
QUERIES = {"huffpost": 10, "banking77": 10, "trec,protocol=all": 3}
"""Spec to queries of a class."""


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    ways: dict[str, Alternative] = {
        "quickstudy": untrained(lexical=LEXICAL, name="linear_head", names=True),
        **{name: alternative(name) for name in ("setfit", "logreg")},
    }
    sets: dict[str, Any] = {}
    for spec, queries in QUERIES.items():
        source = build_source(located(spec, chosen.folder))
        assert isinstance(source, PoolSource)
        source.prepare(HuggingFaceEncoder())
        design = EpisodeDesign(5, 8, queries)
        episodes = 2 if chosen.smoke else chosen.episodes
        tasks = TextTasks(source, "test", design, episodes=episodes, seed=0)
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
