"""Small tables by the artifact that ships, against tuned classical classifiers: mean ROC AUC on the same splits.

Tables that come with scikit-learn: iris, wine, breast cancer, diabetes (above or below the median) and digits (the 30
pixels that vary most over the training rows). Ten splits of each, with 50, 61, … 150 training rows but no more than two
thirds of the table, classes as frequent as in the whole table, and the rest, 1,000 rows at most, to score on. Each
contender chooses its settings by three-fold cross-validation of its ROC AUC within the training rows. The artifact has
no settings, and none of its own were chosen on these tables. The score of many classes is the mean over classes of each
against the rest.

python benchmarks/tables.py [--smoke]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from quickstudy import FewShotClassifier
from quickstudy.artifact import load_artifact
from quickstudy.evaluation import interval
from quickstudy.pretrained import shipped
from record import record

ROWS = np.linspace(50, 150, 10).round().astype(int).tolist()
COLUMNS, MOST_TEST_ROWS = 30, 1000

Array = np.ndarray[Any, Any]


def tables() -> dict[str, tuple[Array, Array]]:
    loaders = {
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "breast cancer": datasets.load_breast_cancer,
        "digits": datasets.load_digits,
    }
    found = {name: load(return_X_y=True) for name, load in loaders.items()}
    x, y = datasets.load_diabetes(return_X_y=True)
    return found | {"diabetes": (x, (y > np.median(y)).astype(int))}


def contenders() -> dict[str, Any]:
    """Each with the settings that it may choose from."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    neighbours = make_pipeline(StandardScaler(), KNeighborsClassifier(weights="distance"))
    return {
        "logistic regression": (linear, {"logisticregression__C": np.logspace(-3, 2, 8)}),
        "random forest": (
            RandomForestClassifier(100, random_state=0),
            {"min_samples_leaf": [1, 3]},
        ),
        "boosting": (
            HistGradientBoostingClassifier(random_state=0, min_samples_leaf=5),
            {"learning_rate": [0.05, 0.2], "max_iter": [50]},
        ),
        "nearest neighbours": (
            neighbours,
            {"kneighborsclassifier__n_neighbors": [3, 5, 9, 15, 25]},
        ),
    }


def split(x: Array, y: Array, rows: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Training and test rows of at most so many columns, those that vary most over the training rows."""
    most = 2 * len(x) // 3
    parts = train_test_split(x, y, train_size=min(rows, most), stratify=y, random_state=seed)
    train_x, test_x, train_y, test_y = parts
    kept = np.sort(np.argsort(-train_x.var(axis=0), kind="stable")[:COLUMNS])
    return train_x[:, kept], train_y, test_x[:MOST_TEST_ROWS, kept], test_y[:MOST_TEST_ROWS]


def score(y: Array, p: Array) -> float:
    return float(
        roc_auc_score(y, p[:, 1]) if p.shape[1] == 2 else roc_auc_score(y, p, multi_class="ovr")
    )


def summary(scores: list[float]) -> dict[str, float]:
    mean, ci95 = interval(torch.tensor(scores, dtype=torch.float64))
    return {"mean": mean, "ci95": ci95}


def measured(
    everyone: dict[str, Any], rows_of_splits: list[int]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    """Scores by table and contender, and the processor time of each contender; ``None`` is the artifact."""
    scores: dict[str, dict[str, list[float]]] = {}
    seconds = dict.fromkeys(everyone, 0.0)
    for table, (x, y) in tables().items():
        scores[table] = {name: [] for name in everyone}
        metric = "roc_auc" if len(np.unique(y)) == 2 else "roc_auc_ovr"
        for seed, rows in enumerate(rows_of_splits):
            train_x, train_y, test_x, test_y = split(x, y, rows, seed)
            for name, contender in everyone.items():
                start = time.process_time()
                model: Any = FewShotClassifier.from_pretrained("tables")
                if contender is not None:
                    estimator, settings = contender
                    folds = StratifiedKFold(3, shuffle=True, random_state=0)
                    model = GridSearchCV(estimator, settings, scoring=metric, cv=folds)
                p = model.fit(train_x, train_y).predict_proba(test_x)
                seconds[name] += time.process_time() - start
                scores[table][name].append(score(test_y, p))
        print(
            table,
            {name: f"{np.mean(each):.4f}" for name, each in scores[table].items()},
            flush=True,
        )
    return scores, seconds


def figures(scores: dict[str, dict[str, list[float]]], seconds: dict[str, float]) -> dict[str, Any]:
    """What is recorded: each contender on each table, and the artifact against the best of the contenders."""
    over = {name: [float(np.mean(part[name])) for part in scores.values()] for name in seconds}
    means = {name: float(np.mean(each)) for name, each in over.items()}
    others = [name for name in seconds if name != "quickstudy"]
    best = max(others, key=means.__getitem__)
    best_of_each = [max(part) for part in zip(*(over[name] for name in others), strict=True)]
    pairs = [zip(part["quickstudy"], part[best], strict=True) for part in scores.values()]
    artifact = load_artifact(shipped("tables"))
    return {
        "threads": 1,
        "artifact": {"id": artifact.id, "training": artifact.facts.get("training", {})},
        "training_rows": ROWS,
        "tables": {
            table: {name: summary(each) for name, each in part.items()}
            for table, part in scores.items()
        },
        "mean_roc_auc": means,
        "best_contender": best,
        "gain_over_best_contender": summary([a - b for pair in pairs for a, b in pair]),
        "gain_over_the_best_of_each_table": means["quickstudy"] - float(np.mean(best_of_each)),
        "processor_seconds": seconds,
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="try everything, keep nothing")
    smoke = parser.parse_args().smoke
    everyone = {"quickstudy": None, **contenders()}
    scores, seconds = measured(everyone, ROWS[:2] if smoke else ROWS)
    record("tables", figures(scores, seconds), keep=not smoke)


if __name__ == "__main__":
    main()
