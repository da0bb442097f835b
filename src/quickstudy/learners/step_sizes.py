"""How far an inner step goes: one rate for all, or rates and directions that are learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Size, Tensor, nn

from quickstudy.functional import Weights

Kind = Literal["fixed", "tensor", "element", "step", "curvature"]


class StepSizes(nn.Module):
    """The update of an inner loop, ``w ← w - P g``, with P learned or fixed.

    - ``fixed``: P is the rate;
    - ``tensor``: a learned rate for each tensor;
    - ``element``: a learned rate for each number, Meta-SGD (Li et al. 2017);
    - ``step``: a learned rate for each tensor and step, MAML++ (Antoniou et al. 2019); later steps take the last one;
    - ``curvature``: ``L g R`` with learned matrices for each matrix, Meta-Curvature (Park & Oliva 2019); a convolution
      is the matrix of its output channels, and vectors have a rate for each number.

    All begin at the same rate. Rates are free: they may become negative, which turns a step around. A weight without a
    shape here stays where it is.

    Args:
        kind: one of the above.
        rate: η, where P begins.
        shapes: of what adapts, by name; a head of classes has one row here, which serves each of them.
        steps: of the inner loop.

    Raises:
        ValueError: an unknown kind.

    >>> sizes = StepSizes("element", 0.5, {"a": Size([2])}, steps=1)
    >>> one = torch.ones(2)
    >>> sizes.update({"a": one}, {"a": one}, sizes.shared(), 0)["a"].tolist()
    [0.5, 0.5]
    """

    def __init__(self, kind: Kind, rate: float, shapes: Mapping[str, Size], *, steps: int) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(
                f"The rates must be one of {', '.join(get_args(Kind))}; found {kind!r}."
            )
        self.kind, self.rate, self.steps = kind, rate, steps
        self.learned = nn.ParameterDict()
        self._names = {name: f"sizes/{name}/".replace(".", "/") for name in shapes}
        self._axes = {self._names[name]: len(shape) for name, shape in shapes.items()}
        for name, shape in shapes.items():
            for part, value in self._start(shape).items():
                self.learned[(self._names[name] + part).removeprefix("sizes/")] = nn.Parameter(
                    value
                )

    def _start(self, shape: Size) -> dict[str, Tensor]:
        if self.kind == "fixed":
            return {}
        if self.kind == "tensor":
            return {"rate": torch.tensor(self.rate)}
        if self.kind == "step":
            return {"rate": torch.full((self.steps,), self.rate)}
        if self.kind == "element" or len(shape) < 2:
            return {"rate": torch.full(shape, self.rate)}
        rows, columns = shape[0], shape[1:].numel()
        return {"left": torch.eye(rows) * self.rate, "right": torch.eye(columns)}

    def shared(self) -> Weights:
        """What is learned, for the inner loop."""
        return {f"sizes/{name}": value for name, value in self.learned.items()}

    def update(
        self, weights: Weights, slopes: Weights, shared: Weights, step: int | Tensor
    ) -> Weights:
        """Weights after a step, affine in the slopes; ``step`` is its number, of no axis if it is a tensor."""
        moved = dict(weights)
        for name, slope in slopes.items():
            if name in self._names:
                moved[name] = self._moved(self._names[name], weights[name], slope, shared, step)
        return moved

    def _moved(
        self, within: str, weight: Tensor, slope: Tensor, shared: Weights, step: int | Tensor
    ) -> Tensor:
        if self.kind == "fixed":
            return torch.sub(weight, slope, alpha=self.rate)
        rate = shared.get(within + "rate")
        if rate is None:
            left, right = shared[within + "left"], shared[within + "right"]
            # Tasks whose heads move by themselves come together, on axes before those of the matrix.
            turned = slope.flatten(slope.ndim - self._axes[within] + 1) @ right
            # A head of classes has one row for all, so there is nothing to mix on its left but the rate.
            turned = left * turned if left.numel() == 1 else left @ turned
            return weight - turned.reshape(slope.shape)
        if self.kind == "step":
            at = torch.as_tensor(step, device=rate.device).clamp(max=self.steps - 1)
            rate = rate.index_select(0, at[None])
        return torch.addcmul(weight, rate, slope, value=-1)
