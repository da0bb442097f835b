"""Modulation: what is known of a task changes the weights of a model that all tasks share, ``θ' = f(θ, h)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.layers import Block

Kind = Literal["film", "lora"]
Coefficients = dict[str, Tensor]
"""Of each modulated layer, numbers (task, …)."""
Way = Callable[[Tensor], Tensor]


class Modulation(nn.Module):
    """Makes each task's own weights of some layers from a vector h that describes the task.

    ========  ===========================  =============================================  ========================
    kind      layers                       weights of a task                              numbers of a layer
    ========  ===========================  =============================================  ========================
    ``film``  norms, weight w and shift b  ``w' = (1 + γ) w``, ``b' = (1 + γ) b + β``     γ and β, each its width
    ``lora``  linear maps W                ``W' = W + U diag(s) V``, U and V learned      s, as many as the rank
    ========  ===========================  =============================================  ========================

    The numbers are linear in h, ``P h`` or ``P B h``, and begin at zero, so that ``θ' = θ`` before training. A block is
    modulated once, behind its attention: the norm before it and the maps that make queries, keys and values are left as
    they are.

    Perez et al. 2018, FiLM: Visual Reasoning with a General Conditioning Layer; Hu et al. 2022, LoRA. Differs from the
    papers: FiLM scales what norms give; the scales of a low-rank step, rather than its matrices, are the task's own.

    Args:
        parts: name to module, which are searched for layers that learn; they stay outside of this module.
        width: of h.
        kind: ``film`` or ``lora``.
        rank: of a low-rank step.
        bottleneck: rows of B, for so many numbers say all that shapes the weights; there is no B if it is 0, or no
            narrower than h. P is large, and a step of Muon, which works with the square of its smaller side, then takes
            a fraction of the time.

    Raises:
        ValueError: there is no such layer, an unknown kind, a rank below 1, or a bottleneck below 0.

    >>> norm = nn.LayerNorm(3)
    >>> modulation = Modulation({"norm": norm}, width=2)
    >>> x, h = torch.randn(4, 3), torch.randn(2, 2)
    >>> with modulation.applied({"norm": norm}, modulation(h)):
    ...     found = norm(x)
    >>> torch.equal(found, norm(x))
    True
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        width: int,
        *,
        kind: Kind = "film",
        rank: int = 4,
        bottleneck: int = 0,
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(
                f"The modulation must be {' or '.join(get_args(Kind))}; found {kind!r}."
            )
        if rank < 1:
            raise ValueError(f"The rank must be at least 1; found {rank}.")
        if bottleneck < 0:
            raise ValueError(f"The bottleneck must be at least 0; found {bottleneck}.")
        self.kind = kind
        layers = _layers(parts, kind)
        if not layers:
            what = "norm" if kind == "film" else "linear map"
            raise ValueError(
                f"Nothing can be modulated: there is no {what} with weights of its own in what is to be shaped. Choose "
                "another kind of modulation, another encoder, or none."
            )
        self.sizes = {
            name: 2 * layer.normalized_shape[0] if isinstance(layer, nn.LayerNorm) else rank
            for name, layer in layers.items()
        }
        narrow = 0 < bottleneck < width
        self.squeeze = nn.Linear(width, bottleneck) if narrow else None
        self.produce = nn.Linear(bottleneck if narrow else width, sum(self.sizes.values()))
        nn.init.zeros_(self.produce.weight)
        nn.init.zeros_(self.produce.bias)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in layers.items():
            if isinstance(layer, nn.Linear):
                key = name.replace(".", "/")  # a module's name may hold no dot
                self.down[key] = nn.Parameter(
                    torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features)
                )
                self.up[key] = nn.Parameter(torch.randn(layer.out_features, rank) / math.sqrt(rank))

    def forward(self, h: Tensor) -> Coefficients:
        """The numbers of each layer, (task, …), from what describes the tasks (task, width)."""
        if self.squeeze is not None:
            h = self.squeeze(h)
        return dict(
            zip(self.sizes, self.produce(h).split(list(self.sizes.values()), -1), strict=True)
        )

    @contextmanager
    def applied(self, parts: Mapping[str, nn.Module], found: Coefficients) -> Iterator[None]:
        """For a while, the layers work with the weights of each task.

        The first axis of whatever passes through them is that of the tasks, or of tasks and examples together, those of
        a task next to one another; of a single task, anything.
        """
        layers = {name: _at(parts, name) for name in found}
        ways = self._norms(layers, found) if self.kind == "film" else self._maps(layers, found)
        try:
            for layer, way in zip(layers.values(), ways, strict=True):
                # In place of a hook, so that a norm is scaled once and not twice.
                layer.forward = way
            yield
        finally:
            for layer in layers.values():
                layer.__dict__.pop("forward", None)

    def _norms(self, layers: Mapping[str, nn.Module], found: Coefficients) -> list[Way]:
        """What norms do with the weights of each task, which are made for all norms at once: each is small."""
        norms = cast("list[nn.LayerNorm]", list(layers.values()))
        sizes = [norm.normalized_shape[0] for norm in norms]
        gamma, beta = (
            torch.cat(part, -1)
            for part in zip(*(numbers.chunk(2, -1) for numbers in found.values()), strict=True)
        )
        weight = torch.cat([norm.weight for norm in norms])
        bias = torch.cat([torch.zeros_like(n.weight) if n.bias is None else n.bias for n in norms])
        weights = torch.addcmul(weight, weight, gamma)[:, None].split(sizes, -1)
        shifts = torch.addcmul(bias + beta, bias, gamma)[:, None].split(sizes, -1)
        return [
            partial(_normed, norm.normalized_shape, norm.eps, w, b)
            for norm, w, b in zip(norms, weights, shifts, strict=True)
        ]

    def _maps(self, layers: Mapping[str, nn.Module], found: Coefficients) -> list[Way]:
        """What linear maps do with the low-rank step of each task."""
        keys = [name.replace(".", "/") for name in layers]
        maps = cast("list[nn.Linear]", list(layers.values()))
        return [
            partial(_stepped, layer, self.down[key], self.up[key], numbers[:, None])
            for key, layer, numbers in zip(keys, maps, found.values(), strict=True)
        ]

    def weights(self, start: Coefficients, found: Coefficients) -> Coefficients:
        """The same as :meth:`applied`, as weights: those of ``start``, name to (task, …), changed where they are found.

        >>> norm = nn.LayerNorm(2)
        >>> modulation = Modulation({"norm": norm}, width=1)
        >>> start = {"norm.weight": torch.ones(1, 2), "norm.bias": torch.zeros(1, 2)}
        >>> modulation.weights(start, {"norm": torch.tensor([[1.0, 0.0, 3.0, 0.0]])})["norm.weight"].tolist()
        [[2.0, 1.0]]
        """
        changed = dict(start)
        for name, numbers in found.items():
            weight, bias = f"{name}.weight", f"{name}.bias"
            if self.kind == "film":
                gamma, beta = numbers.chunk(2, -1)
                if weight in start:
                    changed[weight] = start[weight] * (1 + gamma)
                if bias in start:
                    changed[bias] = start[bias] * (1 + gamma) + beta
            elif weight in start:
                key = name.replace(".", "/")
                changed[weight] = start[weight] + (self.up[key] * numbers[:, None]) @ self.down[key]
        return changed


