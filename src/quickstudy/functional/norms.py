"""Normalisation whose second derivatives are right where ``vmap`` lies between two derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.functional.kernels import inside_transform


class SeparateScales(TorchFunctionMode):
    """Inside function transforms, layer, batch and instance norms scale and shift in a step of their own.

    ``y = (x - mean(x)) / sqrt(var(x) + ε)``, then ``y · w + b``: the same numbers. The fused backward of these norms
    treats its statistics as constants where ``vmap`` lies between an outer and an inner derivative, so the outer
    derivative is silently wrong as soon as ``w`` is differentiated (PyTorch functorch issue 534). Any model that calls
    the norms of torch is covered; group norm and root-mean-square norm are right as they come.

    >>> import torch
    >>> x, w, b = torch.randn(4, 8), torch.randn(8), torch.randn(8)
    >>> with SeparateScales():
    ...     y = torch.func.vmap(lambda x: F.layer_norm(x, (8,), w, b))(x)
    >>> torch.allclose(y, F.layer_norm(x, (8,), w, b), atol=1e-5)
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        separate = _SEPARATE.get(func)
        if separate is None or not inside_transform():
            return func(*args, **(kwargs or {}))
        return separate(*args, **(kwargs or {}))


def separate_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``y = (x - mean(x)) / sqrt(var(x) + ε)``, then ``y · w + b`` as a step of its own."""
    return _scaled(F.layer_norm(input, list(normalized_shape), None, None, eps), weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    y = F.batch_norm(input, running_mean, running_var, None, None, training, momentum, eps)
    return _scaled(y, _of_channels(weight, y), _of_channels(bias, y))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    statistics = (running_mean, running_var)
    y = F.instance_norm(input, *statistics, None, None, use_input_stats, momentum, eps)
    return _scaled(y, _of_channels(weight, y), _of_channels(bias, y))


def _of_channels(value: Tensor | None, y: Tensor) -> Tensor | None:
    return None if value is None else value.view(-1, *[1] * (y.ndim - 2))


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


_SEPARATE: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.layer_norm: separate_layer_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
}
