"""The features of a frozen encoder, computed once for each set of examples and kept on disk."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from quickstudy.cache import digest, remember

BATCH = 1024
"""Examples that an encoder is given at once, which it takes in an order of its own."""


@runtime_checkable
class FrozenFeatures(Protocol):
    """An encoder whose pretrained part may be frozen, such as :class:`~quickstudy.nn.pretrained.HuggingFaceEncoder`."""

    frozen: bool
    model: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """What the pretrained part makes of examples."""


def weights_hash(module: nn.Module) -> str:
    """A key that changes with any parameter or buffer that is saved.

    >>> a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> weights_hash(a) == weights_hash(b), weights_hash(a) == weights_hash(a)
    (False, True)
    """
    parts: list[object] = []
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        parts += [name, tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()]
    return digest(parts)


def has_frozen_features(encoder: object) -> bool:
    """Whether the features of an encoder may be computed once: it has a pretrained part, and that is frozen."""
    return isinstance(encoder, FrozenFeatures) and encoder.frozen


@torch.no_grad()
def _compute(encoder: FrozenFeatures, x: Tensor, device: torch.device) -> Tensor:
    """Features in the order of ``x``, computed some at a time."""
    return torch.cat([encoder.features(piece.to(device)).float().cpu() for piece in x.split(BATCH)])


def cached_features(encoder: FrozenFeatures, x: Tensor) -> Tensor:
    """``encoder.features(x)`` of a frozen encoder, from disk where it was computed before.

    The key is made of the encoder's weights, its way of pooling and the examples, so a change of any of them
    computes anew. The result is mapped from a file, so processes share one copy.

    Args:
        encoder: a frozen encoder.
        x: (example, …), its inputs.

    Returns:
        float32 (example, width).

    Raises:
        ValueError: the encoder is not frozen, so its features change while it is trained.
    """
    if not encoder.frozen:
        raise ValueError(
            "Features can be kept only of a frozen encoder; build it with frozen=true."
        )
    if not len(x):
        return encoder.features(x)
    device = next(encoder.model.parameters()).device
    made_of = [
        type(encoder).__name__,
        getattr(encoder, "pooling", ""),
        getattr(encoder, "normalise", ""),
        getattr(encoder, "lexical", ""),
    ]
    examples = x.detach().cpu().contiguous()
    raw = examples.flatten().view(torch.uint8).numpy().tobytes()
    key = digest([weights_hash(encoder.model), *made_of, x.dtype, tuple(x.shape), raw])
    kept = remember(
        "features", key, lambda: {"features": _compute(encoder, examples, device).numpy()}
    )
    return torch.from_numpy(kept["features"])
