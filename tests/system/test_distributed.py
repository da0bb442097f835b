"""Two processes equal one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from toy import ToySource, rows, toy_config

from quickstudy.training import train


def test_two_processes_equal_one(tmp_path: Path, toy: type[ToySource]) -> None:
    program = Path(__file__).with_name("toy.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    train(toy_config(precision="64-true", steps=14), tmp_path / "one", progress=False)
    one = load_file(tmp_path / "one/artifact/model.safetensors")
    for name in ("whole", "broken"):
        two = load_file(tmp_path / name / "artifact/model.safetensors")
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-10)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")

    code, _, said = (tmp_path / "said").read_text(encoding="utf-8").partition(" ")
    assert code == "143"
    assert said == "Training was stopped after step 8; the checkpoint is saved."
