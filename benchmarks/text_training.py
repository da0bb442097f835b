"""MiniLM meta-trained on intents, against logistic regression on frozen MiniLM, on label sets that it never met.

The layers of MiniLM are trained by prototypes on all intents of CLINC150 and BANKING77 (Larson et al. 2019; Casanueva
et al. 2020), the opening intents and the single acts of users of Schema-Guided Dialogue (Rastogi et al. 2020), the
intents of NLU++ (Casanueva et al. 2022), what dialogues and sentences of Wikipedia are about (FewRel, Han et al. 2018),
and the texts of many areas that come with quickstudy; ``--without`` leaves one out. Half of the tasks have classes near
one another. What is kept are adapters that hold a part of the change. They are scored, as the shipped artifact ``text``
uses them, by logistic regression in which the name of a class counts for two more examples. The tests have all classes
of corpora that took no part: the test topics of HuffPost and of Reuters, all kinds of questions of TREC, areas that
were left out of the texts that come with quickstudy, and the set that was left out. Every way of learning has the same
tasks. What is trained on, and for how much a name counts, was chosen on the training topics of HuffPost and Reuters,
and on CLINC150 by models that had not met it; the rate besides on other areas, which are trained on now.

FOLDER holds a folder for each corpus: clinc150, banking77, sgd, nlupp, fewrel, huffpost, trec, reuters. Runs that were
made before stay in the results, each with its configuration. Those called earlier had no areas and no tasks of
neighbours, and a rate of 3e-5; the models of ``out_of_scope.py`` are of them.

python benchmarks/text_training.py FOLDER [--without CORPUS] [--steps 400] [--seed 0] [--precision 32-true]
    [--out ARTIFACT] [--smoke]
"""

from __future__ import annotations

import argparse
import math
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import Artifact, load_artifact, save_artifact
from quickstudy.build import build_learner, build_source, located
from quickstudy.config import parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import DataNote
from quickstudy.evaluation.contest import Contest
from quickstudy.learners.base import Learner
from quickstudy.learners.closed_form import LinearHead
from quickstudy.nn.preparation import take_change
from quickstudy.nn.pretrained import HuggingFaceEncoder
from quickstudy.training import train
from record import compared, earlier, record
from text_corpora import few_labels, opening_intents, single_acts, subjects, write_table

CONFIG: dict[str, Any] = {
    "learner": {"name": "protonet", "names": True, "temperature": 20.0},
    "encoder": {
        "name": "text",
        "model": "minilm",
        "frozen": False,
        "trained": "encoder.*",
        "lexical": 0.8,
    },
    "episode": {"way": 31, "shot": [1, 3], "queries": 2, "tasks": 1, "neighbours": 0.5},
    "validation": {"way": 2, "shot": 2, "queries": 2, "episodes": 30},
    "training": {
        "optimizer": "adamw",
        "rate": 1e-4,
        "weight_decay": 0.01,
        "warmup": 40,
        "average": 0.98,
    },
}
RANK, SHARE = 16, 0.75
"""Of the adapters, and how much of the change they take, so that texts of other kinds are read as before."""
NAME = 2.0
"""For so many examples the name of a class counts."""
HEAD = {"name": "linear_head", "names": True}
SMALL = {"name": "text", "model": "minilm", "lora": RANK, "lexical": 0.8}
FROZEN = {"name": "text", "model": "minilm"}
TESTS = {
    "huffpost": 20,
    "trec,protocol=all": 2,
    "reuters": 5,
    "short_texts,validation=0,test=0.1": 5,
}
"""Spec to queries of a class; of the areas those that training leaves for validation, for the seed is the same."""
LEFT_OUT = {"banking77,protocol=all": 30, "clinc150,protocol=all": 30}
SHOTS = (5, 10)
DRAWS = 5


CORPORA = {
    "clinc150": "clinc150,protocol=all",
    "banking77": "banking77,protocol=all",
    "sgd_intents": "text:sgd_intents.csv,conflicts=drop",
    "sgd_acts": "text:sgd_acts.csv,conflicts=drop",
    "nlupp": "text:nlupp.csv,conflicts=drop",
    "subjects": "text:subjects.csv,conflicts=drop",
    "short_texts": "short_texts,test=0",
}
"""What there is to train on; the tables are made here."""
LICENCES = {
    "clinc150": "Larson et al. 2019, CC BY 3.0",
    "banking77": "Casanueva et al. 2020, CC BY 4.0",
    "sgd_intents": "Rastogi et al. 2020, Schema-Guided Dialogue, CC BY-SA 4.0",
    "sgd_acts": "the same",
    "nlupp": "Casanueva et al. 2022, NLU++, CC BY 4.0",
    "subjects": "Rastogi et al. 2020, as above; Han et al. 2018, FewRel, sentences of Wikipedia, CC BY-SA",
    "short_texts": "written for quickstudy by a language model",
}
CLASSES = {"clinc150": 150, "banking77": 77, "short_texts": 1932}
"""Of those that are no tables; of the last those of all areas."""


def mixture(classes: dict[str, int], folder: Path | None, tables: Path) -> str:
    """A spec in which corpora come up as often as the root of their number of classes says.

    Args:
        classes: how many each corpus has.
        folder: where corpora lie; None leaves out where anything lies.
        tables: where tables lie.
    """
    specs = []
    for name, number in classes.items():
        spec = CORPORA[name]
        if folder is not None:
            spec = located(spec, folder).replace("text:", f"text:{tables}/")
        specs.append(f"{number**0.5:.1f}*({spec})")
    return f"mixture:{'+'.join(specs)}"


