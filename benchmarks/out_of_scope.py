"""All 150 intents of CLINC150 from 10 texts each, and texts that are of none of them.

Each ARTIFACT is what ``text_training.py --without clinc150 --seed SEED --out ARTIFACT`` left: MiniLM meta-trained on
other sets of intents. Which score tells texts of no class apart, and the threshold above which a text is of none, are
learned from classes of BANKING77 that are left out of tasks and asked for all the same, as in tasks of 60 classes; no
text of no scope has been seen by anybody. They are judged by the out-of-scope texts of CLINC150's test part (Larson et
al. 2019), which are dealt to the tasks, beside the same for frozen MiniLM. The support is from the published training
part. Of several artifacts the mean is taken, with its interval over them.

FOLDER holds a folder for each corpus, clinc150 and banking77.

python benchmarks/out_of_scope.py FOLDER ARTIFACT [ARTIFACT …] [--tasks 12] [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import load_artifact
from quickstudy.build import build_learner, build_source, located
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.evaluation.measures import summary
from quickstudy.evaluation.unknown import evaluate_unknown, fit_rejection
from quickstudy.learners.base import Learner
from record import record

SHOT, QUERIES = 10, 28
KNOWN = 60
"""Classes of a task that the threshold is learned from."""
FROZEN = {"name": "text", "model": "minilm"}
HEAD = {"name": "linear_head", "names": True}
FIGURES = ("auroc", "fpr_at_95", "kept", "refused", "accuracy", "accuracy_without")


def over_seeds(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over runs, and its interval."""
    return {
        name: summary(
            torch.tensor([run[name]["mean"] for run in runs.values()], dtype=torch.float64)
        )
        for name in FIGURES
    }


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument(
        "artifacts", type=Path, nargs="+", help="trained on other corpora than CLINC150"
    )
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    artifacts = [load_artifact(each) for each in chosen.artifacts]
    others: dict[str, Learner] = {
        "logreg_names": build_learner(HEAD, FROZEN),
        "lexical": build_learner(HEAD, {**FROZEN, "lexical": 0.8}),
        "logreg": build_learner({"name": "linear_head"}, FROZEN),
    }
    way, shot, queries, tasks = (150, SHOT, QUERIES, chosen.tasks)
    if chosen.smoke:
        way, shot, queries, tasks = 5, 2, 2, 2
    known, asked = (
        build_source(located(f"{corpus},protocol=all", chosen.folder))
        for corpus in ("banking77", "clinc150")
    )

    def judged(name: str, learner: Learner) -> dict[str, Any]:
        rejection = fit_rejection(
            learner,
            known,
            design=EpisodeDesign(min(way, KNOWN), shot, min(queries, 5)),
            episodes=tasks,
        )
        found = evaluate_unknown(
            learner,
            asked,
            rejection,
            design=EpisodeDesign(way, shot, queries),
            episodes=tasks,
        )
        found.pop("variances", None)
        print(name, found, flush=True)
        return found

    seeds = ((f"seed {each.config.training.seed}", each.learner) for each in artifacts)
    runs = {name: judged(name, learner) for name, learner in seeds}
    found = {name: judged(name, learner) for name, learner in others.items()}
    settings = {"threads": 1, "way": way, "shot": shot, "queries": queries, "tasks": tasks}
    figures = {"entrants": {"trained": over_seeds(runs), **found}, "runs": runs}
    record("out_of_scope", settings | figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
