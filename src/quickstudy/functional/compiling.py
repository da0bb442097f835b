"""Functions of a task as compiled kernels: an inner step is compiled with its derivative inside, and differentiated
outside."""

from __future__ import annotations

import logging
import os
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch

from quickstudy.cache import cache_folder
from quickstudy.episode import leaves, take_tasks, tree_map
from quickstudy.functional.loops import InnerLoop, Weights, one_step, with_exact_attention
from quickstudy.functional.norms import SeparateScales

MOST_SHAPES = 64
"""Different shapes of tasks for which a function is compiled, beyond which compiling raises."""

log = logging.getLogger(__name__)


def compiled(loop: InnerLoop, *, steps_at_once: int = 1, backend: str = "inductor") -> InnerLoop:
    """The same loop, its steps by kernels that ``torch.compile`` makes.

    ``torch.compile`` of a model has no second derivative. A whole step has one: it contains the gradient of the loss as
    operations like any others, is compiled as a function of weights, shared weights and data, and differentiated once
    from outside. All strategies but ``fd`` use it; the numbers are those of the plain loop up to rounding.

    The first step of every new shape of tasks is compiled, which takes a minute or more for a Transformer of a few
    layers, so way and shot had better be the same in all tasks; how long it took and after how many steps it has paid
    is logged. Kernels are kept on disk between processes. Hold on to the result: another call compiles again.

    Args:
        loop: its loss and update may not branch on values of tensors.
        steps_at_once: inner steps of one kernel. More make small models faster, and compiling longer by as much.
        backend: of ``torch.compile``.

    Returns:
        The loop, for :func:`descend`. Where gradients are switched off its steps run as before.

    Raises:
        ValueError: fewer than one step at once.
        RuntimeError: at the first step, where there is no C++ compiler, or the loss cannot be compiled.

    >>> loop = InnerLoop(lambda w, shared, x: (w["a"] - x).square().sum(), lambda w, g, shared, k: w, steps=2)
    >>> compiled(loop).compiled is not None
    True
    """
    if steps_at_once < 1:
        raise ValueError(
            f"A kernel has at least one inner step; found steps_at_once={steps_at_once}."
        )
    exact = with_exact_attention(loop)

    def some_steps(task: Any, common: Any, *, count: int, first: bool) -> Weights:
        (weights, data), (shared, k) = task, common
        for step in range(count):
            weights = one_step(exact, weights, shared, data, k + step, first=first)
        return weights

    @cache
    def kernel(count: int, first: bool) -> Compiled:
        name = "The inner step" if count == 1 else f"A kernel of {count} inner steps"
        return Compiled(partial(some_steps, count=count, first=first), name, backend=backend)

    def run(
        weights: Weights,
        shared: Weights,
        data: Any,
        steps: range,
        tasks_at_once: int,
        *,
        first: bool = False,
    ) -> Weights:
        def piece(alone: bool, own: Weights, part: Any) -> Weights:
            for at in range(0, len(steps), steps_at_once):
                these = steps[at : at + steps_at_once]
                k = torch.tensor(these.start)
                own = kernel(len(these), first)(alone, (own, part), (shared, k))
            return own

        return in_pieces(piece, weights, data, tasks_at_once=tasks_at_once)

    return loop._replace(compiled=run)


def in_pieces(piece: Callable[..., Any], *trees: Any, tasks_at_once: int) -> Any:
    """``piece`` of a few tasks at a time, stacked again; told first whether it is one task without an axis of tasks."""
    alone = tasks_at_once == 1
    parts = []
    for start in range(0, len(leaves(trees)[0]), tasks_at_once):
        which: Any = start if alone else slice(start, start + tasks_at_once)
        parts.append(piece(alone, *take_tasks(trees, which)))
    return tree_map(lambda *each: (torch.stack if alone else torch.cat)(each), *parts)


class Compiled:
    """A function of one task as kernels for one task and for several side by side.

    Args:
        function: of a task's tensors and of tensors that all tasks share, each a tree, to a tree of a task's tensors.
        name: what it is, for the log.
        backend: of ``torch.compile``.
    """

    def __init__(
        self, function: Callable[[Any, Any], Any], name: str, *, backend: str = "inductor"
    ) -> None:
        keep_kernels()
        self.name = name
        self._known: set[Any] = set()

        def together(tasks: Any, common: Any) -> Any:
            with SeparateScales():
                of_all = torch.func.vmap(
                    lambda task: function(task, common), randomness="different"
                )
                return of_all(tasks)

        self._plain: dict[bool, Callable[..., Any]] = {True: function, False: together}
        self._fast: dict[bool, Callable[..., Any]] = {
            which: torch.compile(each, fullgraph=True, dynamic=False, backend=backend)
            for which, each in self._plain.items()
        }

    def __call__(self, alone: bool, tasks: Any, common: Any) -> Any:
        """The function of one task without an axis of tasks, or of several, differentiable once."""
        # What all tasks share at first has another layout than what follows, and would be compiled for.
        tasks = tree_map(lambda leaf: leaf.contiguous(), tasks)
        shapes = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves((tasks, common)))
        with _explained(self.name):
            if (alone, shapes) not in self._known:
                self._known.add((alone, shapes))
                self._tell(alone, tasks, common)
            return self._fast[alone](tasks, common)

    def _tell(self, alone: bool, tasks: Any, common: Any) -> None:
        """Compile for these shapes, and log what it cost and what it brings."""

        def seconds(function: Callable[..., Any]) -> float:
            began = time.perf_counter()
            own = tree_map(
                lambda leaf: leaf.detach().requires_grad_(leaf.requires_grad), (tasks, common)
            )
            ends = [leaf for leaf in leaves(function(*own)) if leaf.requires_grad]
            wanted = [leaf for leaf in leaves(own) if leaf.requires_grad]
            if ends:
                torch.autograd.grad([end.sum() for end in ends], wanted, allow_unused=True)
            return time.perf_counter() - began

        log.info("%s is being compiled, which may take minutes.", self.name)
        fast, plain = self._fast[alone], self._plain[alone]
        spent, slow, quick = seconds(fast), seconds(plain), seconds(fast)
        saved = slow - quick
        after = f"it has paid after {spent / saved:,.0f} calls" if saved > 0 else "it does not pay"
        log.info(
            "%s was compiled in %.3g s; with its derivative it takes %.3g s instead of %.3g, so %s.",
            self.name, spent, quick, slow, after,
        )  # fmt: skip


def keep_kernels() -> None:
    """Let kernels be kept in this library's cache, unless ``TORCHINDUCTOR_CACHE_DIR`` says where, and for many shapes.

    By default they are lost with the temporary files of the machine, and after eight shapes nothing more is compiled.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "kernels"))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Weights of a later step are no leaves, and the compiler looks at the gradient of each.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = textwrap.shorten(str(error).strip().partition("\n\n")[0], 300)
        if "Cxx" in f"{type(error).__name__} {error}":
            raise RuntimeError(
                "Compiling needs a C++ compiler, such as g++, and none was found; install one, or leave compiling out."
            ) from error
        raise RuntimeError(
            f"{name} cannot be compiled ({reason}). Leave compiling out, or take what cannot be compiled out of it."
        ) from error
