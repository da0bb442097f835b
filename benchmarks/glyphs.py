"""The default config, trained for three minutes on glyphs: unseen scripts, and handwriting it has never met.

python benchmarks/glyphs.py [--omniglot FOLDER] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from quickstudy.build import build_source
from quickstudy.cli.demo import starting_config
from quickstudy.config import with_overrides
from quickstudy.data.draw import EpisodeDesign
from quickstudy.evaluation import contest_of, evaluate, interval
from quickstudy.training import train
from record import record

EPISODES = 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--omniglot", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    sources = {"glyphs": build_source("glyphs")}
    if chosen.omniglot:
        sources["omniglot"] = build_source(f"omniglot:{chosen.omniglot}")
    designs = {
        "5-way 1-shot": EpisodeDesign(5, 1, 5),
        "20-way 1-shot": EpisodeDesign(20, 1, 5),
        "20-way 5-shot": EpisodeDesign(20, 5, 5),
        "20-way 1-shot within a group": EpisodeDesign(20, 1, 5, within_group=True),
    }
    runs = []
    for seed in chosen.seeds:
        config = with_overrides(starting_config(), [f"training.seed={seed}"])
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            artifact = train(config, Path(folder) / "run", progress=True)
            seconds = time.perf_counter() - start
        scores = {}
        for name, source in sources.items():
            first = seed == chosen.seeds[0]
            contest = contest_of(artifact.learner, source, baselines=first)
            scores[name] = {
                shape: evaluate(
                    artifact.learner, source, design=design, episodes=EPISODES, contest=contest
                )
                for shape, design in designs.items()
            }
        runs.append({"seed": seed, "training_seconds": seconds, "scores": scores})
    over_seeds = {}
    if len(runs) > 1:
        for name in sources:
            for shape in designs:
                means = torch.tensor([run["scores"][name][shape]["mean"] for run in runs])
                mean, ci95 = interval(means)
                over_seeds[f"{name} {shape}"] = {"mean": mean, "ci95_over_seeds": ci95}
    record(
        "glyphs",
        {
            "config": starting_config().model_dump(mode="json"),
            "over_seeds": over_seeds,
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
