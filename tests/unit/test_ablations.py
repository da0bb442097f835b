"""What a part of a learner is worth, on the same tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from quickstudy.artifact import save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import app
from quickstudy.cli.errors import WrongUse
from quickstudy.config import parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.synthetic import Sinusoid
from quickstudy.evaluation import ablations, answering, evaluate
from quickstudy.learners import MAML, MetaTransformer, ProtoNet
from quickstudy.learners.base import Learner
from quickstudy.nn.encoders import VectorEncoder

DESIGN = EpisodeDesign(1, 5, 10)


def shaken(learner: Learner) -> Learner:
    torch.manual_seed(1)
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.2 * torch.randn_like(value)
    return learner


def regressor(**options: object) -> Learner:
    wrapped = partial(MAML, steps=3)
    return shaken(
        MetaTransformer(VectorEncoder(1, width=8), learner=wrapped, values=1, width=8, **options)  # type: ignore[arg-type]
    )


def test_a_learner_is_compared_with_itself_without_each_part() -> None:
    learner = regressor(numbers=2)
    found = evaluate(learner, Sinusoid(), design=DESIGN, episodes=8, ablate=True)
    assert list(found["ablations"]) == [
        "without_description", "without_modulation", "inner_steps_0", "inner_steps_1", "inner_steps_5",
    ]  # fmt: skip
    assert not set(found["ablations"]) & set(found["baselines"])
    for each in found["ablations"].values():
        assert each["difference"]["mean"] == pytest.approx(found["mean"] - each["mean"], rel=1e-5)
    # These tasks say nothing of themselves.
    assert found["ablations"]["without_description"]["difference"]["mean"] == 0
    assert found["ablations"]["inner_steps_0"]["difference"]["mean"] != 0
    assert found["ablations"]["without_modulation"]["difference"]["mean"] != 0


def test_the_learner_itself_stays_whole() -> None:
    learner = regressor()
    assert isinstance(learner, MetaTransformer)
    ablations(learner)
    assert learner.describes
    assert learner.modulates
    assert isinstance(learner.base, MAML)
    assert learner.base.fast.steps == 3


def test_no_inner_step_is_where_the_task_begins() -> None:
    learner = MAML(VectorEncoder(1, width=8), values=1)
    plain = ablations(learner)["inner_steps_0"]
    episode = Sinusoid().draw("test", DESIGN, tasks=2, generator=torch.Generator().manual_seed(0))
    with answering(plain):
        state = plain.adapt(episode.support, episode.context)
    assert all(
        torch.equal(value, learner.fast.initial(episode.support, episode.context)[name])
        for name, value in state.items()
    )


def test_what_has_no_part_to_leave_out_is_told_so(tmp_path: Path) -> None:
    assert ablations(ProtoNet(VectorEncoder(2, width=8))) == {}
    config = parse_config(
        {
            "data": "sinusoid",
            "learner": {"name": "conditional_process", "values": 1, "width": 8},
            "encoder": {"name": "vector", "inputs": 1, "width": 8},
        }
    )

    save_artifact(tmp_path / "a", build_learner(config.learner, config.encoder), config, {})
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "a"), "--ablate"])
    assert isinstance(result.exception, WrongUse)
    assert "no part that could be left out" in str(result.exception)


def test_the_command_says_what_each_part_is_worth(tmp_path: Path) -> None:
    config = parse_config(
        {
            "data": "sinusoid",
            "learner": {"name": "maml", "values": 1, "steps": 2},
            "encoder": {"name": "vector", "inputs": 1, "width": 8},
            "validation": {"shot": 5},
        }
    )

    save_artifact(tmp_path / "a", build_learner(config.learner, config.encoder), config, {})
    command = ["evaluate", str(tmp_path / "a"), "--ablate", "--episodes", "4"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "with no inner step" in result.output
    assert "From this model with 1 inner step to the whole" in result.output
