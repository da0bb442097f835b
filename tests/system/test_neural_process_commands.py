"""Neural processes through the command line and Python, as docs/how-to/neural-processes.md has them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from quickstudy import load
from quickstudy.artifact import answer, load_task
from quickstudy.cli import main

Capture = pytest.CaptureFixture[str]

TEXT = (Path(__file__).parents[2] / "docs/how-to/neural-processes.md").read_text(encoding="utf-8")
TINY = {
    "neural_process": ["width=8", "layers=1", "heads=2", "rank=2"],
    "autoregressive_process": ["width=8", "layers=1", "heads=2"],
    "conditional_process": ["width=8"],
    "bayesian_linear": ["noise=0.1"],
    "deep_kernel": ["rates=4", "kept=3", "steps=1"],
    "snail": ["filters=4", "length=8"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("short_reports")
def test_what_the_document_types(here: Path) -> None:
    """Every command of the how-to, in its order; trainings, evaluations and reports are cut short."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    short = {
        "train": ["--steps", "2", "--set", "validation.episodes=4"],
        "evaluate": ["--episodes", "4"],
    }
    for line in "".join(blocks).strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "quickstudy"
        assert main([*words, *short[words[0]]]) == 0, line
    assert len(blocks) == 3
    assert Path("functions.html").exists()


def test_the_python_of_the_document_runs(capsys: Capture) -> None:
    exec("\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.S)), {})
    assert capsys.readouterr().out.splitlines() == [
        "torch.Size([3, 2, 40, 1])",
        "torch.Size([2, 6, 1]) torch.Size([2])",
    ]


@pytest.mark.parametrize("name", TINY)
def test_a_task_is_adapted_kept_and_answered(name: str, here: Path, capsys: Capture) -> None:
    options = [word for option in TINY[name] for word in ("--set", f"learner.{option}")]
    words = ["train", "--data", "sinusoid", "--learner", name, "--encoder", "raw", *options]
    words += ["--set", "episode.shot=5", "--set", "validation.shot=5", "--set", "episode.queries=5"]
    words += ["--set", "validation.episodes=2", "--steps", "2", "--out", "run"]
    assert main(words) == 0
    Path("points.csv").write_text("x,value\n-1,0.5\n0,1\n2,-0.5\n", encoding="utf-8")
    Path("more.csv").write_text("x,value\n1,0.25\n", encoding="utf-8")
    Path("places.csv").write_text("x\n-2\n0.5\n", encoding="utf-8")
    assert main(["adapt", "run", "points.csv", "--out", "first.task"]) == 0
    assert main(["adapt", "run", "more.csv", "--from", "first.task", "--out", "second.task"]) == 0
    artifact, answers = load("run"), []
    for file in ("first.task", "second.task"):
        capsys.readouterr()
        assert main(["predict", file, "places.csv"]) == 0
        assert capsys.readouterr().out.count("places.csv:") == 2
        task = load_task(file, artifact)
        assert isinstance(task.state, artifact.learner.state_type)
        answers.append(answer(artifact, task, torch.tensor([[-2.0], [0.5]])))
    assert answers[0].isfinite().all()
    assert not torch.equal(*answers)
