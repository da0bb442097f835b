"""Sort texts of which only a handful carry a label, and let the others help.

LABELLED is a CSV with columns text and label; TEXTS is one with a column text, or a .txt file with a text on each line.

    python examples/few_labels_many_texts.py LABELLED TEXTS
"""

import sys

from quickstudy import FewShotClassifier
from quickstudy.data.labelled import read_inputs, read_labelled


def main(labelled: str, texts: str, artifact: str = "") -> None:
    known = read_labelled(labelled, kind="text")
    others, _ = read_inputs([texts], kind="text")
    start = FewShotClassifier(artifact) if artifact else FewShotClassifier.from_pretrained("text")

    alone = start.fit(known.x, known.labels).predict(others)
    helped = start.fit(known.x, known.labels, unlabelled=others).predict(others)
    changed = [place for place, (a, b) in enumerate(zip(alone, helped, strict=True)) if a != b]
    print(f"Learned {len(start.classes_)} classes from {len(known.labels)} texts with a label.")
    print(f"{len(others)} texts without one changed {len(changed)} answers, such as:")
    for place in changed[:5]:
        print(f"  {others[place]}: {alone[place]} -> {helped[place]}")

    # Those of which it is least sure are worth a label most.
    sure = start.predict_proba(others).max(1)
    print("Ask a person about: " + "; ".join(others[place] for place in sure.argsort()[:3]))


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
