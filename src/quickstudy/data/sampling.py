"""A few examples of each class out of a stream of any length."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def at_most(
    items: Iterable[T],
    most: int,
    *,
    of: Callable[[T], str],
    mark: Callable[[T], str],
    seed: int = 0,
) -> list[T]:
    """At most so many distinct items of each class, each as likely as any other, in the order in which they came.

    Of each class those with the smallest hashes are kept. So the memory is bounded by ``most`` items a class, what
    comes again is one item however often it comes, and who is chosen depends neither on the order nor on other classes.

    Cohen and Kaplan 2007, Summarizing Data Using Bottom-k Sketches.

    Args:
        items: one after the other.
        most: of each class, at least 1.
        of: the class of an item.
        mark: equal for equal items.
        seed: another seed, others.

    Raises:
        ValueError: ``most`` is below 1.

    >>> at_most(["a1", "b1", "a1", "a2"], 2, of=lambda item: item[0], mark=str)
    ['a1', 'b1', 'a2']
    """
    if most < 1:
        raise ValueError(f"most must be at least 1; found {most}.")
    key = seed.to_bytes(8, "little", signed=True)
    # Of each class a heap with the largest hash on top, negated; the place decides before items are compared.
    kept: dict[str, list[tuple[int, int, T]]] = {}
    hashes: dict[str, set[int]] = {}
    for place, item in enumerate(items):
        name, data = of(item), mark(item).encode("utf-8", "surrogateescape")
        number = -int.from_bytes(hashlib.blake2b(data, digest_size=8, key=key).digest(), "little")
        heap, known = kept.setdefault(name, []), hashes.setdefault(name, set())
        if number in known or (len(heap) == most and number < heap[0][0]):
            continue
        known.add(number)
        if len(heap) < most:
            heapq.heappush(heap, (number, -place, item))
        else:
            known.remove(heapq.heapreplace(heap, (number, -place, item))[0])
    found = [each for heap in kept.values() for each in heap]
    return [item for _, _, item in sorted(found, key=lambda each: -each[1])]
