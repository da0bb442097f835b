"""Teach an artifact the classes of your own folder, and ask it about other pictures.

FOLDER holds a folder of pictures for each class. What was learned is one small file.

    python examples/own_images.py runs/demo/artifact FOLDER PICTURE...
"""

import sys

import quickstudy
from quickstudy.artifact import answer, extend, load_task, save_task
from quickstudy.data.labelled import read_inputs, read_labelled


def main(artifact_folder: str, folder: str, *pictures: str) -> None:
    artifact = quickstudy.load(artifact_folder)
    known = read_labelled(folder, **artifact.inputs)

    task = extend(artifact, None, known.x, known.labels)
    save_task("own.task", task, base=artifact_folder)
    print(f"Learned {len(task.class_names)} classes from {task.examples} pictures.")

    # Later, perhaps in another process:
    task = load_task("own.task", artifact)
    questions, files = read_inputs(pictures, **artifact.inputs)
    for file, p in zip(files, answer(artifact, task, questions), strict=True):
        print(f"{file}: {task.class_names[int(p.argmax())]} ({p.max():.0%} sure)")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
