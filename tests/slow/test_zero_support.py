"""No example at all: names tell classes better than chance, and help beside one example, or do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quickstudy.cli import main

INTENTS = Path(__file__).parents[1] / "data" / "intents.csv"
TRAINED = {
    "intents": f"""
data: text:{INTENTS}
learner: {{name: meta_transformer, names: true}}
encoder: {{name: text, model: minilm, frozen: true, layers: 1}}
episode: {{way: 20, shot: [0, 1], queries: 4, tasks: 8}}
validation: {{way: 20, shot: [0, 1], queries: 4, episodes: 60, every: 50}}
training: {{steps: 150, rate: 0.0005}}
""",
    "glyphs": """
data: glyphs
learner: {name: meta_transformer, names: true}
encoder: {name: image, width: 64}
episode: {way: 40, shot: [0, 1], queries: 3, tasks: 1}
validation: {way: 20, shot: [0, 1], queries: 3, episodes: 60, every: 100}
training: {steps: 600}
""",
}


def scores(run: Path, shot: int, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    command = ["evaluate", str(run), "--way", "20", "--shot", str(shot), "--ablate", "--json"]
    assert main([*command, "--episodes", "300"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_names_alone_beat_chance_and_help_beside_an_example(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TRAINED[name], encoding="utf-8")
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "run")]) == 0

    nothing = scores(tmp_path / "run", 0, capsys)
    assert nothing["mean"] - nothing["ci95"] > 1 / 20
    assert nothing["ablations"]["without_description"]["mean"] == pytest.approx(1 / 20, abs=0.02)

    one = scores(tmp_path / "run", 1, capsys)
    gain = one["ablations"]["without_description"]["difference"]
    if name == "intents":
        assert gain["mean"] - gain["ci95"] > 0
    else:
        # Names of letters of scripts never met tell little beside a drawing, and must not harm.
        assert gain["mean"] > -0.005
    assert one["mean"] > nothing["mean"]
