"""Add an intent to a running set from one example: nothing is trained, and nothing is learned anew.

TABLE is a CSV with columns text and label; the model reads texts, and need not have met any of these labels.

    python examples/new_intent.py runs/named/artifact TABLE freeze_card "please freeze my card" QUESTION...
"""

import sys

from quickstudy import FewShotClassifier
from quickstudy.data.labelled import read_labelled


def show(classifier: FewShotClassifier, questions: list[str]) -> None:
    for question, p in zip(questions, classifier.predict_proba(questions), strict=True):
        print(f"  {question}: {classifier.classes_[p.argmax()]} {p.max():.0%}")


def main(artifact: str, table: str, intent: str, example: str, *questions: str) -> None:
    known = read_labelled(table, kind="text")
    classifier = FewShotClassifier(artifact).fit(known.x, known.labels)
    asked = [*questions, example]
    print(f"{len(classifier.classes_)} intents from {len(known.labels)} texts:")
    show(classifier, asked)

    # What was learned of the others stays; the artifact is not touched.
    classifier.partial_fit([example], [intent], classes=[*classifier.classes_, intent])
    print(f"{len(classifier.classes_)} intents, {intent} from one text:")
    show(classifier, asked)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 4 else sys.exit(__doc__)
