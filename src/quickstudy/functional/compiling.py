"""Inner steps as compiled kernels: the step is compiled with its derivative inside, and differentiated outside."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from quickstudy.cache import cache_folder
from quickstudy.episode import leaves, take_tasks, tree_map
from quickstudy.functional.loops import InnerLoop, Weights, one_step, with_exact_attention
from quickstudy.functional.norms import SeparateScales

MOST_SHAPES = 64
"""Different shapes of tasks for which steps are compiled, beyond which compiling raises."""

log = logging.getLogger(__name__)


def compiled(loop: InnerLoop, *, backend: str = "inductor") -> InnerLoop:
    """The same loop, its steps by kernels that ``torch.compile`` makes.

    ``torch.compile`` of a model has no second derivative. A whole step has one: it contains the gradient of the loss as
    operations like any others, is compiled as a function of weights, shared weights and data, and differentiated once
    from outside. All strategies but ``fd`` use it; the numbers are those of the plain loop up to rounding.

    The first step of every new shape of tasks is compiled, which takes a minute or more for a Transformer of a few
    layers; how long it took and after how many steps it has paid is logged. Kernels are kept on disk between
    processes. Hold on to the result: another call compiles again.

    Args:
        loop: its loss and update may not branch on values of tensors.
        backend: of ``torch.compile``.

    Returns:
        The loop, for :func:`descend`. Where gradients are switched off its steps run as before.

    Raises:
        RuntimeError: at the first step, where there is no C++ compiler, or the loss cannot be compiled.

    >>> loop = InnerLoop(lambda w, shared, x: (w["a"] - x).square().sum(), lambda w, g, shared, k: w, steps=2)
    >>> compiled(loop).compiled is not None
    True
    """
    return loop._replace(compiled=Compiled(loop, backend))


def keep_kernels() -> None:
    """Let kernels be kept in this library's cache, unless ``TORCHINDUCTOR_CACHE_DIR`` says where, and for many shapes.

    By default they are lost with the temporary files of the machine, and after eight shapes nothing more is compiled.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "kernels"))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Weights of a later step are no leaves, and the compiler looks at the gradient of each.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())
        if "Cxx" in f"{type(error).__name__} {error}":
            raise RuntimeError(
                "Compiling needs a C++ compiler, such as g++, and none was found; install one, or leave compiling out."
            ) from error
        raise RuntimeError(
            f"The inner step cannot be compiled ({reason}). Leave compiling out, or take out of the loss what cannot "
            "be compiled."
        ) from error


class Compiled:
    """The compiled steps of one loop, of one task or of several side by side."""

    def __init__(self, loop: InnerLoop, backend: str) -> None:
        keep_kernels()
        loop = with_exact_attention(loop)
        self._known: set[Any] = set()

        def step(weights: Weights, shared: Weights, data: Any, k: Tensor, first: bool) -> Weights:
            with SeparateScales():
                return one_step(loop, weights, shared, data, k, first=first)

        def side_by_side(
            weights: Weights, shared: Weights, data: Any, k: Tensor, first: bool
        ) -> Weights:
            def one(weights: Weights, data: Any) -> Weights:
                return step(weights, shared, data, k, first)

            found: Weights = torch.func.vmap(one)(weights, data)
            return found

        self._plain = (step, side_by_side)
        self._fast = tuple(
            torch.compile(each, fullgraph=True, backend=backend) for each in self._plain
        )

    def __call__(
        self,
        weights: Weights,
        shared: Weights,
        data: Any,
        steps: range,
        tasks_at_once: int,
        *,
        first: bool = False,
    ) -> Weights:
        """Some steps of every task; the arguments are those of :func:`quickstudy.functional.loops.roll`."""
        alone = tasks_at_once == 1
        ends = []
        for start in range(0, len(leaves(weights)[0]), tasks_at_once):
            which: Any = start if alone else slice(start, start + tasks_at_once)
            own, part = take_tasks((weights, data), which)
            # What all tasks share at first has another layout than what follows, and would be compiled for.
            own = {name: value.contiguous() for name, value in own.items()}
            with _explained():
                for k in steps:
                    own = self._step(alone, own, shared, part, torch.tensor(k), first)
            ends.append(own)
        return tree_map(lambda *each: (torch.stack if alone else torch.cat)(each), *ends)

    def _step(
        self, alone: bool, weights: Weights, shared: Weights, data: Any, k: Tensor, first: bool
    ) -> Weights:
        shapes = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves((weights, data)))
        if (alone, first, shapes) not in self._known:
            self._known.add((alone, first, shapes))
            self._tell(alone, weights, shared, data, k, first)
        return self._fast[0 if alone else 1](weights, shared, data, k, first)

    def _tell(
        self,
        alone: bool,
        weights: Weights,
        shared: Weights,
        data: Any,
        k: Tensor,
        first: bool,
    ) -> None:
        """Compile for these shapes, and log what it cost and what it brings."""

        def seconds(step: Callable[..., Weights]) -> float:
            began = time.perf_counter()
            own = {name: value.detach().requires_grad_() for name, value in weights.items()}
            end = step(own, shared, data, k, first)
            slopes = [value for value in end.values() if value.requires_grad]
            torch.autograd.grad(
                [value.sum() for value in slopes], list(own.values()), allow_unused=True
            )
            return time.perf_counter() - began

        plain, fast = (each[0 if alone else 1] for each in (self._plain, self._fast))
        spent, slow, quick = seconds(fast), seconds(plain), seconds(fast)
        saved = slow - quick
        after = f"it has paid after {spent / saved:,.0f} steps" if saved > 0 else "it does not pay"
        log.info(
            "The inner step was compiled in %.3g s; it takes %.3g s instead of %.3g, so %s.",
            spent, quick, slow, after,
        )  # fmt: skip
