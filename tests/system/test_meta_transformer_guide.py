"""The guide to the MetaTransformer, as written; trainings and evaluations are cut short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quickstudy.cli import app

TEXT = (Path(__file__).parents[2] / "docs/how-to/meta-transformer.md").read_text(encoding="utf-8")
SHORT = {
    "train": "--set training.steps=2 --set validation.every=2 --set validation.episodes=2 --set episode.queries=2 "
    "--set validation.way=null --set validation.shot=1",
    "evaluate": "--episodes 2 --json",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_every_command_does_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (config,) = blocks("yaml")
    Path("modulated.yaml").write_text(config, encoding="utf-8")
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "quickstudy"
        result = CliRunner().invoke(app, [*words, *shlex.split(SHORT[words[0]])])
        assert result.exit_code == 0, (command, result.output, result.exception)
        if words[0] == "evaluate":
            assert '"without_modulation"' in result.output


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    exec(compile(block, "meta-transformer.md", "exec"), {})
    assert "torch.Size([4, 10, 2])" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["describe", "remember", "adapt", "carry"])
def test_the_functions_of_the_page_exist(name: str) -> None:
    from quickstudy.learners import MetaTransformer

    assert f"`{name}`" in TEXT
    assert callable(getattr(MetaTransformer, name))
