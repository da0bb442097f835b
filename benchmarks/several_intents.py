"""Sentences with several intents each, NLU++, on frozen MiniLM: intents never met, and the folds of its authors.

Intents that nobody has met: prototypes against the rest and a logistic regression for each intent, both with the names
of intents as examples of them and without, on tasks of all ten test intents. What they learn (a temperature, a
threshold, for how many examples a name counts) they learn from tasks of the training intents; validation intents choose
the step. Folds: logistic regression, of which nothing is trained or chosen, learns all 48 intents from one fold of 20
and from two, and is asked about all others, as in the paper of Casanueva et al. 2022.

FOLDER holds banking.jsonl.gz and ontology.json.

python benchmarks/several_intents.py FOLDER [--steps 60] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from quickstudy.build import build_learner, build_source
from quickstudy.config import parse_config
from quickstudy.data.design import fit_design
from quickstudy.data.source import DataNote
from quickstudy.evaluation.contest import Contest
from quickstudy.evaluation.entrants import contest_of
from quickstudy.evaluation.measures import summaries, summary
from quickstudy.training import train
from record import record

ENCODER = {"name": "text", "model": "minilm"}
EPISODE = {"way": [5, 10], "shot": [1, 5], "queries": 4, "tasks": 4}
VALIDATION = {"way": 5, "shot": 3, "queries": 4, "episodes": 40}
TRAINING = {"rate": 0.02, "warmup": 10, "schedule": "linear", "accelerator": "cpu"}
LEARNERS = {
    "prototypes": {"name": "protonet"},
    "prototypes_names": {"name": "protonet", "names": True},
    "logistic": {"name": "linear_head"},
    "logistic_names": {"name": "linear_head", "names": True},
}
SHOTS = (1, 5)
SEEDS = (0, 1, 2)


def trained(folder: str, learner: dict[str, Any], seed: int, steps: int) -> Any:
    """A learner that met the training intents; one without anything to learn stays as it is."""
    made = build_learner({**learner, "labels": "many"}, ENCODER)
    if not any(value.requires_grad for value in made.parameters()):
        return made
    run = {
        "data": f"nlupp:{folder},seed={seed}",
        "learner": learner,
        "encoder": ENCODER,
        "episode": EPISODE,
        "validation": VALIDATION,
        "training": {**TRAINING, "steps": steps, "seed": seed},
    }
    with tempfile.TemporaryDirectory() as out:
        return train(parse_config(run), Path(out)).learner


def scored(contest: Contest, shot: int, tasks: int, against: str) -> dict[str, Any]:
    """Scores of all, and by how much each is better than one of them on the same tasks."""
    design = fit_design(
        contest.source,
        "test",
        way=None,
        shot=shot,
        queries=None,
        within_group=False,
        most_way=10,
        examples=200,
    )
    found = contest.measures(design, tasks)
    return {
        name: {
            **summaries(each),
            "better_than": {
                "whom": against,
                **summary(each["score"] - found[against]["score"]),
            },
        }
        for name, each in found.items()
    }


def unseen(folder: str, seed: int, steps: int, tasks: int) -> dict[str, Any]:
    source = build_source(f"nlupp:{folder},seed={seed}")
    learners = {name: trained(folder, each, seed, steps) for name, each in LEARNERS.items()}
    contest = contest_of(learners["logistic"], source, seed=seed)
    contest.contestants["logistic"] = contest.contestants.pop("learner")
    for name in set(learners) - {"logistic"}:
        contest.enter(name, learners[name])
    learned = {
        name: {
            key: round(value.item(), 3) for key, value in each.named_parameters() if not value.dim()
        }
        for name, each in learners.items()
    }
    shots = {str(shot): scored(contest, shot, tasks, "logistic") for shot in SHOTS}
    return {"source": source.describe(), "learned": learned, "shots": shots}


def folds(folder: str, most: int) -> dict[str, Any]:
    source = build_source(f"nlupp:{folder},protocol=folds")
    plain = {**LEARNERS["logistic"], "labels": "many"}
    contest = contest_of(build_learner(plain, ENCODER), source)
    contest.contestants["logistic"] = contest.contestants.pop("learner")
    contest.enter("logistic_names", build_learner({**plain, "names": True}, ENCODER))
    return {f"{20 // shot} tasks": scored(contest, shot, most, "logistic") for shot in (1, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DataNote)
    torch.set_num_threads(1)
    seeds, steps, tasks = (SEEDS[:1], 2, 3) if given.smoke else (SEEDS, given.steps, 40)
    start = time.process_time()
    figures = {
        "encoder": ENCODER,
        "learners": LEARNERS,
        "episode": EPISODE,
        "validation": VALIDATION,
        "training": {**TRAINING, "steps": steps},
        "tasks": tasks,
        "unseen": {str(seed): unseen(given.folder, seed, steps, tasks) for seed in seeds},
        "folds": folds(given.folder, 2 if given.smoke else 20),
    }
    figures["processor_seconds"] = round(time.process_time() - start)
    record("several_intents", figures, keep=not given.smoke)


if __name__ == "__main__":
    main()
