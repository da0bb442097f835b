"""Intents never met, known by their names: the MetaTransformer against MiniLM's cosine, with no example and with one,
and beside others that have five.

CLINC150 (Larson et al. 2019, An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction;
``data_full.json`` and ``domains.json`` of its repository). Of the 150 intents, in an order decided by a seed, 90 are
for training, 20 for validation and 40 for the test; the tasks tell 20 of them apart. MiniLM is frozen, what is trained
lies on top of it. All answer the same tasks:

- ``names``: cosine between the query and the name of the intent, by MiniLM. It has no use for examples.
- ``prototypes``: cosine between the query and the example, by MiniLM.
- ``names_and_prototypes``: the sum of both.
- ``without_likeness``, where half of the intents have five examples and half a name alone: the MetaTransformer that
  makes nothing of it that an intent is called nearly the same as one that has examples.

Settings were chosen on the validation intents.

python benchmarks/intent_names.py FOLDER [--seeds 3] [--episodes N] [--smoke]
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.build import build_source
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.features import with_features
from quickstudy.data.source import Split
from quickstudy.episode import Episode
from quickstudy.evaluation import answer_batch, answering
from quickstudy.learners.base import Learner
from quickstudy.learners.memory import MetaTransformer
from quickstudy.learners.metric import class_sums
from quickstudy.training import train
from record import compared, record

WAY, QUERIES = 20, 5
PARTS = {"train": 90, "validation": 20, "test": 40}
CONFIG: dict[str, Any] = {
    "learner": {"name": "meta_transformer", "names": True},
    "encoder": {"name": "text", "model": "minilm", "frozen": True, "layers": 1},
    "episode": {"way": 20, "shot": [0, 1], "queries": 5, "tasks": 8},
    "validation": {"way": 20, "shot": [0, 1], "queries": 5, "episodes": 200, "every": 50},
    "training": {"steps": 300, "rate": 0.0002},
}
SMOKE = {
    "training": {"steps": 2},
    "validation": {"way": 20, "shot": [0, 1], "queries": 5, "episodes": 4, "every": 2},
}


def write_table(folder: Path, path: Path, *, seed: int, smoke: bool) -> None:
    """CLINC150 as a table of texts, labels, groups and splits; intents are shared out by ``seed``."""
    rows = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    domain = {intent: name for name, intents in domains.items() for intent in intents}
    intents = sorted(domain)
    random.Random(seed).shuffle(intents)
    split: dict[str, str] = {}
    for part, count in PARTS.items():
        split |= dict.fromkeys(intents[:count], part)
        del intents[:count]
    texts = [row for part in ("train", "val", "test") for row in rows[part]]
    seen: dict[str, int] = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "group", "split"])
        for text, intent in texts:
            seen[intent] = seen.get(intent, 0) + 1
            if not smoke or seen[intent] <= 10:
                table.writerow([text, intent, domain[intent], split[intent]])


def data_of(table: Path) -> str:
    # A few of its texts stand under two intents.
    return f"text:{table},conflicts=drop"


def config_of(table: Path, seed: int, *, smoke: bool) -> RunConfig:
    options: dict[str, Any] = {**CONFIG, "data": data_of(table)}
    if smoke:
        options |= SMOKE
    options["training"] = {**CONFIG["training"], **options["training"], "seed": seed}
    return RunConfig.model_validate(options)


def cosines(episode: Episode) -> dict[str, Tensor]:
    """What MiniLM itself says of the queries of tasks whose examples and names are its vectors, (task, query, way)."""
    way = episode.context.classes.shape[1]
    sums, counts = class_sums(F.normalize(episode.support.x, dim=-1), episode.support, way)
    query = F.normalize(episode.query.x, dim=-1)
    by_name = query @ F.normalize(episode.context.names, dim=-1).mT
    by_example = (query @ F.normalize(sums, dim=-1).mT) * (counts > 0)[:, None]
    return {
        "names": by_name,
        "prototypes": by_example,
        "names_and_prototypes": by_name + by_example,
    }


def tasks_of(
    learner: Learner, table: Path, shot: int, tasks: int, split: Split = "test"
) -> Iterator[Episode]:
    """So many tasks, at most 50 at a time."""
    features = with_features(build_source(data_of(table)), learner.encoder)
    design = EpisodeDesign(WAY, shot, QUERIES)
    drawn = Episodes(features, split, design, tasks=min(50, tasks), length=tasks)
    return (drawn[batch] for batch in range(-(-tasks // drawn.tasks)))


def accuracies(
    learner: Learner, table: Path, shot: int, tasks: int, split: Split = "test"
) -> dict[str, Tensor]:
    """The accuracy of each task, (task,), by contender."""
    found: dict[str, list[Tensor]] = {}
    with answering(learner):
        for episode in tasks_of(learner, table, shot, tasks, split):
            outputs = {"meta_transformer": answer_batch(learner, episode), **cosines(episode)}
            for name, each in outputs.items():
                right = (each.argmax(-1) == episode.query.y).double().mean(1)
                found.setdefault(name, []).append(right)
    return {name: torch.cat(parts) for name, parts in found.items()}


def beside_others(learner: Learner, table: Path, tasks: int) -> dict[str, dict[str, Tensor]]:
    """Accuracy on each task, (task,), where half of the intents have five examples and half a name alone.

    Of all queries, and of those of intents without an example, among all intents of the task.
    """
    plain = copy.deepcopy(learner)
    assert isinstance(plain, MetaTransformer)
    assert plain.similar is not None
    plain.similar.strength.fill_(0)
    found: dict[str, dict[str, list[Tensor]]] = {"all": {}, "new": {}}
    with answering(learner), answering(plain):
        for support, query, context in tasks_of(learner, table, 5, tasks):
            support = support._replace(mask=support.mask & (support.y < WAY // 2))
            episode = Episode(support, query, context)
            outputs = {
                "meta_transformer": answer_batch(learner, episode),
                "without_likeness": answer_batch(plain, episode),
                **cosines(episode),
            }
            new = query.y[0] >= WAY // 2
            for name, each in outputs.items():
                right = (each.argmax(-1) == query.y).double()
                found["all"].setdefault(name, []).append(right.mean(1))
                found["new"].setdefault(name, []).append(right[:, new].mean(1))
    return {
        which: {name: torch.cat(parts) for name, parts in each.items()}
        for which, each in found.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of CLINC150: data_full.json and domains.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    tasks = 4 if chosen.smoke else chosen.episodes
    runs: list[dict[str, Any]] = []
    each: dict[str, list[dict[str, Tensor]]] = {}
    for seed in range(1 if chosen.smoke else chosen.seeds):
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "clinc150.csv"
            write_table(chosen.folder, table, seed=seed, smoke=chosen.smoke)
            start = time.process_time()
            artifact = train(config_of(table, seed, smoke=chosen.smoke), Path(folder) / "run")
            run: dict[str, Any] = {"seed": seed, "processor_seconds": time.process_time() - start}
            found = {
                f"{shot}-shot": accuracies(artifact.learner, table, shot, tasks) for shot in (0, 1)
            }
            for which, scores in beside_others(artifact.learner, table, tasks).items():
                found[f"half by name, {which}"] = scores
            for name, scores in found.items():
                each.setdefault(name, []).append(scores)
                run[name] = compared(scores, "meta_transformer")
            run["best_step"] = artifact.facts["training"]["best_step"]
        runs.append(run)
        config = {k: v for k, v in artifact.config.model_dump(mode="json").items() if k != "data"}
    together = {
        name: compared(
            {who: torch.cat([scores[who] for scores in found]) for who in found[0]},
            "meta_transformer",
        )
        for name, found in each.items()
    }
    figures = {"threads": 1, "config": config, "all_seeds": together, "runs": runs}
    record("intent_names", figures, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
