"""quickstudy teaches a Transformer to learn."""

from __future__ import annotations

__version__ = "0.1.0"
