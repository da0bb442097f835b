"""The best that is possible on random functions, in the protocol of Nguyen & Grover 2022 (3 to 46 known points).

Of each covariance, on the same test tasks: nats per query of who knows the covariance (*exact*), of who must find out
which of three it is (*exact_of_the_mixture*), and of who is told what each task was drawn with (*oracle*), how many
values their 95 % intervals hold, and processor seconds for each task.

python benchmarks/bayes_optimal.py [--smoke]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from quickstudy.data.covariance import KERNELS
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.exact import Exact
from quickstudy.data.gaussian_process import GaussianProcess
from quickstudy.episode import Episode, take_tasks
from quickstudy.evaluation.measures import measured, summary
from quickstudy.likelihood import SquaredError
from record import record

TASKS = {"rbf": 2000, "matern": 2000, "periodic": 120}
OF_THE_MIXTURE = 60
"""Tasks that are answered by who must find out which covariance it is."""
DESIGN = EpisodeDesign(way=1, shot=(3, 46), queries=46)
SEED = 0


def figures(answer: Exact, episode: Episode, seconds: float) -> dict[str, Any]:
    found = measured(answer, SquaredError(), episode)
    return {
        "tasks": episode.tasks,
        "log_likelihood": summary(found["log_likelihood"]),
        "coverage": summary(found["coverage"]),
        "milliseconds_per_task": round(1000 * seconds / episode.tasks, 1),
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    smoke = parser.parse_args().smoke
    mixture = GaussianProcess(kernel="mixture")
    results: dict[str, Any] = {}
    for kernel in KERNELS:
        world = GaussianProcess(kernel=kernel, most_examples=49)
        count = 4 if smoke else TASKS[kernel]
        generator = torch.Generator().manual_seed(SEED)
        episode, known = world.draw_known(DESIGN, tasks=count, generator=generator)
        few = take_tasks(episode, slice(0, 2 if smoke else OF_THE_MIXTURE))
        rows: dict[str, Any] = {}
        for name, answering, asked in (
            ("exact", world.exact, episode),
            ("oracle", lambda asked, known=known, world=world: world.oracle(asked, known), episode),
            ("exact_of_the_mixture", mixture.exact, few),
        ):
            start = time.process_time()
            answer = answering(asked)
            rows[name] = figures(answer, asked, time.process_time() - start)
            rows[name]["log_density"] = answer.log_density
        nats = [
            rows[name].pop("log_density") for name in ("exact", "exact_of_the_mixture", "oracle")
        ]
        kept = few.query.mask
        gap = torch.where(kept, nats[0][: few.tasks] - nats[1], 0).double().sum(1) / kept.sum(1)
        rows["not_knowing_the_covariance_costs"] = summary(gap)
        results[kernel] = rows
    record(
        "bayes_optimal",
        {"seed": SEED, "shot": DESIGN.shot, "most_examples": 49, "worlds": results},
        keep=not smoke,
    )


if __name__ == "__main__":
    main()
