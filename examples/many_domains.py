"""Learn a task in each of many domains from a few texts of every label, and say how well each was learned.

TABLE is a CSV with columns text, label and group: the domain, a shop or a product or a customer. The domains share
nothing but the model; each task is one small file, to be asked on its own.

    python examples/many_domains.py runs/reviews/artifact TABLE [SHOT]
"""

import sys
from collections import defaultdict
from pathlib import Path

import quickstudy
from quickstudy.artifact import answer, extend, save_task
from quickstudy.data.records import read_records


def main(folder: str, table: str, shot: str = "5", out: str = "domains") -> None:
    artifact = quickstudy.load(folder)
    domains = defaultdict(lambda: defaultdict(list))
    for record in read_records(table):
        domains[record.cells["group"]][record.cells["label"]].append(record.cells["text"])

    Path(out).mkdir(exist_ok=True)
    for domain, texts in sorted(domains.items()):
        shown = [(text, label) for label in texts for text in texts[label][: int(shot)]]
        asked = [(text, label) for label in texts for text in texts[label][int(shot) :]]
        tokens, labels = (
            artifact.learner.encoder.tokenize([text for text, _ in shown]),
            [y for _, y in shown],
        )
        task = extend(artifact, None, tokens, labels)
        save_task(Path(out) / f"{domain}.task", task, base=folder)
        if not asked:
            print(f"{domain}: learned from {len(shown)} texts; none is left to try it on.")
            continue
        tokens = artifact.learner.encoder.tokenize([text for text, _ in asked])
        chosen = [task.class_names[i] for i in answer(artifact, task, tokens).argmax(1).tolist()]
        right = sum(a == label for a, (_, label) in zip(chosen, asked, strict=True))
        print(f"{domain}: {right} of {len(asked)} right after {len(shown)} texts")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
