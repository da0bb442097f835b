"""What a MetaTransformer is given back as a state, checked: its own, of these tasks, and whole where it must be."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def check_state(state: Any, *, slots: int, width: int, tasks: int | None = None) -> None:
    """Refuse what is no state of a learner with such a memory, or of other tasks.

    Args:
        state: what :meth:`quickstudy.learners.base.Learner.adapt` returned, or ``carry`` left of it.
        slots: of the memory.
        width: of a slot.
        tasks: how many there are; any number by default.

    Raises:
        ValueError: it is something else.

    >>> import torch
    >>> check_state({"memory": torch.zeros(1, 4, 8)}, slots=4, width=8, tasks=1)
    """
    memory = state.get("memory") if isinstance(state, dict) else None
    if not isinstance(memory, Tensor):
        raise ValueError(
            f"A state of a MetaTransformer is a dictionary with its memory; found {type(state).__name__}. Give what "
            "its own adapt returned, or what carry left of that."
        )
    wanted = (memory.shape[0] if tasks is None else tasks, slots, width)
    if tuple(memory.shape) != wanted:
        raise ValueError(
            f"Found a memory of shape {tuple(memory.shape)}, expected {wanted} (task, slot, width); give the state of "
            "the same tasks, of a learner with as many slots and the same width."
        )


def check_way(found: int, way: int, *, may_grow: bool = False) -> None:
    """Refuse a state of other classes than the tasks have.

    Args:
        found: classes that the state knows.
        way: classes of the tasks.
        may_grow: the tasks may have more.

    Raises:
        ValueError: they are others.

    >>> check_way(3, 5, may_grow=True)
    """
    if found != way and not (may_grow and found < way):
        raise ValueError(
            f"The state knows {found} classes, but the tasks have {way}; give the context that it was adapted with, or "
            "adapt from the beginning."
        )
