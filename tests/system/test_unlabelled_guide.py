"""What docs/how-to/learn-without-labels.md tells people to type, typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.artifact import load_artifact, load_task, save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.config import parse_config

TEXT = (Path(__file__).parents[2] / "docs/how-to/learn-without-labels.md").read_text("utf-8")
WORDS = {"name": "words", "width": 8}
SHORT = {
    "evaluate": ["--episodes", "2", "--queries", "1", "--way", "2"],
    "train": ["--steps", "1", "--set", "encoder=words", "--set", "validation.episodes=2"],
}


def untrained(folder: str, learner: str, encoder: dict[str, object], data: str) -> None:
    config = parse_config({"data": data, "learner": learner, "encoder": encoder})
    save_artifact(Path(folder), build_learner(config.learner, config.encoder), config, {})


def pictures(folder: Path, seeds: range) -> None:
    folder.mkdir(parents=True)
    for number in seeds:
        pixels = np.random.default_rng(number).integers(0, 255, (28, 28)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_the_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"the {kind} number {i},{kind}" for kind in "abcdefghijkl" for i in range(12)]
    Path("intents.csv").write_text("\n".join(["text,label", *rows]))
    untrained("runs/intents", "linear_head", WORDS, "text:intents.csv")
    image = {"name": "image", "width": 8, "layers": 1, "heads": 2}
    untrained("runs/demo/artifact", "protonet", image, "glyphs")
    Path("few.csv").write_text("text,label\nit never came,delivery\nbilled twice,billing\n")
    Path("many.txt").write_text("\n".join(f"parcel {i}" for i in range(9)))
    Path("yesterday.txt").write_text("my invoice\nmy parcel\n")
    pictures(Path("photos") / "sun", range(2))
    pictures(Path("photos") / "moon", range(2, 4))
    pictures(Path("more-photos"), range(4, 9))
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.S)
    assert [kind for kind, _ in blocks] == ["python", "sh", "sh", "sh", "sh"]
    for kind, block in blocks:
        if kind == "python":
            capsys.readouterr()
            exec(block, {})
            assert capsys.readouterr().out == "['delivery']\n"
            continue
        # The model that ships, in the blocks before, takes longer to load than all the rest.
        for line in block.replace("adapt text", "adapt runs/intents").strip().splitlines():
            program, *words = shlex.split(line)
            assert program == "quickstudy"
            assert main([*words, *SHORT.get(words[0], [])]) == 0, line
    task = load_task("tickets.task", load_artifact("runs/intents"))
    assert (task.examples, task.unlabelled) == (2, 11)
