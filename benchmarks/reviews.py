"""Good or bad, in domains that nobody met: MiniLM meta-trained on the reviews of others, and the tasks of LEOPARD.

The domains of FDU-MTL (Liu et al. 2017) are left out in three parts, stricter than one at a time. For each part a model
is trained by prototypes on 2-way tasks, each within one of the other domains, without the names of classes; and 5
reviews of each class of a domain that was left out are learned by logistic regression on its features. Beside it, on
the same tasks, stand logistic regression and prototypes on frozen MiniLM.

The model that never met books, DVDs, electronics and kitchenware is scored on the tasks of LEOPARD (Bansal et al. 2020)
as well, ten support sets of 4 examples of a class each. Classes have no names there either: the files that are
published call bad reviews positive.

FOLDER holds a folder for each corpus, fdu_mtl and leopard. Other parts stay in the results.

python benchmarks/reviews.py FOLDER [--part 0] [--steps 200] [--run ARTIFACT] [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import Artifact
from quickstudy.build import build_learner, build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.derive import derive
from quickstudy.evaluation.contest import Contest
from record import compared, earlier, record
from text_models import FROZEN, TRAINED, loaded_or_trained

PARTS = (
    ("books", "dvd", "electronics", "kitchen_housewares"),
    ("apparel", "health_personal_care", "magazines", "music"),
    ("MR", "software", "sports_outdoors", "toys_games", "video"),
)
LEOPARD = (
    "sentiment_books",
    "sentiment_dvd",
    "sentiment_kitchen",
    "rating_books",
    "disaster",
    "political_audience",
    "restaurant",
    "scitail",
)
CONFIG: dict[str, Any] = {
    "learner": {"name": "protonet", "temperature": 20.0},
    "encoder": TRAINED,
    "episode": {"way": 2, "shot": [1, 5], "queries": 4, "tasks": 4, "within_group": True},
    "validation": {"way": 2, "shot": 5, "queries": 8, "episodes": 40, "within_group": True},
    "training": {
        "optimizer": "adamw",
        "rate": 5e-5,
        "weight_decay": 0.01,
        "warmup": 30,
        "average": 0.98,
        "precision": "bf16-mixed",
        "seed": 0,
    },
}
HEAD = {"name": "linear_head"}
QUERIES = 20
TASKS = 100
"""Of each domain."""
SHOT, SUPPORT_SETS = 4, 10
"""Of LEOPARD."""


def scored(
    artifact: Artifact, spec: str, design: EpisodeDesign | None, tasks: int, queries: int = 0
) -> dict[str, Any]:
    """Accuracies, and by how much the trained model is above the others.

    Args:
        artifact: what was trained.
        spec: of the tasks.
        design: of them; None for those that come with their support sets.
        tasks: how many.
        queries: of those, how many of each class; 0 for all.
    """
    source = build_source(spec)
    if design is None:
        source.prepare(artifact.learner.encoder)
        pool = source.pool("test")
        design = EpisodeDesign(pool.classes, SHOT, queries or int(pool.asked.max()))
    contest = Contest(source, split="test")
    contest.enter("trained", derive(artifact, HEAD).learner)
    contest.enter("logreg", build_learner(HEAD, FROZEN))
    contest.enter("prototypes", build_learner({"name": "protonet"}, FROZEN))
    found = compared(contest.scores(design, tasks), "trained")
    print(spec, found["accuracy"], flush=True)
    return found


def on_leopard(
    artifact: Artifact, tasks: Iterable[str], folder: Path, *, smoke: bool
) -> dict[str, Any]:
    """What :func:`scored` says of each of these tasks of LEOPARD, by their support sets and all their texts."""
    return {
        task: scored(
            artifact,
            located(f"leopard,task={task}", folder),
            None,
            SUPPORT_SETS,
            5 if smoke else 0,
        )
        for task in tasks
    }


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--part", type=int, default=0, choices=range(len(PARTS)))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--run", type=Path, help="a run of this training")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    steps, tasks = (2, 3) if chosen.smoke else (chosen.steps, TASKS)

    def without(*domains: str) -> str:
        return located(f"fdu_mtl,held_out={'+'.join(domains)}", chosen.folder)

    options = CONFIG | {
        "data": without(*PARTS[chosen.part]),
        "training": CONFIG["training"] | {"steps": steps},
        "validation": CONFIG["validation"] | {"every": steps},
    }
    artifact = loaded_or_trained(chosen.run, options)
    steps = int(artifact.config.training.steps or steps)
    design = EpisodeDesign(2, 5, QUERIES, within_group=True)
    domains = {each: scored(artifact, without(each), design, tasks) for each in PARTS[chosen.part]}
    made: dict[str, Any] = {"steps": steps, "domains": domains}
    if chosen.part == 0:
        made["leopard"] = on_leopard(artifact, LEOPARD, chosen.folder, smoke=chosen.smoke)
    settings = {"threads": 1, "config": CONFIG, "tasks": TASKS, "queries": QUERIES}
    parts = earlier("reviews", "parts") | {str(chosen.part): made}
    record("reviews", settings | {"parts": parts}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
