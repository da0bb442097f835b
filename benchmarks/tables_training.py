"""The artifacts for tables that ship with the package: trained on invented tables, on one core, in minutes.

Every step has tables of one shape, so that nothing is padded: shapes are drawn, and as many tasks as a step has room
for. The rate falls with the processor time that is left, the weights that are kept are a moving average, and validation
tasks are invented ones of another split. The figure is how much better the correction makes the classical answers that
training begins at.

python benchmarks/tables_training.py [--values] [--minutes 5] [--start ARTIFACT] [--out FOLDER] [--smoke]
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.artifact import Artifact, load_artifact, save_artifact
from quickstudy.build import build_learner
from quickstudy.config import RunConfig, parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes, index_generator
from quickstudy.data.table_prior import choose, log_uniform
from quickstudy.data.tables import InventedTables
from quickstudy.episode import Episode
from quickstudy.evaluation.intervals import interval
from quickstudy.learners.base import Learner
from quickstudy.machine import hardware
from quickstudy.training.optimizer import optimizer_of
from record import record

CARD = """\
# tables: {predicts}

Learns a table from its rows in one forward pass: numbers and categories, any of them missing. It ships with quickstudy.
Learner `tables` on encoder `table`, {parameters:,} parameters in single precision. Id `{id}`.

```python
{usage}
```

## Data

It was trained on invented tables alone (the data source `tables`):
random causal networks{mechanisms}.
They had {columns[0]} to {columns[1]} columns and {shots[0]} to {shots[1]} rows to learn from{of_classes}.
No table of anybody's took part, so there is no licence and no person in it.

## Scores

On {tasks} invented tables of another split, each query answered alone:

| | loss in nats | {metric}, mean ± 95 % interval over tasks |
|---|---|---|
| this artifact | {last[nll]:.4f} | {last[score]:.4f} ± {last[ci95]:.4f} |
| its classical rules alone, which training begins at | {first[nll]:.4f} | {first[score]:.4f} ± {first[ci95]:.4f} |

On real tables, against tuned {rivals}: `benchmarks/results/{figures}.json` of the repository.

## Limits

- At most 1,000 rows and 100 columns; far from the sizes above, measure before you rely on it.
- {limit}

## Training

{steps} steps in {minutes:.1f} minutes of one processor core, seed {seed}{start}. To make it again:
`python benchmarks/tables_training.py {options}`.
How many steps that is hangs on the machine.
"""

OF_CLASSES = {
    "predicts": "classes",
    "usage": """from quickstudy import FewShotClassifier

classifier = FewShotClassifier.from_pretrained("tables")
classifier.fit(table, labels).predict_proba(queries)""",
    "mechanisms": ", functions of correlated columns, and clusters",
    "of_classes": ", of 2 to 10 classes",
    "metric": "accuracy",
    "rivals": "classifiers",
    "figures": "tables",
    "limit": "Its answer is always one of the classes of the task, with probabilities that may be wrong where your\n"
    "  tables differ from the invented ones.",
}
OF_VALUES = {
    "predicts": "a number and its uncertainty",
    "usage": """from quickstudy import FewShotRegressor

