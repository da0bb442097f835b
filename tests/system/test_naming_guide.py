"""What docs/how-to/name-and-describe.md tells people to type, typed."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from quickstudy.build import build_encoder
from quickstudy.cli import main

TEXT = (Path(__file__).parents[2] / "docs/how-to/name-and-describe.md").read_text("utf-8")
TINY = [
    *("episode.way=3", "episode.queries=1", "validation.way=3", "validation.queries=1"),
    *("validation.episodes=2", "learner.width=8", "learner.heads=2", "encoder.width=8"),
]
SHORT = {
    "train": ["--steps", "1", *(word for each in TINY for word in ("--set", each))],
    "evaluate": ["--episodes", "2", "--queries", "1", "--way", "3"],
}


def picture(file: Path, seed: int) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (28, 28)).astype(np.uint8)
    Image.fromarray(pixels).save(file)
    return file.name


def table(path: Path, kinds: list[str]) -> None:
    rows = [
        {
            "image": picture(path.parent / f"{path.stem}{kind}{i}.png", hash((kind, i)) % 999)
            if i
            else "",
            "text": f"{kind} number {i}",
            "length": str(i),
            "label": kind,
        }
        for kind in kinds
        for i in range(3)
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(Path("drawing.png"), 1)
    for number, name in enumerate(("hebrew letter alef", "armenian small letter ayb")):
        picture(Path("drawings") / name / "1.png", number + 2)
    for number in range(15 * 3):
        picture(Path("letters") / f"letter {number // 3}" / f"{number % 3}.png", 100 + number)
    table(Path("creatures.csv"), [f"kind {i}" for i in range(15)])
    for name in ("new.csv", "asked.csv"):
        table(Path(name), ["ray", "eel"])
    blocks = re.findall(r"```(sh|python|yaml)\n(.*?)```", TEXT, re.S)
    assert [kind for kind, _ in blocks] == ["sh", "python", "sh", "yaml"]
    for kind, block in blocks:
        if kind == "python":
            capsys.readouterr()
            exec(block, {})
            assert capsys.readouterr().out.splitlines()[1] == "(1, 4)"
        elif kind == "yaml":
            encoder = build_encoder(yaml.safe_load(block)["encoder"])
            assert list(encoder.parts) == ["image", "text", "numbers"]
        else:
            # Drawing the glyphs takes longer than all the rest.
            for line in block.replace("glyphs", "images:letters").strip().splitlines():
                program, *words = shlex.split(line)
                assert program == "quickstudy"
                assert main([*words, *SHORT.get(words[0], [])]) == 0, line
