"""The meta-gradient of MAML: strategies and batching against a plain loop, its exactness and its memory.

The image model is a Transformer over 49 patches of 4 x 4 pixels, 64 wide, with four layers and four heads; the tiny
one has 16 patches of 7 x 7 pixels, 32 wide, with two layers and two heads. Tasks are 5-way 1-shot. The plain loop is
what one writes by hand with ``functional_call`` and ``autograd.grad``, task by task. Peers run beside it where they are
installed (:mod:`peers`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memory import peak_elsewhere, peak_of
from peers import PEERS, Gradient, Task, peers_of, plain_loop
from quickstudy.episode import Context, Episode, Examples, Inputs
from quickstudy.functional import STRATEGIES, keep_large_blocks
from quickstudy.learners.gradient import MAML
from quickstudy.machine import installed_version
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Transformer
from quickstudy.nn.positions import LearnedPositions
from record import interleaved, record

WAY, SIDE, RATE = 5, 28, 0.1
MODELS = {
    "image": {"patch": 4, "width": 64, "layers": 4, "heads": 4},
    "tiny": {"patch": 7, "width": 32, "layers": 2, "heads": 2},
}


class Patches(nn.Module):
    """Patches, a Transformer, and the mean over tokens; no Encoder, for higher takes no class with an abstract base."""

    def __init__(self, *, patch: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        tokens = (SIDE // patch) ** 2
        self.patch, self.width, self.largest = patch, width, 4 * tokens * 4 * width
        self.embed = nn.Linear(patch * patch, width)
        self.positions = LearnedPositions(width, length=tokens)
        self.transformer = Transformer(width, layers=layers, heads=heads)

    def forward(self, x: Tensor) -> Tensor:
        size = self.patch
        patches = x.unfold(2, size, size).unfold(3, size, size).flatten(1, 3).flatten(2)
        return self.transformer(self.positions(self.embed(patches))).mean(1)


class PatchEncoder(Encoder):
    """The same as this library takes it."""

    def __init__(self, patches: Patches) -> None:
        super().__init__()
        self.patches, self.width, self.bytes_per_example = patches, patches.width, patches.largest

    def forward(self, x: Inputs) -> Tensor:
        return self.patches(x)


def model_of(name: str, kind: torch.dtype = torch.float32) -> nn.Sequential:
    """An encoder and a head that begins at zero, as the learner's does."""
    torch.manual_seed(0)
    encoder = Patches(**MODELS[name])
    head = nn.Linear(encoder.width, WAY)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(encoder, head).to(kind)