def _layers(parts: Mapping[str, nn.Module], kind: Kind) -> dict[str, nn.Module]:
    """The layers that can be modulated, by name; what is frozen may be computed once for all tasks, and stays so."""
    wanted = nn.LayerNorm if kind == "film" else nn.Linear
    found: dict[str, nn.Module] = {}
    for part, module in parts.items():
        before = {
            id(layer)
            for block in module.modules()
            if isinstance(block, Block)
            for layer in (
                block.attention_norm,
                block.attention.query,
                block.attention.key,
                block.attention.value,
            )
        }
        for name, layer in module.named_modules():
            if isinstance(layer, wanted) and layer.weight is not None and id(layer) not in before:
                found[f"{part}.{name}" if name else part] = layer
    return found


def _at(parts: Mapping[str, nn.Module], name: str) -> nn.Module:
    part, _, inside = name.partition(".")
    return parts[part].get_submodule(inside)


def _normed(size: tuple[int, ...], eps: float, weight: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    """Layer normalisation by weights of each task, (task, 1, width)."""
    rows = F.layer_norm(x, size, eps=eps)
    if torch.compiler.is_exporting():
        return torch.addcmul(_by_rows(shift, rows), rows, _by_rows(weight, rows))
    rows = rows.reshape(len(weight), -1, x.shape[-1])
    return torch.addcmul(shift, rows, weight).reshape(x.shape)


def _stepped(layer: nn.Linear, down: Tensor, up: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    """A linear map with a low-rank step whose scale (task, 1, rank) is the task's own."""
    low, plain = x @ down.T, F.linear(x, layer.weight, layer.bias)
    if torch.compiler.is_exporting():
        return plain + (low * _by_rows(scale, low)) @ up.T
    low = low.reshape(len(scale), -1, len(down)) * scale
    return plain + (low @ up.T).reshape(plain.shape)


def _by_rows(numbers: Tensor, x: Tensor) -> Tensor:
    """Numbers (task, 1, width) of the task that each part of the first axis of x belongs to, to go with x.

    Nothing here depends on how many tasks and examples there are, so that a traced program holds for all.
    """
    tasks, first = numbers.shape[0], x.shape[0]
    own = numbers[torch.arange(first, device=x.device) * tasks // first]
    return own.reshape(first, *(1 for _ in x.shape[1:-1]), numbers.shape[-1])
