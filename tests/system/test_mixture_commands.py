"""A mixture through train, evaluate and the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quickstudy.cli import main

SPEC = "mixture:(sinusoid)+3*(linear,dims=2)"
SMALL = (
    *("--learner", "maml", "--set", "learner.adapt=head", "--set", "learner.rate=0.02"),
    *("--set", "encoder.width=16", "--set", "encoder.layers=1", "--set", "episode.shot=5"),
    *("--set", "validation.shot=5", "--set", "validation.queries=20", "--set", "episode.tasks=4"),
    *("--set", "validation.episodes=8", "--set", "validation.every=20"),
)


def test_worlds_are_mixed_from_training_to_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out, page = tmp_path / "run", tmp_path / "report.html"
    assert main(["train", "--data", SPEC, *SMALL, "--steps", "20", "--out", str(out)]) == 0
    capsys.readouterr()
    words = ["evaluate", str(out), "--episodes", "10", "--report", str(page)]
    assert main([*words, "--json"]) == 0
    torch.set_num_threads(threads)
    scores = json.loads(capsys.readouterr().out)
    each = scores["sources"]
    assert {name: source["share"] for name, source in each.items()} == {
        "sinusoid": 0.25,
        "linear,dims=2": 0.75,
    }
    mean = sum(source["share"] * source["mean"] for source in each.values())
    assert scores["mean"] == pytest.approx(mean)
    assert "exact" in scores["baselines"]
    report = page.read_text(encoding="utf-8")
    assert report.count("One task, as it was answered") == 2
    assert "linear,dims=2: 5-shot" in report

    assert main(["evaluate", str(out), "--episodes", "4"]) == 0
    assert "By source" in capsys.readouterr().out
    assert main(["evaluate", str(out), "--unknown"]) == 2
    assert "one source" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--data", "linear,dims=2", "--episodes", "4"]) == 0
