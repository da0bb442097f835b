"""Values of a small table by the artifact that ships, against tuned regressors: mean R² on the same splits.

The table is scikit-learn's progression of diabetes. Ten splits, with 50, 61, … 150 training rows, and the rest to
score on. Each contender chooses its settings by three-fold cross-validation of its squared error within the training
rows. The artifact has no settings, and none of its own were chosen on this table. Of the artifact alone, how many of
the values lie within its 95 % intervals.

python benchmarks/table_values.py [--smoke]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from quickstudy import FewShotRegressor
from quickstudy.artifact import load_artifact
from quickstudy.pretrained import shipped
from record import record
from tables import ROWS, summary


def contenders() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each with the settings that it may choose from."""
    return {
        "ridge regression": (
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": np.logspace(-2, 3, 11)},
        ),
        "random forest": (
            RandomForestRegressor(100, random_state=0),
            {"min_samples_leaf": [1, 3], "max_features": [1.0, 0.4]},
        ),
        "boosting": (
            HistGradientBoostingRegressor(random_state=0, min_samples_leaf=5),
            {"learning_rate": [0.05, 0.15], "max_iter": [60], "max_leaf_nodes": [3, 8]},
        ),
        "nearest neighbours": (
            make_pipeline(StandardScaler(), KNeighborsRegressor()),
            {
                "kneighborsregressor__n_neighbors": [2, 3, 5, 9, 15, 25],
                "kneighborsregressor__weights": ["uniform", "distance"],
            },
        ),
    }


def measured(
    everyone: dict[str, Any], rows_of_splits: list[int]
) -> tuple[dict[str, list[float]], dict[str, float], list[float]]:
    """R² of each contender, their processor time, and which share of the values the artifact's intervals hold.

    ``None`` is the artifact.
    """
    x, y = load_diabetes(return_X_y=True)
    scores: dict[str, list[float]] = {name: [] for name in everyone}
    seconds = dict.fromkeys(everyone, 0.0)
    held: list[float] = []
    for seed, rows in enumerate(rows_of_splits):
        train_x, test_x, train_y, test_y = train_test_split(
            x, y, train_size=rows, random_state=seed
        )
        for name, contender in everyone.items():
            start = time.process_time()
            model: Any = FewShotRegressor.from_pretrained("tables")
            if contender is not None:
                estimator, settings = contender
                folds = KFold(3, shuffle=True, random_state=0)
                metric = "neg_mean_squared_error"
                model = GridSearchCV(estimator, settings, scoring=metric, cv=folds)
            said = model.fit(train_x, train_y).predict(test_x)
            seconds[name] += time.process_time() - start
            scores[name].append(float(r2_score(test_y, said)))
            if contender is None:
                low, high = model.predict_interval(test_x)
                held.append(float(np.mean((low <= test_y) & (test_y <= high))))
        print(rows, {name: f"{each[-1]:.4f}" for name, each in scores.items()}, flush=True)
    return scores, seconds, held


def figures(
    scores: dict[str, list[float]], seconds: dict[str, float], held: list[float]
) -> dict[str, Any]:
    """What is recorded: R² of each, the artifact against the best of the others, and its intervals."""
    found = {name: summary(each) for name, each in scores.items()}
    best = max((name for name in scores if name != "quickstudy"), key=lambda n: found[n]["mean"])
    pairs = zip(scores["quickstudy"], scores[best], strict=True)
    artifact = load_artifact(shipped("tables", "values"))
    return {
        "threads": 1,
        "artifact": {"id": artifact.id, "training": artifact.facts["training"]},
        "training_rows": ROWS,
        "r2": found,
        "best_contender": best,
        "gain_over_best_contender": summary([a - b for a, b in pairs]),
        "values_in_95_percent_intervals": summary(held),
        "processor_seconds": seconds,
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    smoke = parser.parse_args().smoke
    everyone = {"quickstudy": None, **contenders()}
    found = measured(everyone, ROWS[:2] if smoke else ROWS)
    record("table_values", figures(*found), keep=not smoke)


if __name__ == "__main__":
    main()
