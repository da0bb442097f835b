"""A table of numbers, categories and gaps, learned in one forward pass by artifacts that ship with the package.

python examples/tables_with_sklearn.py
"""

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score, train_test_split

from quickstudy import FewShotClassifier, FewShotRegressor


def main(rows: int = 60) -> None:
    wine = load_wine()
    # As people have it: one column in words, and a tenth of the entries missing.
    table = wine.data.astype(object)
    strong = wine.data[:, 0] > np.median(wine.data[:, 0])
    table[:, 0] = np.where(strong, "strong", "light")
    table[np.random.default_rng(0).random(table.shape) < 0.1] = None

    few, rest, y_few, y_rest = train_test_split(
        table, wine.target, train_size=rows, stratify=wine.target, random_state=0
    )
    classifier = FewShotClassifier.from_pretrained("tables").fit(few, y_few)
    print(
        f"{rows} wines learned, {classifier.score(rest, y_rest):.1%} of {len(rest)} others right."
    )
    chances = classifier.predict_proba(rest[:1])[0]
    print("The first of them:", ", ".join(f"{p:.1%} kind {kind}" for kind, p in enumerate(chances)))

    # More rows arrive: as if all had been there at once.
    classifier.partial_fit(rest[:30], y_rest[:30])
    print(f"After 30 more: {classifier.score(rest[30:], y_rest[30:]):.1%}")

    scores = cross_val_score(FewShotClassifier.from_pretrained("tables"), few, y_few, cv=3)
    print(f"Cross-validated: {scores.mean():.1%}")

    # Numbers are predicted with their uncertainty: the last column, proline, from those before it.
    proline = wine.data[:, -1]
    regressor = FewShotRegressor.from_pretrained("tables").fit(table[::3, :-1], proline[::3])
    low, high = regressor.predict_interval(table[1::3, :-1], level=0.8)
    held = np.mean((low <= proline[1::3]) & (proline[1::3] <= high))
    print(f"{held:.0%} of the others within their 80 % intervals.")


if __name__ == "__main__":
    main()
