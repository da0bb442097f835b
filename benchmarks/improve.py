"""What 200 corrected answers are worth: a model of clean letters meets a bad camera, and improves by its log.

The model is what `quickstudy demo` leaves. The shifted domain is the same kind of letters through a bad camera: pale,
on an uneven ground, with noise. Ten people have a task each, ten letters of one script with one drawing of each; they
ask about the other drawings, and correct twenty wrong answers each. `improve` learns from that log. Scored is how often
the model before and after is wrong, on the same tasks of scripts that are not in the log: through the camera and clean.

Test: the log is of Georgian, Armenian and Hebrew, scored are Tifinagh, Lao and N'Ko. Settings are chosen with
`--validation`, where the log is of Greek and scored are Old Italic and Ogham. With `--control`, the same steps are
taken on the original tasks alone, too. Seeds decide who asks what, what is held out and which tasks are drawn.

python benchmarks/improve.py [--artifact runs/demo/artifact] [--seeds 0 1 2] [--validation] [--control] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from quickstudy.artifact import Artifact, answer, extend, load_artifact
from quickstudy.build import build_source
from quickstudy.config import with_overrides
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import Pool, PoolSource, Split
from quickstudy.evaluation import Contest, interval
from quickstudy.evaluation.contest import FixedPool
from quickstudy.feedback import Event, append, keep_image
from quickstudy.learners.base import Learner
from quickstudy.training import train
from quickstudy.training.improving import RATE, SHARE, STEPS, improve
from record import record

LOGGED = {"test": ("Georgian", "Armenian", "Hebrew"), "validation": ("Greek",)}
SCORED = {"test": ("Tifinagh", "Lao", "N'Ko"), "validation": ("Old Italic", "Ogham")}
PEOPLE, LETTERS, CORRECTIONS = 10, 10, 200
"""Tasks in the log at most, as no letter is in two; classes of each; and corrected answers to all together."""
DESIGN = EpisodeDesign(way=20, shot=1, queries=5)
EPISODES = 300


def through_a_bad_camera(x: Tensor) -> Tensor:
    """Images, uint8 (example, 1, side, side): pale ink on an uneven ground, with noise."""
    generator = torch.Generator().manual_seed(0)
    count, side = len(x), x.shape[-1]
    slope = torch.linspace(-0.5, 0.5, side)
    lean = torch.rand(count, 2, 1, 1, generator=generator) - 0.5
    ground = 0.2 + 0.3 * (lean[:, :1] * slope[:, None] + lean[:, 1:] * slope)
    noise = 0.07 * torch.randn(x.shape, generator=generator)
    return ((ground + 0.6 * x / 255 + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def some(pool: Pool, groups: Sequence[str] | None, *, camera: bool) -> Pool:
    """The classes of some groups, clean or through the camera."""
    wanted = [g for g, name in enumerate(pool.group_names) if groups is None or name in groups]
    members = [c for c in range(pool.classes) if int(pool.groups[c]) in wanted]
    x = torch.cat([pool.of_class(c) for c in members])
    return Pool(
        through_a_bad_camera(x) if camera else x,
        pool.counts[members],
        [pool.class_names[c] for c in members],
        pool.groups[members],
        pool.group_names,
    )


def write_log(artifact: Artifact, pool: Pool, log: Path, *, seed: int) -> dict[str, int]:
    """What people of the shifted domain correct: wrong answers only, in the order in which they ask."""
    generator = torch.Generator().manual_seed(seed)
    used: set[int] = set()
    asked = corrected = 0
    people = min(PEOPLE, pool.classes // LETTERS)
    for person in range(people):
        free = [c for c in range(pool.classes) if c not in used]
        sizes = torch.bincount(pool.groups[free], minlength=len(pool.group_names))
        group = int((sizes * (0.5 + torch.rand(len(sizes), generator=generator))).argmax())
        members = [c for c in free if int(pool.groups[c]) == group]
        chosen = [members[i] for i in torch.randperm(len(members), generator=generator)[:LETTERS]]
        used.update(chosen)
        names = [pool.class_names[c] for c in chosen]
        drawings = [pool.of_class(c) for c in chosen]
        task = extend(artifact, None, torch.stack([each[0] for each in drawings]), names)
        order = [(c, i) for c in range(len(chosen)) for i in range(1, len(drawings[c]))]
        order = [order[i] for i in torch.randperm(len(order), generator=generator)]
        x = torch.stack([drawings[c][i] for c, i in order])
        said = [task.class_names[i] for i in answer(artifact, task, x).argmax(1).tolist()]
        wrong = [i for i, (c, _) in enumerate(order) if said[i] != names[c]]
        wrong = wrong[: CORRECTIONS // people]
        events = []
        for i in wrong:
            file = log.with_name("asked.png")
            Image.fromarray(x[i, 0].numpy()).save(file)
            right = names[order[i][0]]
            mark = keep_image(log, file)
            place = f"{person}/{i}.png"
            events.append(
                Event(
                    f"{person}.task",
                    artifact.id,
                    "image",
                    place,
                    said[i],
                    right,
                    tuple(names),
                    mark,
                )
            )
        append(log, events)
        asked += wrong[-1] + 1 if wrong else len(order)
        corrected += len(wrong)
    return {"tasks": people, "asked": asked, "corrected": corrected, "letters": len(used)}


def errors(learners: dict[str, Learner], pool: Pool, *, episodes: int) -> dict[str, Any]:
    """How often each learner is wrong on the same tasks, and how much less often than the first."""
    contest = Contest(FixedPool(pool), split="test")
    for name, learner in learners.items():
        contest.enter(name, learner)
    wrong = {name: 1 - each for name, each in contest.scores(DESIGN, episodes).items()}
    first = wrong["before"]
    found: dict[str, Any] = {}
    for name, each in wrong.items():
        mean, ci95 = interval(each)
        found[name] = {"error": mean, "ci95": ci95}
        if name != "before":
            less, half = interval(first - each)
            share = less / float(first.mean())
            found[name] |= {"paired_gain": less, "paired_ci95": half, "relative_change": -share}
    return found


def run(
    old: Artifact, seed: int, folder: Path, parts: dict[str, Pool], chosen: argparse.Namespace
) -> dict[str, Any]:
    """One seed: let people correct, improve, score."""
    logged = write_log(old, parts["logged"], folder / "log.jsonl", seed=seed)
    steps, episodes = (2, 8) if chosen.smoke else (chosen.steps, EPISODES)
    start = time.process_time()
    found = improve(
        old, folder / "log.jsonl", folder / "after", steps=steps, share=chosen.share,
        rate=chosen.rate, episodes=episodes, seed=seed,
    )  # fmt: skip
    seconds = time.process_time() - start
    print(found.reason, flush=True)
    learners = {"before": old.learner}
    if found.artifact is not None:
        learners["after"] = found.artifact.learner
    if chosen.control:
        rate = chosen.rate or RATE * old.config.training.rate
        same = {"steps": steps, "rate": rate, "warmup": steps // 10, "seed": seed, "minutes": None}
        short = [
            f"training.{key}={'null' if value is None else value}" for key, value in same.items()
        ]
        config = with_overrides(old.config, [*short, f"validation.every={steps}"])
        control = train(config, folder / "control", start=old.learner)
        learners["without_feedback"] = control.learner
    return {
        "seed": seed,
        "improving_processor_seconds": seconds,
        "log": logged,
        "improvement": found.figures,
        "shifted": errors(learners, parts["shifted"], episodes=episodes),
        "original": errors(learners, parts["original"], episodes=episodes),
    }


def over_seeds(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The change of the error, as a share of what it was, on average over seeds; a refused model changes nothing."""
    return {
        part: sum(run[part].get("after", {}).get("relative_change", 0.0) for run in runs)
        / len(runs)
        for part in ("shifted", "original")
    }


