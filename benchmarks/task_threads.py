"""Training steps of MAML on all cores of a CPU: tasks shared out among threads against operations split among cores.

The models are those of `meta_gradient.py`, the batch 8 tasks of 5-way 1-shot with 15 queries a class and 5 inner steps.
Seconds are of the clock on the wall, the median of several rounds, contenders in turn.

python benchmarks/task_threads.py [--smoke]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from meta_gradient import MODELS, PatchEncoder, draw_tasks, model_of
from quickstudy.functional import keep_large_blocks
from quickstudy.learners.gradient import MAML
from quickstudy.training.threads import TaskThreads
from record import record

TASKS, STEPS, ROUNDS = 8, 5, 7


def seconds(gradient: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    began = time.perf_counter()
    gradient()
    return time.perf_counter() - began


def measure(name: str, cores: int, *, tasks: int, rounds: int) -> dict[str, object]:
    episode = draw_tasks(tasks, 15)
    learner = MAML(PatchEncoder(model_of(name)[0]), steps=STEPS, strategy="unroll")
    weights = list(learner.parameters())
    shared = TaskThreads(learner, cores)

    def slopes(loss: Callable[[], Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(loss(), weights))

    ways = {
        "one thread": (lambda: slopes(lambda: learner(episode)), 1),
        "operations split among the cores": (lambda: slopes(lambda: learner(episode)), cores),
        "tasks shared out among threads": (lambda: slopes(lambda: shared(episode)), 1),
    }
    first = [torch.cat([value.flatten() for value in call()]) for call, _ in ways.values()]
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (call, threads) in ways.items():
            times[way].append(seconds(call, threads))
    middle = {way: statistics.median(each) for way, each in times.items()}
    return {
        "seconds": middle,
        "speed_against_one_thread": {
            way: middle["one thread"] / each for way, each in middle.items()
        },
        "relative_difference_in_float32": ((first[2] - first[0]).norm() / first[0].norm()).item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    smoke = parser.parse_args().smoke
    keep_large_blocks()
    cores = os.cpu_count() or 1
    tasks, rounds = (2, 1) if smoke else (TASKS, ROUNDS)
    found = {name: measure(name, cores, tasks=tasks, rounds=rounds) for name in MODELS}
    settings = {"tasks": tasks, "steps": STEPS, "threads": cores}
    record("task_threads", settings | {"models": found}, keep=not smoke)


if __name__ == "__main__":
    main()
