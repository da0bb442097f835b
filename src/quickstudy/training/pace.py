"""How many tasks adapt side by side fastest: a question to the machine, asked before the first step of a training."""

from __future__ import annotations

import logging
import time

import torch

from quickstudy.build import BuildError, build_learner, options_of
from quickstudy.config import RunConfig
from quickstudy.episode import Episode, Stream
from quickstudy.learners import LEARNERS

log = logging.getLogger("quickstudy")

ROUNDS = 3
"""Timed gradients for each number of tasks, after one that is not timed."""
OPTION = "tasks_at_once"


def with_tasks(config: RunConfig, tasks_at_once: int) -> RunConfig:
    """The same run with so many tasks side by side."""
    values = config.model_dump()
    values["learner"][OPTION] = tasks_at_once
    return RunConfig.model_validate(values)


def with_fastest_tasks(config: RunConfig, batch: Episode | Stream) -> RunConfig:
    """The same run, its tasks side by side in the number whose outer gradient takes the least time.

    1, 2, 4, … and all tasks of the batch are timed in turn, and the least of each counts. A number that the memory has
    no room for drops out. A number that the learner was given stays.

    Args:
        config: of the run.
        batch: its first one.

    Raises:
        BuildError: the learner has no option ``tasks_at_once``.
    """
    name = config.learner["name"]
    if OPTION not in options_of(LEARNERS[name]):
        raise BuildError(
            f"training.measure_tasks asks how many tasks adapt side by side, but the learner {name!r} takes all tasks "
            "of a batch together; leave it out."
        )
    if config.learner.get(OPTION):
        return config
    counts = [2**power for power in range(batch.tasks.bit_length()) if 2**power < batch.tasks]
    seconds = {count: float("inf") for count in (*counts, batch.tasks)}
    for _ in range(ROUNDS):
        for count in list(seconds):
            try:
                found = _seconds(with_tasks(config, count), batch)
            except torch.OutOfMemoryError:
                del seconds[count]
                continue
            seconds[count] = min(seconds[count], found)
    if not seconds:
        raise BuildError(
            "The memory has no room for the gradient of a single task; choose the learner's strategy sqrt, or fewer "
            "examples."
        )
    best = min(seconds, key=seconds.__getitem__)
    told = ", ".join(f"{count}: {each:.3g} s" for count, each in seconds.items())
    log.info("%d tasks adapt side by side, the fastest of those tried (%s).", best, told)
    return with_tasks(config, best)


def _seconds(config: RunConfig, batch: Episode | Stream) -> float:
    """The time of one outer gradient, after one that is not timed."""
    training = config.training
    gpu = training.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    with torch.random.fork_rng(devices=[]):
        learner = build_learner(config.learner, config.encoder).to(device).train()
    if training.precision == "64-true":
        learner.double()
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(training.precision)
    weights = [value for value in learner.parameters() if value.requires_grad]
    batch = batch.to(device)

    def gradient() -> None:
        with torch.autocast(device.type, half, enabled=half is not None):
            loss = learner(batch, horizon=config.episode.horizon)
        torch.autograd.grad(loss, weights, allow_unused=True)
        if gpu:
            torch.cuda.synchronize()

    gradient()
    began = time.perf_counter()
    gradient()
    return time.perf_counter() - began
