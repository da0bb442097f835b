"""The outer gradient of MAML on sinusoids: 32 tasks side by side against the loops of peers, one thread.

Finn et al. 2017: a perceptron of two hidden layers of 40 units fits 10 points of a sine of random amplitude and phase
and is scored on 10 others. The work of a step is next to nothing; what is measured is what a library adds to it.

python benchmarks/sinusoid_speed.py [--smoke]
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers import PEERS, Gradient, Task, peers_of, plain_loop
from quickstudy.functional import (
    Compiled,
    InnerLoop,
    Strategy,
    Weights,
    compiled,
    descend,
    over_tasks,
)
from quickstudy.machine import installed_version
from record import interleaved, record

TASKS, EXAMPLES, RATE = 32, 10, 0.01
POINTS = {"5 steps": 5, "1 step": 1}


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)
    )


def sines(tasks: int) -> list[Task]:
    generator = torch.Generator().manual_seed(0)
    height, phase, place = torch.rand(3, tasks, 2 * EXAMPLES, 1, generator=generator)
    height, phase = 0.1 + 4.9 * height[:, :1], math.pi * phase[:, :1]
    x = 10 * place - 5
    y = height * (x + phase).sin()
    (x, query_x), (y, query_y) = (part.split(EXAMPLES, dim=1) for part in (x, y))
    return list(zip(x, y, query_x, query_y, strict=True))


def side_by_side(
    model: nn.Module,
    tasks: list[Task],
    steps: int,
    *,
    strategy: Strategy,
    tasks_at_once: int,
    compile: bool = False,
) -> Gradient:
    """This library, in the words of one who brings model, loss and loop."""
    x, y, query_x, query_y = (torch.stack(part) for part in zip(*tasks, strict=True))
    fast = dict(model.named_parameters())

    def loss(weights: Weights, shared: Weights, data: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(torch.func.functional_call(model, weights, (data[0],)), data[1])

    def update(weights: Weights, slopes: Weights, shared: Weights, step: int) -> Weights:
        return {name: value - RATE * slopes[name] for name, value in weights.items()}

    loop = InnerLoop(loss, update, steps)
    queries = Compiled(lambda task, _: loss(task[0], {}, task[1]), "The pass of the queries")
    if compile:
        loop = compiled(loop, steps_at_once=steps)

    def gradient() -> list[Tensor]:
        start = {name: value.expand(len(x), *value.shape) for name, value in fast.items()}
        options = {"tasks_at_once": tasks_at_once}
        ends = descend(loop, start, {}, (x, y), strategy=strategy, **options)
        asked = (query_x, query_y)
        if compile:
            losses = queries(False, (ends, asked), ())
        else:
            losses = over_tasks(lambda w, q: loss(w, {}, q), ends, asked, **options)
        return list(torch.autograd.grad(losses.mean(), list(fast.values())))

    return gradient


def contenders(tasks: int, steps: int) -> tuple[dict[str, Gradient], dict[str, Gradient]]:
    """Loops over tasks, and tasks side by side."""
    model, drawn = perceptron(), sines(tasks)
    loops = {"plain loop": plain_loop(model, drawn, steps, rate=RATE, loss=F.mse_loss)}
    loops |= peers_of(model, drawn, steps, rate=RATE, loss=F.mse_loss)
    ours = {
        f"{strategy}, side by side": side_by_side(
            model, drawn, steps, strategy=strategy, tasks_at_once=tasks
        )
        for strategy in ("unroll", "sweep")
    }
    ours["unroll, side by side, compiled"] = side_by_side(
        model, drawn, steps, strategy="unroll", tasks_at_once=tasks, compile=True
    )
    return loops, ours


def measure(tasks: int, steps: int, rounds: int) -> dict[str, object]:
    loops, ours = contenders(tasks, steps)
    right = torch.cat([value.flatten() for value in loops["plain loop"]()])
    errors = {}
    for name, call in (loops | ours).items():
        found = torch.cat([value.flatten() for value in call()])
        errors[name] = ((found - right).norm() / right.norm()).item()
    seconds = interleaved(loops | ours, rounds=rounds)
    fastest = min(loops, key=seconds.__getitem__)
    return {
        "milliseconds": {name: 1e3 * each for name, each in seconds.items()},
        "relative_error_in_float32": errors,
        "fastest_of_the_loops": fastest,
        "speed_against_the_fastest_loop": {n: seconds[fastest] / seconds[n] for n in ours},
        "speed_against": {name: {n: seconds[name] / seconds[n] for n in ours} for name in loops},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="few tasks, once, and keep nothing")
    smoke = parser.parse_args().smoke
    torch.set_num_threads(1)
    figures = {
        "threads": 1,
        "clock": "processor time",
        "task": {"support": EXAMPLES, "query": EXAMPLES, "rate": RATE, "tasks": TASKS},
        "peers": {name: installed_version(name) for name in PEERS},
        "points": {
            name: measure(2 if smoke else TASKS, steps, 1 if smoke else 9)
            for name, steps in POINTS.items()
        },
    }
    record("sinusoid_speed", figures, keep=not smoke)


if __name__ == "__main__":
    main()
