"""The one door to derivatives inside a model: which weights adapt, the inner steps, and the kernels they need."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Weights = dict[str, Tensor]
"""Fast weights: name to tensor."""

Result = TypeVar("Result")

LARGEST_KEPT_BLOCK = 1 << 30
"""Bytes up to which freed memory is kept for the next tensor by :func:`keep_large_blocks`."""


def inside_transform() -> bool:
    """Whether the caller runs inside ``torch.func.vmap``, ``grad`` or another function transform.

    A few fast kernels and memory layouts are wrong or missing there, and right everywhere else.

    >>> inside_transform(), bool(torch.func.vmap(lambda x: x + inside_transform())(torch.zeros(1)))
    (False, True)
    """
    level: int | None = torch._C._functorch.maybe_current_level()
    return level is not None


@contextmanager
def exact_derivatives() -> Iterator[None]:
    """Run attention by the maths kernel, which has derivatives of every order and a rule for ``vmap``.

    The fused kernels have neither a second derivative nor a forward mode. The context has to cover the
    forward pass that is differentiated twice.

    >>> x = torch.randn(1, 1, 3, 4, requires_grad=True)
    >>> with exact_derivatives():
    ...     y = nn.functional.scaled_dot_product_attention(x, x, x).square().sum()
    >>> slope = torch.autograd.grad(y, x, create_graph=True)[0]
    >>> torch.autograd.grad(slope.square().sum(), x)[0].shape
    torch.Size([1, 1, 3, 4])
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Run ``module`` as in evaluation, then give every part its own mode back.

    An inner loop that drops activations takes steps on another function than the one it is scored on.
    """
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Suspend automatic mixed precision, for the linear algebra that half precision would ruin."""
    with torch.autocast(device.type, enabled=False):
        yield


def adapted_names(module: nn.Module, subset: str) -> tuple[str, ...]:
    """Names of the trainable parameters of ``module`` that ``subset`` chooses, in the order of the module.

    Args:
        module: usually an encoder.
        subset: one of the following, or several of them with commas between:

            - ``all``: every parameter;
            - ``head``: none of the module's, only the head that a learner puts on it;
            - ``norms``: the scales and shifts of the normalisation layers;
            - ``last:n``: the last n layers of the longest stack, and what follows them;
            - a pattern of names with ``*`` and ``?``, such as ``*.attention.*``.

    Returns:
        Names; frozen parameters are never among them.

    Raises:
        ValueError: a part chooses nothing, with the names that there are; ``last`` without a positive number.

    >>> stack = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    >>> adapted_names(stack, "norms")
    ('1.weight', '1.bias')
    >>> adapted_names(stack, "*.bias")
    ('0.bias', '1.bias')
    """
    names = [name for name, value in module.named_parameters() if value.requires_grad]
    chosen: set[str] = set()
    for part in (text.strip() for text in subset.split(",")):
        if part == "head" or (part == "all" and not names):
            continue
        if part == "all":
            found = set(names)
        elif part == "norms":
            found = set(names) & _of_norms(module)
        elif part.startswith("last:"):
            found = set(names) & _of_last(module, part)
        else:
            found = {name for name in names if fnmatchcase(name, part)}
        if not found:
            raise ValueError(
                f"No trainable parameter matches {part!r}; choose all, head, norms, last:n, or a pattern of "
                f"these names: {_patterns(names)}."
            )
        chosen |= found
    return tuple(name for name in names if name in chosen)


def _of_norms(module: nn.Module) -> set[str]:
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if isinstance(part, kinds) or type(part).__name__.endswith(("LayerNorm", "RMSNorm"))
        for name, _ in part.named_parameters(recurse=False)
    }


def _of_last(module: nn.Module, part: str) -> set[str]:
    count = part.removeprefix("last:")
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"Found {part!r}; write last:n with n at least 1, such as last:2.")
    stacks = [
        (path, len(part))
        for path, part in module.named_modules()
        if isinstance(part, nn.ModuleList)
    ]
    if not stacks:
        raise ValueError(f"Found {part!r}, but the module has no stack of layers; choose by name.")
    path, length = max(stacks, key=lambda stack: stack[1])
    if int(count) > length:
        raise ValueError(f"Found {part!r}, but the stack {path} has {length} layers.")
    names = [name for name, _ in module.named_parameters()]
    first = next(
        i for i, name in enumerate(names) if name.startswith(f"{path}.{length - int(count)}.")
    )
    return set(names[first:])


def _patterns(names: list[str]) -> str:
    """The names with layer numbers folded: 100 names of 12 equal layers become about 10."""
    folded = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return ", ".join(folded) or "(none; every parameter is frozen)"


def inner_steps(
    loss: Callable[[Weights], Tensor], weights: Weights, *, steps: int, rate: float
) -> Weights:
    """Gradient descent as a pure function, ``w_{k+1} = w_k - η ∇ loss(w_k)``.

    Plain descent on purpose: the square root of an adaptive rule such as Adam has no derivative where a
    gradient is zero, and the key bias of attention always has a gradient of zero.

    Args:
        loss: of the weights, a scalar; a weight that it does not use stays as it is.
        weights: where to start.
        steps: how many.
        rate: η.

    Returns:
        New weights, differentiable in the old ones.

    >>> fast = inner_steps(lambda w: w["a"].square().sum(), {"a": torch.ones(2)}, steps=2,
    ...                    rate=0.25)
    >>> fast["a"].tolist()
    [0.25, 0.25]
    """
    slope = torch.func.grad(loss)
    for _ in range(steps):
        slopes = slope(weights)
        weights = {name: value - rate * slopes[name] for name, value in weights.items()}
    return weights


def first_order(adapt: Callable[[Weights], Weights], weights: Weights) -> Weights:
    """Run ``adapt`` without a graph and treat what it adds as a constant: ``w' = w + const(adapt(w) - w)``.

    The derivative of w' in w is the identity, so the outer gradient reaches the initial weights, and none of
    the inner steps is kept in memory.

    >>> start = torch.ones(1, requires_grad=True)
    >>> fast = first_order(lambda w: {"a": w["a"] ** 3 - 0.5}, {"a": start})
    >>> fast["a"].sum().backward()
    >>> fast["a"].item(), start.grad.item()
    (0.5, 1.0)
    """
    with torch.no_grad():
        moved = adapt({name: value.detach() for name, value in weights.items()})
        moves = {name: moved[name] - value for name, value in weights.items()}
    return {name: value + moves[name] for name, value in weights.items()}


def over_tasks(function: Callable[..., Result], *trees: object, tasks_at_once: int) -> Result:
    """``function`` of each task of some trees of tensors (task, …), by ``vmap`` in chunks of ``tasks_at_once``.

    Random numbers differ between tasks. The layers of :mod:`quickstudy.nn` keep their derivatives exact
    through it.
    """
    return torch.func.vmap(function, randomness="different", chunk_size=tasks_at_once)(*trees)


def keep_large_blocks() -> bool:
    """Ask glibc's allocator to keep large freed blocks for the next tensor; where glibc is absent, do nothing.

    By default, blocks above 32 MB are mapped and unmapped at every operation, and a CPU spends a third of a
    large forward pass on page faults.

    Returns:
        Whether the allocator took the setting.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(
        mallopt(mmap_threshold, LARGEST_KEPT_BLOCK) and mallopt(trim_threshold, LARGEST_KEPT_BLOCK)
    )