regressor = FewShotRegressor.from_pretrained("tables")
regressor.fit(table, values).predict(queries, return_std=True)""",
    "mechanisms": " and functions of correlated columns",
    "of_classes": "",
    "metric": "mean squared error",
    "rivals": "regressors",
    "figures": "table_values",
    "limit": "It answers with a normal distribution, so its intervals are wrong where values have two peaks or a long\n"
    "  tail, and far outside the rows that it learned from.",
}

ROOM = 9_000
"""Cells of a step: of all tasks, classes, examples and columns."""
QUERIES, COLUMNS, SHOTS = 40, (2, 25), (24, 149)
RATE, WARMUP, CLIP, AVERAGE, DECAY = 4e-3, 30, 1.0, 0.99, 0.02
VALIDATION_SEED, VALIDATION_BATCHES = 1, 16
NOISES_OF_VALUES = [0.1, 1.0, 10.0]
WAYS = ([2, 3, 4, 5, 7, 10], [55.0, 20.0, 8.0, 7.0, 5.0, 5.0])


def batch(split: Any, seed: int, index: int, *, values: bool) -> Episode:
    """Tasks of one shape, decided by seed, split and index."""
    generator = index_generator(seed, f"shape {split}", index)
    way = 1 if values else WAYS[0][int(choose(WAYS[1], (1,), generator))]
    columns = int(log_uniform((1,), COLUMNS[0], COLUMNS[1] + 1, generator))
    shot = int(log_uniform((1,), SHOTS[0], SHOTS[1] + 1, generator))
    tasks = ROOM // (way * (shot + QUERIES) * (columns + 1))
    world = InventedTables(
        columns=columns, fewest_columns=columns, predicts="values" if values else "classes"
    )
    design = EpisodeDesign(way=way, shot=shot, queries=QUERIES)
    drawn = Episodes(
        world, split, design, tasks=min(max(tasks, 1), 24), length=index + 1, seed=seed
    )
    return drawn[index]


@torch.no_grad()
def validate(learner: Learner, episodes: list[Episode]) -> dict[str, float]:
    """Mean loss and score over validation tasks, in nats and accuracy or squared error."""
    learner.eval()
    losses, scores = [], []
    for episode in episodes:
        state = learner.adapt(episode.support, episode.context)
        outputs = learner.predict(state, episode.query.x, episode.context)
        told = (outputs, episode.query, episode.context)
        losses.append(learner.likelihood.task_nll(*told))
        scores.append(learner.likelihood.task_score(*told))
    learner.train()
    (nll, _), (score, ci95) = interval(torch.cat(losses)), interval(torch.cat(scores))
    return {"nll": nll, "score": score, "ci95": ci95, "tasks": len(torch.cat(scores))}


def config_of(*, values: bool, seed: int, minutes: float) -> RunConfig:
    predicts = "values" if values else "classes"
    of_values = {"values": 1, "noises": NOISES_OF_VALUES} if values else {"values": 0}
    return parse_config(
        {
            "data": f"tables,columns={COLUMNS[1]},fewest_columns={COLUMNS[0]},predicts={predicts}",
            "learner": {"name": "tables", "width": 48, "heads": 2} | of_values,
            "encoder": "table",
            "episode": {"way": None if values else [2, 10], "shot": list(SHOTS), "queries": QUERIES},
            "training": {
                "rate": RATE, "warmup": WARMUP, "clip": CLIP, "average": AVERAGE, "weight_decay": DECAY, "seed": seed,
                "minutes": minutes,
            },
        }
    )  # fmt: skip


def train(
    config: RunConfig, *, values: bool, minutes: float, start: Path | None
) -> tuple[Learner, dict[str, Any]]:
    """The averaged weights, and how the training went."""
    torch.manual_seed(config.training.seed)
    learner = build_learner(config.learner, config.encoder).train()
    optimizer = optimizer_of(learner, "muon", rate=RATE, weight_decay=DECAY, fused=True)
    rules_alone = copy.deepcopy(learner)
    origin: dict[str, Any] = {}
    if start is not None:
        artifact = load_artifact(start)
        learner.load_state_dict(artifact.learner.state_dict())
        origin = {"start": {"id": artifact.id, "training": artifact.facts["training"]}}
    average = copy.deepcopy(learner)
    held_out = [
        batch("validation", VALIDATION_SEED, i, values=values) for i in range(VALIDATION_BATCHES)
    ]
    history = [{"step": 0, "minutes": 0.0, **validate(rules_alone, held_out)}]
    began, budget, step, spent, due = time.process_time(), 60 * minutes, 0, 0.0, 0.0
    while spent < budget:
        if spent >= due:
            history.append({"step": step, "minutes": spent / 60, **validate(average, held_out)})
            print(history[-1], flush=True)
            due += budget / 3
        rate = RATE * min(1, (step + 1) / WARMUP) * (1 - spent / budget)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        learner(batch("train", config.training.seed, step, values=values)).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), CLIP)
        optimizer.step()
        step += 1
        with torch.no_grad():
            share = 1 - min(AVERAGE, step / (step + 10))
            for kept, value in zip(average.parameters(), learner.parameters(), strict=True):
                kept.lerp_(value, share)
        spent = time.process_time() - began
    history.append({"step": step, "minutes": spent / 60, **validate(average, held_out)})
    print(history[-1], flush=True)
    facts = {"steps": step, "processor_minutes": spent / 60, "history": history}
    return average.eval(), facts | origin


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5.0, help="of processor time")
    parser.add_argument("--values", action="store_true", help="values in place of classes")
    parser.add_argument("--start", type=Path, help="an artifact whose weights to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    minutes = 0.05 if chosen.smoke else chosen.minutes
    config = config_of(values=chosen.values, seed=chosen.seed, minutes=minutes)
    learner, training = train(config, values=chosen.values, minutes=minutes, start=chosen.start)
    keep(learner, config, training, None if chosen.smoke else chosen.out)
    figures = {"threads": 1, "config": config.model_dump(mode="json"), **training}
    # How the training for values went is told with its scores, out of the artifact, by table_values.py.
    record("tables_training", figures, keep=not (chosen.smoke or chosen.values))


def keep(learner: Learner, config: RunConfig, training: dict[str, Any], out: Path | None) -> None:
    """Write the artifact, its scores beside those of the classical rules alone, which training begins at."""
    first, last = training["history"][0], training["history"][-1]
    shape = {"metric": learner.likelihood.metric, "way": config.episode.way, "shot": list(SHOTS)}
    scores = {
        name: shape
        | {"mean": row["score"], "ci95": row["ci95"], "episodes": row["tasks"], "nll": row["nll"]}
        for name, row in (("validation", last), ("validation, classical rules alone", first))
    }
    if out is None:
        return
    facts = {"data": InventedTables(columns=COLUMNS[1]).describe(), "training": training}
    save_artifact(out, learner, config, scores, facts=facts | {"hardware": hardware()})
    (out / "README.md").write_text(card_of(load_artifact(out)), encoding="utf-8")


def card_of(artifact: Artifact) -> str:
    """What a person wants to know of such an artifact."""
    training, config = artifact.facts["training"], artifact.config
    of_values = config.learner["values"] > 0
    options, start = f"--minutes {config.training.minutes:g} --out FOLDER", ""
    if "start" in training:
        options = f"--start ARTIFACT {options}"
        before = training["start"]
        minutes = before["training"]["processor_minutes"]
        start = f", from artifact `{before['id']}`, which took {minutes:.1f} minutes"
    return CARD.format(
        **(OF_VALUES if of_values else OF_CLASSES),
        id=artifact.id,
        parameters=sum(value.numel() for value in artifact.learner.parameters()),
        columns=COLUMNS,
        shots=SHOTS,
        tasks=training["history"][-1]["tasks"],
        first=training["history"][0],
        last=training["history"][-1],
        steps=training["steps"],
        minutes=training["processor_minutes"],
        seed=config.training.seed,
        start=start,
        options=f"--values {options}" if of_values else options,
    )


if __name__ == "__main__":
    main()
