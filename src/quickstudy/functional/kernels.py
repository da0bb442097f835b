"""The kernels, layouts and modes that derivatives inside a model need."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LARGEST_KEPT_BLOCK = 1 << 30
"""Bytes up to which freed memory is kept for the next tensor by :func:`keep_large_blocks`."""


def inside_transform() -> bool:
    """Whether the caller runs inside ``torch.func.vmap``, ``grad`` or another function transform, or is compiled.

    A few fast kernels and memory layouts are wrong or missing there, and right everywhere else. A compiler fuses what
    is taken apart.

    >>> inside_transform(), bool(torch.func.vmap(lambda x: x + inside_transform())(torch.zeros(1)))
    (False, True)
    """
    if torch.compiler.is_compiling():
        return True
    level: int | None = torch._C._functorch.maybe_current_level()
    return level is not None


@contextmanager
def exact_derivatives() -> Iterator[None]:
    """Run attention by the maths kernel, which has derivatives of every order and a rule for ``vmap``.

    The fused kernels have neither a second derivative nor a forward mode. The context has to cover the
    forward pass that is differentiated twice.

    >>> x = torch.randn(1, 1, 3, 4, requires_grad=True)
    >>> with exact_derivatives():
    ...     y = torch.nn.functional.scaled_dot_product_attention(x, x, x).square().sum()
    >>> slope = torch.autograd.grad(y, x, create_graph=True)[0]
    >>> torch.autograd.grad(slope.square().sum(), x)[0].shape
    torch.Size([1, 1, 3, 4])
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Suspend automatic mixed precision, for the linear algebra that half precision would ruin."""
    with torch.autocast(device.type, enabled=False):
        yield


def same_autocast(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """The automatic mixed precision of now, for where it is not known: a backward pass, another thread."""
    if not torch.is_autocast_enabled(device):
        return nullcontext
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype)


def widened(tensor: Tensor) -> Tensor:
    """The same numbers, with the digits of float32 if they have fewer, for which no decomposition has a kernel.

    >>> widened(torch.ones(1, dtype=torch.bfloat16)).dtype, widened(torch.ones(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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
