"""What docs/how-to/improve-by-feedback.md tells people to type, typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from quickstudy.artifact import load_artifact, save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.cli.demo import SCRIPT, letter_name, letters_of, save_drawing, write_alphabet
from quickstudy.config import RunConfig
from quickstudy.data.glyphs import GlyphSource
from quickstudy.training import improving

TEXT = (Path(__file__).parents[2] / "docs/how-to/improve-by-feedback.md").read_text("utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the demo leaves, but small, and a folder of drawings whose labels were checked."""
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        encoder={"name": "image", "width": 8, "heads": 2},
        episode={"way": 5, "queries": 1},
        validation={"way": 5, "queries": 1},
    )
    save_artifact("runs/demo/artifact", build_learner(config.learner, config.encoder), config, {})
    source = GlyphSource()
    write_alphabet(Path("runs/demo/new-alphabet"), source)
    pool = source.pool("test")
    for which in letters_of(pool, SCRIPT)[:5]:
        for number in range(6, 10):
            file = Path("checked") / letter_name(pool.class_names[which]) / f"{number}.png"
            save_drawing(file, pool.of_class(which)[number])
    return tmp_path


def test_the_blocks_run(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Steps and tasks are cut short, and the verdict is a given, as it takes a real training to earn it."""
    monkeypatch.setattr(improving, "_verdict", lambda figures: (True, "Accepted."))
    short = {"improve": ["--steps", "2", "--episodes", "4"], "evaluate": ["--episodes", "4"]}
    (commands,) = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    for line in commands.strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "quickstudy"
        assert main([*words, *short.get(words[0], [])]) == 0, line
    noted = load_artifact("runs/improved").facts["improvement"]
    assert noted["parent"] == load_artifact("runs/demo/artifact").id
    assert noted["corrections"] == 21
    capsys.readouterr()
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(block.replace("steps=5, episodes=20", "steps=1, episodes=2"), {})
    assert capsys.readouterr().out.splitlines() == ["2", "True Accepted."]


def test_the_keys_of_the_log_are_those_that_are_written(here: Path) -> None:
    from quickstudy.feedback import Event

    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", TEXT, re.M))))
    assert told == set(vars(Event("t", "b", "text", "i", "p"))) - {"line"}