def draw_tasks(tasks: int, queries: int, kind: torch.dtype = torch.float32) -> Episode:
    """Classes of noise around an image of noise each."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(tasks, WAY, 1, 1, SIDE, SIDE, generator=generator)

    def examples(each: int) -> Examples:
        noise = torch.randn(tasks, WAY, each, 1, SIDE, SIDE, generator=generator)
        y = torch.arange(WAY).repeat_interleave(each).expand(tasks, -1).contiguous()
        return Examples((middle + 0.7 * noise).flatten(1, 2).to(kind), y, torch.ones_like(y) == 1)

    classes = torch.ones(tasks, WAY, dtype=torch.bool)
    nothing = Context(classes, torch.zeros(tasks, 0), torch.zeros(tasks, WAY, 0))
    return Episode(examples(1), examples(queries), nothing)


def each_task(episode: Episode) -> list[Task]:
    """Support and query of each task, as a loop takes them."""
    support, query = episode.support, episode.query
    return list(zip(support.x, support.y, query.x, query.y, strict=True))


def learner(
    model: nn.Sequential,
    episode: Episode,
    steps: int,
    *,
    strategy: str,
    tasks_at_once: int = 1,
    compile: bool = False,
) -> Gradient:
    """This library."""
    encoder = PatchEncoder(model[0])
    options = {"strategy": strategy, "tasks_at_once": tasks_at_once, "compile": compile}
    maml = MAML(encoder, rate=RATE, steps=steps, **options)
    parameters = list(maml.parameters())
    return lambda: list(torch.autograd.grad(maml(episode), parameters))


def contenders(name: str, episode: Episode, steps: int) -> dict[str, Gradient]:
    """Every way to one meta-gradient."""
    model = model_of(name, episode.support.x.dtype)
    tasks = each_task(episode)
    ways = {"plain loop": plain_loop(model, tasks, steps, rate=RATE)}
    for strategy in STRATEGIES:
        ways[strategy] = learner(model, episode, steps, strategy=strategy)
    ways["plain loop, first order"] = plain_loop(model, tasks, steps, rate=RATE, first=True)
    return ways | peers_of(model, tasks, steps, rate=RATE)


def distance(found: list[Tensor], right: list[Tensor]) -> float:
    """Relative error over the encoder's parameters, which stand first; the learner's head has none."""
    pairs = list(zip(found, right, strict=False))
    wrong = sum((a - b).square().sum() for a, b in pairs)
    return (wrong / sum(b.square().sum() for _, b in pairs)).sqrt().item()


def agreement(name: str, kind: torch.dtype, tasks: int, tasks_at_once: int) -> dict[str, float]:
    """Relative errors of the meta-gradient; the first-order ones against the first-order loop."""
    episode = draw_tasks(tasks, 3, kind)
    ways = contenders(name, episode, 5)
    right, first = ways.pop("plain loop")(), ways.pop("plain loop, first order")()
    if tasks_at_once > 1:
        model = model_of(name, kind)
        ways = {
            strategy: learner(model, episode, 5, strategy=strategy, tasks_at_once=tasks_at_once)
            for strategy in STRATEGIES
        }
    errors = {
        way: distance(call(), first if way == "first" else right) for way, call in ways.items()
    }
    return errors | {"first against the exact one": distance(first, right)}


def speeds(seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    """Speeds against the plain loop of the same run."""
    slow = seconds["plain loop"]
    return {
        way: {"speed_against_plain_loop": slow / each, "seconds": each}
        for way, each in seconds.items()
    }


def time_strategies(steps: int) -> dict[str, dict[str, float]]:
    ways = contenders("image", draw_tasks(1, 15), steps)
    return speeds(interleaved(ways, rounds=5 if steps < 10 else 3))


def time_batching(tasks: int) -> dict[str, dict[str, float]]:
    episode, model = draw_tasks(tasks, 15), model_of("tiny")
    ways = {"plain loop": plain_loop(model, each_task(episode), 5, rate=RATE)}
    for strategy, at_once in (("unroll", 1), ("unroll", tasks), ("sweep", tasks)):
        words = f"{strategy}, {at_once} {'task' if at_once == 1 else 'tasks'} at once"
        ways[words] = learner(model, episode, 5, strategy=strategy, tasks_at_once=at_once)
    return speeds(interleaved(ways, rounds=3))


def compiling_afresh(name: str, tasks: int, steps: Sequence[int]) -> dict[str, object]:
    """The same without kernels of an earlier run."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        torch._dynamo.reset()
        return compiling(name, tasks, steps)


def compiling(name: str, tasks: int, steps: Sequence[int]) -> dict[str, object]:
    """Compiled kernels of all tasks at once: what they take to make, their error and their speed."""
    episode, model = draw_tasks(tasks, 15), model_of(name)
    found: dict[str, object] = {}
    for number in steps:
        loops = {"plain loop": plain_loop(model, each_task(episode), number, rate=RATE)}
        loops |= peers_of(model, each_task(episode), number, rate=RATE)
        right, errors, began = loops["plain loop"](), {}, time.perf_counter()
        ways = dict(loops)
        for strategy in ("unroll", "sweep"):
            ways[strategy] = learner(
                model, episode, number, strategy=strategy, tasks_at_once=tasks, compile=True
            )
            errors[strategy] = distance(ways[strategy](), right)
        spent = time.perf_counter() - began
        seconds = interleaved(ways, rounds=3)
        fastest = min(loops, key=seconds.__getitem__)
        found[f"{number} steps"] = {
            "seconds_to_compile": spent,
            "relative_error_in_float32": errors,
            "fastest_of_the_loops": fastest,
            "speed_against_the_fastest_loop": {n: seconds[fastest] / seconds[n] for n in errors},
        } | speeds(seconds)
    return found


