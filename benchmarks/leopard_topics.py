"""The tasks of LEOPARD that ask what a text is about: MiniLM meta-trained on other topics and on intents.

ARTIFACT is a run of ``text_unseen.py``: MiniLM trained by prototypes on training classes of HuffPost, Reuters, CLINC150
and BANKING77. The ten support sets of 4 texts of a class that are published with each task are learned by logistic
regression on its features, and asked about all texts of the evaluation part (Bansal et al. 2020, Learning to Few-Shot
Learn Across Diverse Natural Language Classification Tasks). Beside it, on the same tasks, stand logistic regression and
prototypes on frozen MiniLM. Classes have no names. LEOPARD has no tasks to choose by: this was the best of nine ways
that were looked at on 200 texts of each class of ``disaster``, whose figure flatters it therefore; the other task was
asked once.

python benchmarks/leopard_topics.py FOLDER ARTIFACT [--smoke]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch

from quickstudy.artifact import load_artifact
from quickstudy.data.source import DataNote
from record import record
from reviews import on_leopard

TOPICS = ("disaster", "political_audience")


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataNote)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds the folder leopard")
    parser.add_argument("artifact", type=Path, help="a run of text_unseen.py")
    parser.add_argument("--smoke", action="store_true", help="ask a few texts, keep nothing")
    chosen = parser.parse_args()
    artifact = load_artifact(chosen.artifact)
    tasks = on_leopard(artifact, TOPICS, chosen.folder, smoke=chosen.smoke)
    means = {
        way: sum(each["accuracy"][way]["mean"] for each in tasks.values()) / len(tasks)
        for way in ("trained", "logreg", "prototypes")
    }
    training = artifact.config.training
    settings = {"threads": 1, "training": {"seed": training.seed, "steps": training.steps}}
    record("leopard_topics", settings | {"tasks": tasks, "means": means}, keep=not chosen.smoke)


if __name__ == "__main__":
    main()
