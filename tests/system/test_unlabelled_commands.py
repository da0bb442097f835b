"""Examples without a label on the command line: learned from, scored, and refused where nobody makes use of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_unknown import write_table
from toy import ToySource, toy_config

from quickstudy.artifact import load_artifact, load_task, save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main, support

TASKS = ["--way", "3", "--shot", "1", "--queries", "3", "--episodes", "20"]


def saved(tmp_path: Path, learner: str) -> Path:
    config = toy_config().model_copy(update={"learner": {"name": learner}})
    save_artifact(tmp_path / learner, build_learner(config.learner, config.encoder), config, {})
    return tmp_path / learner


@pytest.fixture
def tables(toy: type[ToySource], tmp_path: Path) -> tuple[Path, Path]:
    """Two examples of each of three classes with their labels, and six more of each without."""
    pool = toy().pool("test")
    rows = [pool.of_class(which).tolist() for which in range(3)]
    few = [row for each in rows for row in each[:2]]
    labels = [f"class {which}" for which in range(3) for _ in range(2)]
    many = [row for each in rows for row in each[2:]]
    return write_table(tmp_path / "few.csv", few, labels), write_table(tmp_path / "many.csv", many)


def test_a_task_learns_from_both(
    tables: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = map(str, tables)
    model, task, later = (
        str(saved(tmp_path, "linear_head")),
        tmp_path / "a.task",
        tmp_path / "b.task",
    )
    assert main(["adapt", model, few, "--unlabelled", many, "--out", str(task)]) == 0
    assert "from 6 examples and 18 examples without a label" in capsys.readouterr().err
    assert main(["adapt", model, few, "--out", str(later)]) == 0
    assert (
        main(["adapt", model, "--from", str(later), "--unlabelled", many, "--out", str(later)]) == 0
    )
    artifact = load_artifact(model)
    one, two = load_task(task, artifact), load_task(later, artifact)
    assert (one.examples, one.unlabelled) == (two.examples, two.unlabelled) == (6, 18)
    answers = []
    for path in (task, later):
        capsys.readouterr()
        assert main(["predict", str(path), many, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["answers"])
    for at_once, later_on in zip(*answers, strict=True):
        # Some processors multiply six rows and eighteen otherwise than all of them at once, to the last bit.
        assert at_once["probabilities"] == pytest.approx(later_on["probabilities"], abs=1e-6)
        assert [at_once[key] for key in ("input", "label")] == [
            later_on[key] for key in ("input", "label")
        ]


def test_of_a_great_many_some_are_taken(
    tables: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = map(str, tables)
    monkeypatch.setattr(support, "MOST_UNLABELLED", 7)
    model, task = str(saved(tmp_path, "linear_head")), tmp_path / "a.task"
    assert main(["adapt", model, few, "--unlabelled", many, "--out", str(task)]) == 0
    assert "holds 18 examples without a label; 7 of them are taken" in capsys.readouterr().err
    assert load_task(task, load_artifact(model)).unlabelled == 7


def test_who_makes_nothing_of_them_refuses(
    tables: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = map(str, tables)
    model, task = str(saved(tmp_path, "protonet")), tmp_path / "a.task"
    assert main(["adapt", model, few, "--unlabelled", many, "--out", str(task)]) == 1
    assert (
        "from which the learner protonet learns nothing; leave them out" in capsys.readouterr().err
    )
    assert not task.exists()
    assert main(["evaluate", model, "--unlabelled", "5"]) == 1
    assert "protonet learns nothing" in capsys.readouterr().err
    assert (
        main(
            ["adapt", str(saved(tmp_path, "linear_head")), "--unlabelled", many, "--out", str(task)]
        )
        == 2
    )
    assert "There is nothing to learn from" in capsys.readouterr().err


def test_an_evaluation_shows_what_they_are_worth(
    tables: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(saved(tmp_path, "linear_head"))
    words = [*TASKS, "--unlabelled", "12"]
    assert main(["evaluate", model, *words, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["unlabelled"] == 12
    assert set(scores["ablations"]) == {"without_unlabelled"}
    report = tmp_path / "report.html"
    assert main(["evaluate", model, *words, "--report", str(report)]) == 0
    said = capsys.readouterr().out
    assert "3-way 1-shot and 12 examples without a label" in said
    assert "without the examples that have no label" in said
    page = report.read_text(encoding="utf-8")
    assert "without the examples that have no label" in page
    assert "each with 3 classes and 1 example of each, and 12 without a label" in page


def test_a_threshold_is_learned_from_such_tasks_or_said_to_be_of_others(
    tables: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = map(str, tables)
    model, task = str(saved(tmp_path, "linear_head")), str(tmp_path / "a.task")
    words = [*TASKS, "--unknown", "--json"]
    learn = ["adapt", model, few, "--unlabelled", many, "--out", task, "--replace"]
    assert main(["evaluate", model, *words]) == 0
    assert main(learn) == 0
    capsys.readouterr()
    assert main(["predict", task, many, "--reject", "--json"]) == 0
    said = capsys.readouterr().err
    assert "this task learned from 18 without one too, which makes it surer" in said
    assert "--unknown --unlabelled 18" in said
    assert main(["evaluate", model, *words, "--unlabelled", "18"]) == 0
    found = json.loads(capsys.readouterr().out)["unknown"]
    assert main(learn) == 0
    capsys.readouterr()
    assert found["unlabelled"] == load_artifact(model).facts["rejection"]["unlabelled"] == 18
    assert main(["predict", task, many, "--reject", "--json"]) == 0
    assert "surer" not in capsys.readouterr().err


def test_an_empty_or_missing_file_of_them_is_named(
    tables: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, _ = map(str, tables)
    model, task = str(saved(tmp_path, "linear_head")), str(tmp_path / "a.task")
    assert main(["adapt", model, few, "--unlabelled", "nowhere.csv", "--out", task]) == 1
    assert "nowhere.csv" in capsys.readouterr().err
    empty = tmp_path / "empty.csv"
    empty.write_text("a,b,c,d\n")
    assert main(["adapt", model, few, "--unlabelled", str(empty), "--out", task]) == 1
    assert "empty.csv" in capsys.readouterr().err
