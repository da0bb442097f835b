"""Topics and intents that nobody met, from one and from five texts: MiniLM meta-trained on other classes.

One model for each seed is trained by prototypes on the training classes of four corpora at once: HuffPost and Reuters
in the split of Bao et al. 2020 (Few-shot Text Classification with Distributional Signatures), CLINC150 in its first
rotation of domains, BANKING77 in thirds of its intents. It is scored on 5-way tasks of their test classes, by logistic
regression on its features in which the name of a class counts as an example. Beside it, on the same tasks, stand the
same on frozen MiniLM, with names and without, and prototypes without names. Settings were chosen on the validation
classes.

FOLDER holds a folder for each corpus. Runs of other seeds stay in the results.

python benchmarks/text_unseen.py FOLDER [--seed 0] [--steps 400] [--precision bf16-mixed] [--run ARTIFACT]
    [--split test] [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch

from quickstudy.build import build_learner, build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.derive import derive
from quickstudy.evaluation.contest import Contest
from record import compared, earlier, record
from text_models import FROZEN, TRAINED, loaded_or_trained

CORPORA = {"huffpost": 2.0, "clinc150": 1.0, "banking77": 1.0, "reuters": 0.5}
"""How often tasks of each come up."""
CONFIG: dict[str, Any] = {
    "learner": {"name": "protonet", "names": True, "temperature": 20.0},
    "encoder": TRAINED,
    "episode": {"way": [5, 15], "shot": [1, 3], "queries": 3, "tasks": 1},
    "validation": {"way": 5, "shot": 1, "queries": 5, "episodes": 40},
    "training": {
        "optimizer": "adamw",
        "rate": 6e-5,
        "weight_decay": 0.01,
        "warmup": 30,
        "average": 0.98,
    },
}
HEAD = {"name": "linear_head", "names": True}
QUERIES = 10
TASKS = 600


def scored(artifact: Any, folder: Path, *, split: Any, tasks: int) -> dict[str, Any]:
    """Accuracies by corpus and shot, and by how much the trained model is above the others."""
    found: dict[str, Any] = {}
    for corpus in CORPORA:
        contest = Contest(build_source(located(corpus, folder)), split=split)
        contest.enter("trained", derive(artifact, HEAD).learner)
        contest.enter("logreg_names", build_learner(HEAD, FROZEN))
        contest.enter("logreg", build_learner({"name": "linear_head"}, FROZEN))
        contest.enter("prototypes", build_learner({"name": "protonet"}, FROZEN))
        found[corpus] = {}
        for shot in (1, 5):
            scores = contest.scores(EpisodeDesign(5, shot, QUERIES), tasks)
            found[corpus][str(shot)] = compared(scores, "trained")
            print(corpus, shot, found[corpus][str(shot)]["accuracy"], flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--precision", default="bf16-mixed", help="or 32-true")
    parser.add_argument("--run", type=Path, help="a run of this training")
    parser.add_argument("--split", default="test", help="validation, while settings are chosen")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    steps, tasks = (2, 3) if chosen.smoke else (chosen.steps, TASKS)
    specs = [f"{weight}*({located(name, chosen.folder)})" for name, weight in CORPORA.items()]
    own = {"steps": steps, "seed": chosen.seed, "precision": chosen.precision}
    options = CONFIG | {
        "data": f"mixture:{'+'.join(specs)}",
        "training": CONFIG["training"] | own,
        "validation": CONFIG["validation"] | {"every": steps},
    }
    artifact = loaded_or_trained(chosen.run, options)
    training = artifact.config.training
    made = {name: getattr(training, name) for name in own}
    made["tests"] = scored(artifact, chosen.folder, split=chosen.split, tasks=tasks)
    seeds = earlier("text_unseen", "seeds") | {str(training.seed): made}
    settings = {"threads": 1, "config": CONFIG, "corpora": CORPORA, "tasks": TASKS}
    keep = not chosen.smoke and chosen.split == "test"
    record("text_unseen", settings | {"seeds": seeds}, keep=keep)


if __name__ == "__main__":
    main()
