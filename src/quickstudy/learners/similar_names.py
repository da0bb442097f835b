"""What a class may look like, by the looks of classes that are called nearly the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import WORD_PADDING, Examples
from quickstudy.learners.metric import PrototypeState, class_sums, directions, of_classes
from quickstudy.nn.words import piece_counts, present

KEPT = 256
"""Classes of earlier tasks that are remembered, the newest of them."""

NAME_SHARPNESS, LOOK_SHARPNESS = 5.0, 10.0
"""τ and σ: what a cosine of two names counts for, and one of two examples."""

LEAST = 1e-3
"""ε: how unlikely a class is at most, against one whose name is like none more than another."""

STRENGTHS = (1.0, 0.0, 0.25, 0.5, 2.0)
"""κ that are tried, when training is over, on classes that it has not seen; the first is the one until then."""

EARLIER = ("earlier.names", "earlier.looks")
"""What a state calls the names and looks of classes of earlier tasks."""


class Called(NamedTuple):
    """Classes, by what they are called and what they look like."""

    names: Tensor
    """Bytes, int64 (task, class, word), or what the encoder makes of them, (task, class, features)."""
    looks: Tensor
    """Direction of the mean of a class's examples, (task, class, features); zero where that is not known."""


def has_names(called: Called) -> Tensor:
    """Which classes are called anything, bool (task, class)."""
    names = called.names
    return names.any(-1) if names.is_floating_point() else present(names)


def put_after(first: Called, second: Called) -> Called:
    """Some classes, and others behind them; shorter names are padded.

    >>> one = Called(torch.tensor([[[97, 98]]]), torch.ones(1, 1, 3))
    >>> two = Called(torch.tensor([[[99]]]), torch.ones(1, 1, 3))
    >>> put_after(one, two).names.tolist()
    [[[97, 98], [99, -1]]]
    """
    longest = max(first.names.shape[-1], second.names.shape[-1])
    names = [
        F.pad(part.names, (0, longest - part.names.shape[-1]), value=WORD_PADDING)
        for part in (first, second)
    ]
    return Called(torch.cat(names, 1), torch.cat([first.looks, second.looks], 1))