def peak(way: str, steps: int, tasks: int, queries: int) -> float:
    """Bytes that one meta-gradient takes above the level before it, in this process."""
    model = model_of("image")

    def gradient(episode: Episode, steps: int) -> object:
        if way == "plain loop":
            return plain_loop(model, each_task(episode), steps, rate=RATE)()
        maml = MAML(PatchEncoder(model[0]), rate=RATE, steps=steps, strategy=way)
        return maml(episode).backward()

    gradient(draw_tasks(1, 1), 2)  # what is set up once does not count
    model.zero_grad(set_to_none=True)
    episode = draw_tasks(tasks, queries)
    return peak_of(lambda: gradient(episode, steps))


def growth(way: str, size: int) -> dict[str, object]:
    """Peak over 5, 25 and 50 steps, and its least-squares slope in sizes of all parameters."""
    steps = [5, 25, 50]
    peaks = [peak_elsewhere(way, each, 1, 1) for each in steps]
    middle = sum(steps) / len(steps)
    rise = sum((k - middle) * p for k, p in zip(steps, peaks, strict=True))
    slope = rise / sum((k - middle) ** 2 for k in steps)
    return {
        "parameter_sizes_per_step": slope / size,
        "peak_megabytes": {str(k): p / 1e6 for k, p in zip(steps, peaks, strict=True)},
    }


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--point"]:
        print(peak(*json.loads(sys.argv[2])))
        return
    keep_large_blocks()
    size = sum(value.nbytes for value in model_of("image").parameters())
    figures = {
        "threads": 1,
        "clock": "processor time",
        "models": MODELS,
        "task": {"way": WAY, "shot": 1, "rate": RATE},
        "parameter_bytes_of_image_model": size,
        "peers": {name: installed_version(name) for name in PEERS},
        "relative_error": {
            "image, float64, 1 task": agreement("image", torch.float64, 1, 1),
            "image, float32, 1 task": agreement("image", torch.float32, 1, 1),
            "tiny, float64, 4 tasks one by one": agreement("tiny", torch.float64, 4, 1),
            "tiny, float64, 4 tasks at once": agreement("tiny", torch.float64, 4, 4),
        },
        "strategies": {
            f"image, 1 task, 15 queries a class, {steps} steps": time_strategies(steps)
            for steps in (5, 10)
        },
        "batching": {
            f"tiny, {tasks} tasks, 15 queries a class, 5 steps": time_batching(tasks)
            for tasks in (16, 32)
        },
        "compiled": {
            "image, 1 task, 15 queries a class": compiling_afresh("image", 1, (5, 10, 50)),
            "tiny, 16 tasks, 15 queries a class": compiling_afresh("tiny", 16, (5,)),
            "tiny, 32 tasks, 15 queries a class": compiling_afresh("tiny", 32, (5,)),
        },
        "memory_per_inner_step": {
            way: growth(way, size) for way in ("plain loop", "unroll", "sweep", "sqrt")
        },
    }
    few, many = (peak_elsewhere("unroll", 5, tasks, 15) for tasks in (4, 32))
    figures["memory_of_many_tasks"] = {
        "megabytes_at_4_tasks": few / 1e6,
        "megabytes_at_32_tasks": many / 1e6,
        "ratio": many / few,
    }
    record("meta_gradient", figures)


if __name__ == "__main__":
    main()
