"""Sort support tickets by a handful of examples, and see how sure the answers are.

TABLE is a CSV with columns text and label; the model reads texts, and need not have met any of these labels.

    python examples/support_tickets.py runs/named/artifact TABLE "My parcel never came" "I was charged twice"
"""

import sys

from quickstudy import FewShotClassifier
from quickstudy.data.labelled import read_labelled


def main(artifact: str, table: str, *tickets: str) -> None:
    known = read_labelled(table, kind="text")
    classifier = FewShotClassifier(artifact).fit(known.x, known.labels)
    print(f"Learned {len(classifier.classes_)} kinds of tickets from {len(known.labels)}.")

    for ticket, p in zip(tickets, classifier.predict_proba(list(tickets)), strict=True):
        best = p.argsort()[::-1][:3]
        print(f"{ticket}: " + ", ".join(f"{classifier.classes_[i]} {p[i]:.0%}" for i in best))

    # Somebody puts one of them right: learn from it at once, and go on.
    if tickets:
        right = classifier.classes_[0]
        classifier.partial_fit([tickets[0]], [right])
        p = classifier.predict_proba([tickets[0]])[0]
        print(f"Told that the first is {right}: {p[0]:.0%} sure of it now.")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