def trained(
    folder: Path, run: Path, without: str, *, steps: int, seed: int, precision: str
) -> Artifact:
    """What training makes."""
    with tempfile.TemporaryDirectory() as place:
        rows = {
            "sgd_intents": opening_intents(folder / "sgd"),
            "sgd_acts": single_acts(folder / "sgd"),
            "nlupp": few_labels(folder / "nlupp"),
            "subjects": subjects(folder / "sgd", folder / "fewrel"),
        }
        classes = CLASSES | {
            name: write_table(Path(place) / f"{name}.csv", each, least=5)
            for name, each in rows.items()
        }
        classes.pop(without, None)
        options = {**CONFIG, "data": mixture(classes, folder, Path(place))}
        own = {"steps": steps, "seed": seed, "precision": precision}
        options["training"] = {**CONFIG["training"], **own}
        options["validation"] = {**CONFIG["validation"], "every": steps}
        artifact = train(parse_config(options), run)
        portable = {"data": mixture(classes, None, Path(place))}
        return replace(artifact, config=artifact.config.model_copy(update=portable))


def small(artifact: Artifact) -> tuple[Learner, float]:
    """Logistic regression on adapters that hold the change of the encoder, and the share that they hold."""
    learner = build_learner(HEAD, SMALL).eval()
    assert isinstance(learner, LinearHead)
    assert isinstance(learner.encoder, HuggingFaceEncoder)
    with torch.no_grad():
        learner.log_name_weight.fill_(math.log(NAME))
    held = take_change(learner.encoder.model, artifact.learner.encoder.model, scale=SHARE)  # type: ignore[arg-type]
    return learner, held


def scored(learner: Learner, spec: str, queries: int, draws: int) -> dict[str, Any]:
    """Accuracies on all classes of a corpus by shot, and by how much the trained learner is above the others."""
    source = build_source(spec)
    contest = Contest(source, split="test")
    contest.enter("trained", learner)
    for name, head, encoder in (
        ("logreg", {"name": "linear_head"}, FROZEN),
        ("logreg_names", HEAD, FROZEN),
        ("lexical", HEAD, {**FROZEN, "lexical": 0.8}),
    ):
        contest.enter(name, build_learner(head, encoder))
    found = {}
    for shot in SHOTS:
        source.prepare(learner.encoder)
        pool = source.pool("test")
        way = int(pool.enough(shot, queries).sum())
        scores = contest.scores(EpisodeDesign(way, shot, queries), draws)
        found[str(shot)] = {"way": way, **compared(scores, "trained")}
        print(spec, shot, found[str(shot)]["accuracy"], flush=True)
    return found


def on_card(tests: dict[str, Any]) -> dict[str, Any]:
    """What the card of an artifact says of its tests."""
    return {
        f"{corpus}{beside}, {shot}-shot": {
            **found["accuracy"][entrant],
            "metric": "accuracy",
            "episodes": DRAWS,
            "way": found["way"],
            "shot": int(shot),
        }
        for corpus, by_shot in tests.items()
        for shot, found in by_shot.items()
        for entrant, beside in (("trained", ""), ("logreg_names", " (frozen MiniLM)"))
    }


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a folder for each corpus")
    parser.add_argument("--without", default="", help="a corpus to leave out")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="32-true", help="such as bf16-mixed")
    parser.add_argument("--run", type=Path, help="a run of this training, or what it left in --out")
    parser.add_argument("--out", type=Path, help="where to keep the artifact")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    steps, draws = (2, 2) if chosen.smoke else (chosen.steps, DRAWS)
    with tempfile.TemporaryDirectory() as place:
        artifact = (
            load_artifact(chosen.run)
            if chosen.run
            else trained(
                chosen.folder,
                Path(place) / "run",
                chosen.without,
                steps=steps,
                seed=chosen.seed,
                precision=chosen.precision,
            )
        )
    kept = artifact.config.learner == HEAD
    learner, held = (artifact.learner, None) if kept else small(artifact)
    tests = {
        spec.partition(",")[0]: scored(learner, located(spec, chosen.folder), queries, draws)
        for spec, queries in (TESTS | LEFT_OUT).items()
        if spec in TESTS or spec.startswith(chosen.without or "none")
    }
    if chosen.out and not chosen.smoke:
        config = artifact.config.model_copy(update={"learner": HEAD, "encoder": SMALL})
        trained_on = {name: LICENCES[name] for name in CORPORA if name != chosen.without}
        facts = artifact.facts | {"data": trained_on, "made by": "benchmarks/text_training.py"}
        save_artifact(chosen.out, learner, config, on_card(tests), facts=facts, whole=False)
    # Of the artifact, for a run that was made before may differ from what this script would train now.
    assert isinstance(learner, LinearHead)
    made = {
        "steps": artifact.config.training.steps,
        "seed": artifact.config.training.seed,
        "precision": artifact.config.training.precision,
        "training_minutes": artifact.facts["training"]["minutes"],
        "processor": artifact.facts["hardware"]["processor"],
        "config": artifact.config.model_dump(mode="json"),
        "name": learner.log_name_weight.exp().item(),
        "tests": tests,
    } | ({} if held is None else {"share_of_change_held": held})
    run = f"without {chosen.without}" if chosen.without else "all"
    runs = earlier("text_training", "runs") | {
        f"{run}, seed {made['seed']}" if made["seed"] else run: made
    }
    settings = {"threads": 1, "rank": RANK, "share": SHARE, "draws": DRAWS}
    record("text_training", settings | {"runs": runs}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
