"""What the library logs of its choices reaches the person who trains."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from quickstudy.cli import main


@pytest.mark.usefixtures("toy")
def test_the_choice_of_a_strategy_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(logging.getLogger("quickstudy").handlers)
    command = [
        "train",
        "--data",
        "toy",
        "--learner",
        "maml",
        "--steps",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "inner steps of" in said
    assert "the strategy is unroll" in said
    assert logging.getLogger("quickstudy").handlers == before
