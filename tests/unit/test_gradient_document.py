"""What docs/how-to/adapt-by-gradients.md says: its Python runs, and its settings and strategies are those there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from quickstudy.build import build_learner
from quickstudy.functional import STRATEGIES

TEXT = (Path(__file__).parents[2] / "docs/how-to/adapt-by-gradients.md").read_text(encoding="utf-8")
SETTINGS = [
    found
    for found in re.findall(r"`((?:strategy|adapt|rates|head): [^`]+)`", TEXT)
    if found != "adapt: lora"  # needs adapters, which only text models have
]


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    generated, own_loop = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(generated, {})
    assert capsys.readouterr().out == "torch.Size([1, 3, 64])\n"
    names: dict[str, object] = {}
    exec(own_loop, names)
    net = names["net"]
    assert isinstance(net, torch.nn.Module)
    assert all(value.grad is not None and value.grad.isfinite().all() for value in net.parameters())


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_can_be_had(setting: str) -> None:
    options = yaml.safe_load(setting)
    assert build_learner({"name": "maml", **options}, {"name": "image", "width": 16, "layers": 2})


def test_every_strategy_and_the_commands_are_there() -> None:
    assert set(STRATEGIES) == set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M))
    assert len(SETTINGS) >= 8
    lines = re.findall(r"^quickstudy .*$", TEXT, re.M)
    assert len(lines) == 2
    for word in shlex.split(" ".join(lines)):
        if word.startswith("learner."):
            key, value = word.removeprefix("learner.").split("=")
            assert f"`{key}: {value}`" in TEXT