def pools(split: Split) -> dict[str, Pool]:
    """What is logged, and what is scored: shifted and original."""
    glyphs = build_source("glyphs")
    assert isinstance(glyphs, PoolSource)
    pool = glyphs.pool(split)
    return {
        "logged": some(pool, LOGGED[split], camera=True),
        "shifted": some(pool, SCORED[split], camera=True),
        "original": some(pool, SCORED[split], camera=False),
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", metavar="FOLDER", default="runs/demo/artifact")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--way", type=int, help="of the training tasks; as the model was trained")
    parser.add_argument("--validation", action="store_true", help="choose settings; keeps nothing")
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    chosen = parser.parse_args()
    old = load_artifact(chosen.artifact)
    if chosen.way:
        config = with_overrides(old.config, [f"episode.way={chosen.way}"])
        old = replace(old, config=config)
    parts, runs = pools("validation" if chosen.validation else "test"), []
    for seed in chosen.seeds[: 1 if chosen.smoke else None]:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(old, seed, Path(folder), parts, chosen))
        figures = {
            "scored": {
                "way": DESIGN.way,
                "shot": DESIGN.shot,
                "queries": DESIGN.queries,
                "tasks": EPISODES,
            },
            "settings": {key: getattr(chosen, key) for key in ("steps", "share", "rate", "way")},
            "model": {"id": old.id, "training": old.facts.get("training"), "scores": old.scores},
            "config": old.config.model_dump(mode="json"),
            "over_seeds": over_seeds(runs),
            "runs": runs,
        }
        record("improve", figures, keep=not (chosen.smoke or chosen.validation))


if __name__ == "__main__":
    main()