class SimilarNames(nn.Module):
    """Guesses at classes without an example by others that have names like theirs, of this task and of those before it.

    ``z_c(x) = κ log (ε + J Σ_j p_j(x) a_cj)``, ``p(x) = softmax_j σ cos(f(x), d_j)``, ``a_c = softmax_j τ cos(φ_c,
    φ_j)`` over the J classes that have a name and an example: what looks like class j is likely of a class that is
    called nearly the same. d_j is the direction of the mean of j's examples. φ is what the encoder makes of a name if
    it reads text; else it says which runs of 1 to 4 bytes a name has, each weighed by how rare it is among the names at
    hand, ``log (1 + N) / N_g``. Nothing is known by heart: names never met in training are as like or unlike one
    another as any. A name that is like none more than another says nothing.

    Two regressions by a kernel (Nadaraya 1964, Watson 1964), of looks and of names, on terms of which rare ones weigh
    more (Sparck Jones 1972). That a memory across tasks holds what was met and is read by likeness is in Santoro et al.
    2016, Meta-Learning with Memory-Augmented Neural Networks; differs from it: the keys are names as well as looks, and
    nothing about reading is learned but the encoder.

    Args:
        longest: bytes of the longest run.
        buckets: that the runs are hashed into.

    >>> from quickstudy.nn.words import bytes_of
    >>> names = bytes_of(["lao ko", "thai ko", "lao kho", "thai kho"])[None]
    >>> looks = torch.tensor([[[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> similar = SimilarNames()
    >>> state = {"names": names, "looks": looks, "counts": torch.tensor([[1, 1, 0, 0]])}
    >>> state["shares"] = similar.shares(state)
    >>> guess = similar(torch.tensor([[[2.0, 1.0, 0.0]]]), state)
    >>> names[0, guess[0, 0].argmax()].tolist() == list(b"lao kho") + [-1]
    True
    """

    def __init__(self, *, longest: int = 4, buckets: int = 2048) -> None:
        super().__init__()
        self.longest, self.buckets = longest, buckets
        self.strength: Tensor
        self.register_buffer("strength", torch.tensor(STRENGTHS[0]))

    def adapt(
        self, found: Mapping[str, Tensor], support: Examples, state: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """What is new in a state: ``looks``, ``shares`` and the classes of earlier tasks.

        Args:
            found: ``names`` and ``counts`` of the classes, this support counted.
            support: encoded, (task, example, features).
            state: of this task before this support, or what the task before it left; None for nothing.
        """
        state = state or {}
        sums, _ = class_sums(support.x, support, found["counts"].shape[1])
        if "looks" in state:
            sums = sums + of_classes(state["looks"], sums.shape[1])
        added = {name: state[name] for name in EARLIER if name in state} | {"looks": sums}
        return added | {"shares": self.shares({**found, **added})}

    def shares(self, state: Mapping[str, Tensor]) -> Tensor:
        """``J a_cj``, (task, way, class), of the task's classes and earlier ones; zero where nothing is guessed."""
        known, counts = all_called(state), state["counts"]
        way = counts.shape[1]
        has_name = has_names(known)
        has_looks = has_name & known.looks.any(-1)
        asked = has_name[:, :way] & (counts == 0) & has_looks.any(1, keepdim=True)
        near = self._near(known.names, has_name, way).masked_fill(~has_looks[:, None], -torch.inf)
        # Where all is left out, a softmax would not be a number.
        shares = near.masked_fill(~asked[..., None], 0).softmax(-1) * asked[..., None]
        return shares * has_looks.sum(1)[:, None, None]

    def forward(self, features: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """What is added to the logits (task, query, way): zero of classes that are not guessed.

        Args:
            features: of the queries, (task, query, features).
            state: ``names``, ``looks``, ``counts`` and ``shares`` of the tasks, and what was before them.
        """
        known, shares = all_called(state), state["shares"]
        has_looks = has_names(known) & known.looks.any(-1)
        near = LOOK_SHARPNESS * directions(features) @ known.looks.transpose(1, 2)
        near = near.masked_fill(~has_looks[:, None], torch.finfo(near.dtype).min)
        likely = near.softmax(-1) @ shares.transpose(1, 2)
        guess: Tensor = self.strength * torch.log(LEAST + likely)
        return guess * shares.any(-1)[:, None]

    def _near(self, names: Tensor, has_name: Tensor, way: int) -> Tensor:
        """How like each of the first ``way`` names is to each name, (task, way, class), up to τ."""
        if names.is_floating_point():
            direction = directions(names)
        else:
            pieces = piece_counts(names.flatten(0, 1), longest=self.longest, buckets=self.buckets)
            there = (pieces.unflatten(0, names.shape[:2]) > 0) & has_name[..., None]
            there = there.to(self.strength.dtype)
            holding = there.sum(1, keepdim=True).clamp(min=1)
            rarity = torch.log((1 + has_name.sum(1)[:, None, None]) / holding)
            direction = F.normalize(there * rarity, dim=-1)
        near: Tensor = NAME_SHARPNESS * direction[:, :way] @ direction.transpose(1, 2)
        return near


def called_in(state: Mapping[str, Tensor]) -> Called:
    """The classes of a state's own task."""
    looks = directions(PrototypeState(state["looks"], state["counts"]).means)
    return Called(state["names"], looks * (state["counts"] > 0)[..., None])


def all_called(state: Mapping[str, Tensor]) -> Called:
    """The classes of a state's own task, and behind them those of earlier ones."""
    own, earlier = called_in(state), remembered(state)
    return own if earlier is None else put_after(own, earlier)


def remembered(state: Mapping[str, Tensor]) -> Called | None:
    """The classes that a state keeps of earlier tasks."""
    return Called(*(state[name] for name in EARLIER)) if EARLIER[0] in state else None


def kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the next task is left: the newest classes whose names and looks are known, at most :data:`KEPT`."""
    own, earlier = called_in(state), remembered(state)
    both = own if earlier is None else put_after(earlier, own)
    known = has_names(both) & both.looks.any(-1)
    most = min(KEPT, int(known.sum(1).max()))
    if not most:
        return {}
    newest = known.long().argsort(dim=1, stable=True)[:, -most:, None]
    left = (each.gather(1, newest.expand(-1, -1, each.shape[-1])) for each in both)
    return dict(zip(EARLIER, left, strict=True))
