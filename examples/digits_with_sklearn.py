"""A model that was trained on letters learns handwritten digits from a few examples, behind scikit-learn's face.

python examples/digits_with_sklearn.py runs/demo/artifact
"""

import sys

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from quickstudy import FewShotClassifier


def main(artifact: str) -> None:
    digits = load_digits()
    images, labels = digits.images[:600] / 16, digits.target[:600]
    for shot in (1, 3, 10):
        few, rest, y_few, y_rest = train_test_split(
            images, labels, train_size=10 * shot, stratify=labels, random_state=0
        )
        classifier = FewShotClassifier(artifact).fit(few, y_few)
        plain = LogisticRegression(max_iter=1000).fit(few.reshape(len(few), -1), y_few)
        print(
            f"{shot} of each digit: {classifier.score(rest, y_rest):.1%}, "
            f"logistic regression on pixels {plain.score(rest.reshape(len(rest), -1), y_rest):.1%}"
        )

    # More examples of the same task arrive: go on from what was learned.
    classifier.partial_fit(rest[:100], y_rest[:100])
    print(f"After 100 more: {classifier.score(rest[100:], y_rest[100:]):.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
