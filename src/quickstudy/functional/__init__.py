"""The one door to derivatives inside a model: which weights adapt, how, and the kernels that they need."""

from quickstudy.functional.adding import added_up, summed
from quickstudy.functional.compiling import Compiled, compiled, in_pieces
from quickstudy.functional.descent import STRATEGIES, Strategy, descend, fitting_strategy
from quickstudy.functional.implicit import conjugate_gradient, settle, tied
from quickstudy.functional.kernels import (
    exact_derivatives,
    full_precision,
    inside_transform,
    keep_large_blocks,
    same_autocast,
    widened,
)
from quickstudy.functional.loops import InnerLoop, Weights, over_tasks
from quickstudy.functional.subsets import adapted_names

__all__ = [
    "STRATEGIES", "Compiled", "InnerLoop", "Strategy", "Weights", "adapted_names", "added_up", "compiled",
    "conjugate_gradient", "descend", "exact_derivatives", "fitting_strategy", "full_precision", "in_pieces",
    "inside_transform", "keep_large_blocks", "over_tasks", "same_autocast", "settle", "summed", "tied", "widened",
]  # fmt: skip
