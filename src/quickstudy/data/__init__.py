"""Task sources by name; ``SOURCES`` is the only list of them."""

from __future__ import annotations

from quickstudy.data.source import TaskSource

SOURCES: dict[str, type[TaskSource]] = {}
