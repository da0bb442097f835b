"""Tables as estimators are given them: arrays, lists of rows, and data frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from quickstudy.data.coding import Array, days_of


def entries_of(estimator: BaseEstimator, X: Any, *, begin: bool) -> Array:
    """The entries of a table, (example, column): numbers, or objects where there is anything else.

    Args:
        estimator: that is given them.
        X: an array, a list of rows, or a data frame.
        begin: whether these examples say how many columns there are from now on.

    Raises:
        ValueError: it is no table, or has another number of columns.
    """
    if hasattr(X, "columns"):
        # The columns of a frame have types of their own, for which scikit-learn may find none in common.
        validate_data(estimator, X, reset=begin, skip_check_array=True)
        table = check_array(np.asarray(X, dtype=object), dtype=None, ensure_all_finite=False)
    else:
        rows = _rows(X) if isinstance(X, list | tuple) else X
        table = validate_data(estimator, rows, reset=begin, dtype=None, ensure_all_finite=False)
    if table.dtype.kind in "Mm":
        return days_of(table)
    return table.astype(object) if table.dtype.kind in "UST" else table


def _rows(X: list[Any] | tuple[Any, ...]) -> Array:
    """A list of rows as an array of its entries, each as it is, where numpy would make text of all if one is."""
    table = np.array(X, dtype=object)
    if table.ndim == 1 and all(isinstance(row, list | tuple | np.ndarray) for row in X):
        wrong = next((row for row, each in enumerate(X, 1) if len(each) != len(X[0])), None)
        if wrong is not None:
            raise ValueError(
                f"The rows of a table must be equally long; the first has {len(X[0])} entries, and row {wrong} has "
                f"{len(X[wrong - 1])}. Put None where an entry is missing."
            )
    return table
