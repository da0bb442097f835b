"""The peak of memory of one outer gradient through many inner steps: strategies against a plain loop and peers.

The image model and the tasks of ``meta_gradient.py``: 49 patches, 64 wide, four layers; one 5-way 1-shot task with one
query a class. The peak is what the process holds at most above what it held before, each time in a fresh process.

python benchmarks/peak_memory.py [--smoke]
"""

from __future__ import annotations

import argparse
import json

import torch

from memory import peak_elsewhere, peak_of
from meta_gradient import MODELS, RATE, WAY, draw_tasks, each_task, learner, model_of
from peers import PEERS, Gradient, installed, plain_loop
from quickstudy.machine import installed_version
from record import record

EXACT = ("unroll", "sweep", "sqrt")


def gradient_of(way: str, steps: int) -> Gradient:
    model, episode = model_of("image"), draw_tasks(1, 1)
    if way in EXACT:
        return learner(model, episode, steps, strategy=way)
    if way == "plain loop":
        return plain_loop(model, each_task(episode), steps, rate=RATE)
    return PEERS[way](installed(way), model, each_task(episode), steps, rate=RATE)


def peak(way: str, steps: int) -> float:
    """Bytes, in this process."""
    gradient_of(way, 2)()  # what is set up once does not count
    return peak_of(gradient_of(way, steps))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="few steps, once, and keep nothing")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    steps, rounds = (2, 1) if chosen.smoke else (100, 3)
    torch.set_num_threads(1)
    if chosen.point:
        print(peak(*chosen.point))
        return
    others = ["plain loop", *(name for name in PEERS if installed(name))]
    peaks = {way: peak_elsewhere(way, steps, rounds=rounds) for way in (*others, *EXACT)}
    least = min(peaks[way] for way in others)
    record(
        "peak_memory",
        {
            "model": MODELS["image"],
            "task": {"way": WAY, "shot": 1, "queries": 1, "rate": RATE},
            "steps": steps,
            "rounds": rounds,
            "peers": {name: installed_version(name) for name in PEERS},
            "peak_megabytes": {way: value / 1e6 for way, value in peaks.items()},
            "times_less_than_the_least_of_the_others": {way: least / peaks[way] for way in EXACT},
        },
        keep=not chosen.smoke,
    )


if __name__ == "__main__":
    main()
