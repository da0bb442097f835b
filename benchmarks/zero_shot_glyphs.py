"""Letters of scripts never met, known by what Unicode calls them: alone, by others of their scripts, and with examples.

A MetaTransformer around a prototypical network is trained on letters and their Unicode names, of 40-way tasks with no
example or one of each class. It then meets 20 letters of scripts that are in no training task, nor are their names:
with no example; with none where it knows a hundred other letters of these scripts by one drawing each, from the same
task or from five tasks before, which its memory carries; and with one example of each. Tasks come from all test
scripts together, all ways on the same tasks. Settings were chosen on the validation scripts.

With ``--fonts FOLDER`` it is trained on the letters of a folder of fonts, without the scripts of validation and test;
the tasks it meets are the same. The results keep both.

python benchmarks/zero_shot_glyphs.py [--fonts FOLDER] [--seeds 0 1 2] [--steps N] [--episodes N] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.build import build_source
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.source import Split
from quickstudy.episode import Episode
from quickstudy.evaluation.ablations import ablations
from quickstudy.evaluation.measures import summary
from quickstudy.learners.base import Learner, State
from quickstudy.training import train
from record import earlier, record

SPLITS: tuple[Split, ...] = ("validation", "test")
WAY, OTHERS = 20, 5
"""Letters of a task, and tasks of other letters that are known."""

CONFIG: dict[str, Any] = {
    "data": "glyphs",
    "learner": {"name": "meta_transformer", "names": True, "width": 128},
    "encoder": {"name": "image", "width": 64},
    "episode": {"way": 2 * WAY, "shot": [0, 1], "queries": 2, "tasks": 2},
    "validation": {"way": WAY, "shot": [0, 1], "queries": 2, "episodes": 60, "every": 100},
    "training": {"steps": 1200},
}


def part_of(episode: Episode, first: int, last: int, *, shown: bool = True) -> Episode:
    """The task of some of the classes of one, with their examples or without."""

    def kept(examples: Any, mask: Tensor) -> Any:
        chosen = (examples.y[0] >= first) & (examples.y[0] < last)
        x, y, there = (tensor[:, chosen] for tensor in (examples.x, examples.y - first, mask))
        return examples._replace(x=x, y=y, mask=there)

    support, query, context = episode
    classes = slice(first, last)
    return Episode(
        kept(support, support.mask & shown),
        kept(query, query.mask),
        context._replace(classes=context.classes[:, classes], names=context.names[:, classes]),
    )


def right(learner: Learner, task: Episode, state: State, *, skipped: int = 0) -> Tensor:
    """Accuracy on each task, among the classes behind the first ones."""
    outputs = learner.predict(state, task.query.x, task.context)[..., skipped:]
    return (outputs.argmax(-1) + skipped == task.query.y).double().mean(1)


def met(learner: Learner, nameless: Learner, whole: Episode) -> dict[str, Tensor]:
    """Accuracy on the last letters of some tasks, in each of the ways; ``nameless`` is told no names."""
    before = OTHERS * WAY
    new = part_of(whole, before, before + WAY, shown=False)
    shown = part_of(whole, before, before + WAY)
    carried = None
    for first in range(0, before, WAY):
        task = part_of(whole, first, first + WAY)
        carried = learner.carry(learner.adapt(task.support, task.context, carried))
    asked = new.query._replace(y=new.query.y + before)
    support = whole.support
    known = support._replace(mask=support.mask & (support.y < before))
    return {
        "names alone": right(learner, new, learner.adapt(new.support, new.context)),
        "names, after five tasks": right(
            learner, new, learner.adapt(new.support, new.context, carried)
        ),
        "names, among known letters": right(
            learner,
            Episode(known, asked, whole.context),
            learner.adapt(known, whole.context),
            skipped=before,
        ),
        "one example and names": right(learner, shown, learner.adapt(shown.support, shown.context)),
        "one example alone": right(nameless, shown, nameless.adapt(shown.support, shown.context)),
    }


def scores_of(learner: Learner, split: Split, episodes: int) -> dict[str, Any]:
    """Accuracy in each of the ways, and what other letters add to names, in pairs."""
    design = EpisodeDesign((OTHERS + 1) * WAY, 1, 5)
    tasks = Episodes(build_source("glyphs"), split, design, length=episodes)
    nameless = ablations(learner)["without_description"]
    with torch.no_grad():
        each = [met(learner, nameless, tasks[index]) for index in range(episodes)]
    accuracy = {name: torch.cat([found[name] for found in each]) for name in each[0]}
    alone = accuracy["names alone"]
    gains = {name: accuracy[name] - alone for name in accuracy if name.startswith("names, ")}
    return {
        kind: {name: summary(scores) for name, scores in found.items()}
        for kind, found in (("accuracy", accuracy), ("above names alone", gains))
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fonts", help="a folder of fonts to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=CONFIG["training"]["steps"])
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--smoke", action="store_true", help="two steps, and keep nothing")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.steps = chosen.episodes = 2
        chosen.seeds = chosen.seeds[:1]
    torch.set_num_threads(1)
    runs = []
    for seed in chosen.seeds:
        training = CONFIG["training"] | {"steps": chosen.steps, "seed": seed}
        data = f"fonts:{chosen.fonts}" if chosen.fonts else CONFIG["data"]
        config = RunConfig.model_validate(CONFIG | {"data": data, "training": training})
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            learner = train(config, Path(folder) / "run").learner.eval()
        seconds = time.process_time() - start
        scores = {split: scores_of(learner, split, chosen.episodes) for split in SPLITS}
        runs.append({"seed": seed, "training_processor_seconds": seconds, "scores": scores})
        print(runs[-1], flush=True)
    name = "zero_shot_glyphs"
    kept = {key: earlier(name, key) for key in ("runs", "of_fonts")}
    made: dict[str, Any] = {"runs": runs}
    if chosen.fonts:
        splits = build_source(f"fonts:{chosen.fonts}").describe()["splits"]
        learner = CONFIG["learner"]
        made = {"of_fonts": {"trained_on": splits["train"], "learner": learner, "runs": runs}}
    settings = {"config": CONFIG, "chance": 1 / WAY}
    record(name, settings | kept | made, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
