"""MiniLM meta-trained on intents, against logistic regression on frozen MiniLM, on label sets of other corpora.

Adapters of LoRA are trained by prototypes on all intents of CLINC150 and BANKING77 (Larson et al. 2019; Casanueva et
al. 2020). What is scored is logistic regression on what they make of texts, in which the name of a class counts for as
many examples as training found. The tests have all classes of corpora that took no part: the intents with which users
open a dialogue of Schema-Guided Dialogue (Rastogi et al. 2020; an intent of a service is a class), the test topics of
HuffPost, and all kinds of questions of TREC. Every way of learning has the same tasks.

FOLDER holds a folder for each corpus: clinc150, banking77, sgd, huffpost, trec. The adapters alone are kept.

python benchmarks/text_training.py FOLDER [--steps 240] [--seed 0] [--out ARTIFACT] [--smoke]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import Artifact, save_artifact
from quickstudy.build import build_learner, build_source, located
from quickstudy.config import RunConfig, parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.evaluation.contest import Contest
from quickstudy.evaluation.measures import summary
from quickstudy.learners.base import Learner
from quickstudy.training import train
from record import record

CORPORA = ("clinc150,protocol=all", "banking77,protocol=all")
CONFIG: dict[str, Any] = {
    "learner": {"name": "protonet", "names": True, "temperature": 20.0},
    "encoder": {"name": "text", "model": "minilm", "lora": 16, "lexical": 0.8},
    "episode": {"way": 32, "shot": [1, 3], "queries": 2, "tasks": 1},
    "validation": {"way": 32, "shot": 5, "queries": 2, "episodes": 40},
    "training": {"rate": 0.001, "warmup": 20, "schedule": "linear"},
}
HEAD = {"name": "linear_head", "names": True}
FROZEN = {"name": "text", "model": "minilm"}
TESTS = {"sgd": 10, "huffpost": 20, "trec,protocol=all": 2}
"""Spec to queries of a class."""
SHOTS = (5, 10)
DRAWS = 10


def opening_intents(folder: Path) -> Iterator[tuple[str, str]]:
    """What users say when they state an intent, and the service and intent that it is."""
    for part in ("train", "dev", "test"):
        with gzip.open(folder / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                for turn in json.loads(line)["turns"]:
                    for frame in turn["frames"] if turn["speaker"] == "USER" else []:
                        intent = frame["state"]["active_intent"]
                        opens = any(each["act"] == "INFORM_INTENT" for each in frame["actions"])
                        if opens and intent != "NONE":
                            service = frame["service"].split("_")[0]
                            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", f"{service} {intent}")
                            yield turn["utterance"], words.lower()


def write_table(folder: Path, path: Path) -> None:
    """The opening intents as a table for the test, those of 20 texts and more."""
    by_label: dict[str, dict[str, None]] = {}
    for text, label in opening_intents(folder):
        by_label.setdefault(label, {})[text] = None
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "split"])
        for label, texts in sorted(by_label.items()):
            if len(texts) >= SHOTS[-1] + TESTS["sgd"]:
                table.writerows([text, label, "test"] for text in texts)


def trained(folder: Path, *, steps: int, seed: int) -> tuple[Artifact, float]:
    """What training makes, and the seconds of the processor that it took."""
    mixture = "+".join(f"({located(spec, folder)})" for spec in CORPORA)
    options = {**CONFIG, "data": f"mixture:{mixture}"}
    options["training"] = {**CONFIG["training"], "steps": steps, "seed": seed}
    options["validation"] = {**CONFIG["validation"], "every": steps}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        artifact = train(parse_config(options), Path(place) / "run")
    return artifact, time.process_time() - start


def headed(artifact: Artifact) -> tuple[Learner, RunConfig]:
    """Logistic regression on the trained encoder, with the weight of names that training found."""
    config = artifact.config.model_copy(update={"learner": HEAD})
    learner = build_learner(HEAD, config.encoder)
    learner.encoder = artifact.learner.encoder
    with torch.no_grad():
        learner.log_name_weight.copy_(artifact.learner.log_name_weight)
    return learner.eval(), config


def scored(learner: Learner, spec: str, queries: int, draws: int) -> dict[str, Any]:
    """Accuracies on all classes of a corpus by shot, and by how much the trained learner is above the others."""
    source = build_source(spec)
    contest = Contest(source, split="test")
    contest.enter("trained", learner)
    for name, plain in (("logreg", {"name": "linear_head"}), ("logreg_names", HEAD)):
        contest.enter(name, build_learner(plain, FROZEN))
    found = {}
    for shot in SHOTS:
        source.prepare(learner.encoder)
        pool = source.pool("test")
        way = int(pool.enough(shot, queries).sum())
        scores = contest.scores(EpisodeDesign(way, shot, queries), draws)
        found[str(shot)] = {
            "way": way,
            "accuracy": {name: summary(each) for name, each in scores.items()},
            "above": {
                name: summary(scores["trained"] - each)
                for name, each in scores.items()
                if name != "trained"
            },
        }
        print(spec, shot, found[str(shot)]["above"], flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to keep the artifact")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    steps, draws = (2, 2) if chosen.smoke else (chosen.steps, DRAWS)
    artifact, seconds = trained(chosen.folder, steps=steps, seed=chosen.seed)
    learner, config = headed(artifact)
    tests = {}
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "sgd.csv"
        write_table(chosen.folder / "sgd", table)
        for spec, queries in TESTS.items():
            name = spec.partition(",")[0]
            where = (
                f"text:{table},conflicts=drop" if name == "sgd" else located(spec, chosen.folder)
            )
            tests[name] = scored(learner, where, queries, draws)
    facts = artifact.facts | {"tests": tests}
    if chosen.out and not chosen.smoke:
        save_artifact(chosen.out, learner, config, {}, facts=facts, whole=False)
    figures = {
        "threads": 1,
        "config": CONFIG,
        "trained_on": CORPORA,
        "steps": steps,
        "seed": chosen.seed,
        "training_processor_seconds": seconds,
        "weight_of_names": learner.log_name_weight.detach().exp().item(),
        "tests": tests,
    }
    record("text_training", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
