"""The demo, and the way of a person with own data, through the command line from beginning to end."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
import yaml
from toy import ToySource

from quickstudy.cli import demo, main
from quickstudy.config import RunConfig, with_overrides

Capture = pytest.CaptureFixture[str]

TOY = (
    *("--data", "toy", "--learner", "protonet", "--set", "encoder.inputs=4"),
    *("--set", "encoder.width=8", "--set", "encoder.layers=1", "--set", "episode.way=3"),
    *("--set", "validation.way=3", "--set", "validation.queries=2", "--set", "episode.queries=2"),
    *("--set", "validation.episodes=4", "--set", "validation.every=4", "--set", "episode.tasks=4"),
)
"""A training of a second, on numbers; the encoder that fits them is found without being named."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(capsys: Capture) -> list[str]:
    """What was printed on standard output."""
    return capsys.readouterr().out.splitlines()


def test_train_evaluate_adapt_predict(here: Path, toy: type[ToySource], capsys: Capture) -> None:
    assert main(["train", *TOY, "--steps", "8", "--out", "run"]) == 0
    assert lines(capsys) == ["run/artifact"]

    # A finished run is not overwritten, and can be gone on with by its folder alone.
    assert main(["train", *TOY, "--steps", "8", "--out", "run"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "--out", "run", "--resume", "--steps", "12"]) == 0
    assert lines(capsys) == ["run/artifact"]
    assert "steps: 12" in Path("run/config.yaml").read_text()

    words = ["evaluate", "run/artifact", "--episodes", "6", "--shot", "2", "--against", "run"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"metric", "mean", "ci95", "episodes", "way", "shot", "split", "seed"} <= set(found)
    assert {"inductive", "before_adaptation", "baselines", "paired"} <= set(found)
    assert (found["way"], found["shot"], found["episodes"]) == (3, 2, 6)
    assert found["paired"]["difference"] == 0
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3-way 2-shot, 6 tasks of the test split\n")
    assert "this model" in shown
    assert "no difference can be told" in shown

    Path("mine.csv").write_text("a,b,c,d,label\n1,0,0,0,low\n2,0,0,0,low\n9,9,9,9,high\n")
    assert main(["adapt", "run/artifact", "mine.csv", "--out", "mine.task"]) == 0
    assert lines(capsys) == ["mine.task"]
    Path("more.csv").write_text("a,b,c,d,label\n8,9,9,8,high\n")
    words = ["adapt", "run/artifact", "more.csv", "--from", "mine.task", "--out", "mine.task"]
    assert main(words) == 0
    assert "4 examples" in capsys.readouterr().err
    Path("new.csv").write_text("a,b,c,d\n1.5,0,0,0\n9,8,9,9\n")
    assert main(["predict", "mine.task", "new.csv"]) == 0
    table = [line.split() for line in lines(capsys)]
    assert [row[:2] for row in table[1:]] == [["new.csv:2", "low"], ["new.csv:3", "high"]]


def test_a_dry_run_leaves_nothing(here: Path, toy: type[ToySource], capsys: Capture) -> None:
    assert main(["train", *TOY, "--dry-run", "--out", "run"]) == 0
    assert "nothing was kept" in capsys.readouterr().out
    assert list(here.iterdir()) == []


def test_the_printed_config_is_a_config(here: Path, toy: type[ToySource], capsys: Capture) -> None:
    assert main(["train", *TOY, "--seed", "7", "--minutes", "2", "--print-config"]) == 0
    printed = capsys.readouterr().out
    Path("run.yaml").write_text(printed)
    assert main(["train", "--config", "run.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert "seed: 7" in printed
    assert "name: vector" in printed


def test_the_encoder_fits_the_data(capsys: Capture) -> None:
    spec = "images:photos,size=64,channels=3,test=0.5"
    assert main(["train", "--data", spec, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"] == spec
    assert printed["encoder"] == {**RunConfig().encoder, "size": 64, "channels": 3}


def test_ctrl_c_saves_and_says_how_to_go_on(
    here: Path, toy: type[ToySource], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt = staticmethod(lambda n: os.kill(os.getpid(), signal.SIGINT) if n == 48 else None)
    monkeypatch.setattr(toy, "on_draw", interrupt)
    assert main(["train", *TOY, "--steps", "20", "--out", "run"]) == 130
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: Training was stopped after step")
    assert shown.err.count("\n") == 1
    again = shown.err.split("«")[1].split("»")[0]

    monkeypatch.setattr(toy, "on_draw", staticmethod(lambda n: None))
    program, *words = shlex.split(again)
    assert program == "quickstudy"
    assert main(words) == 0
    assert lines(capsys) == ["run/artifact"]


def test_the_demo_and_what_it_says_to_try(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = [
        *("encoder.width=16", "encoder.layers=1", "encoder.heads=2", "training.steps=2"),
        *("validation.episodes=2", "episode.way=5", "episode.tasks=1", "validation.way=5"),
    ]
    monkeypatch.setattr(demo, "starting_config", lambda: with_overrides(RunConfig(), tiny))
    monkeypatch.setattr(demo, "EPISODES", 4)
    monkeypatch.setattr(demo, "REPORT_EPISODES", 2)
    assert main(["demo", "--out", "runs/demo"]) == 0
    shown = capsys.readouterr().out
    out = Path("runs/demo")
    assert (out / "artifact" / "config.json").is_file()
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert len(list((out / "new-alphabet" / "support").glob("*/*.png"))) == 15
    assert len(list((out / "new-alphabet" / "queries").glob("*.png"))) == 10
    assert "20-way 1-shot, 4 tasks of the test split" in shown
    assert "20-way 1-shot within one group" in shown
    assert "queries/ban-1.png" in shown

    commands = [line.strip() for line in shown.splitlines() if line.startswith("  quickstudy ")]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)[1:]
        assert main([*words, *(["--episodes", "2"] if words[0] == "evaluate" else [])]) == 0

    kept = {
        name: (out / name).read_bytes() for name in ("artifact/config.json", "new-alphabet.task")
    }
    capsys.readouterr()
    assert main(["demo", "--out", "runs/demo"]) == 0
    assert "holds a trained model already, which stays" in capsys.readouterr().err
    assert all((out / name).read_bytes() == content for name, content in kept.items())
