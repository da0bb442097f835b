"""Inputs of no class on the command line: a threshold is learned, judged, kept, and then used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from toy import ToySource

from quickstudy.answering import rejection_of
from quickstudy.artifact import ArtifactError, load_artifact
from quickstudy.cli import main
from quickstudy.data.source import Split
from quickstudy.pretrained import shipped


def write_table(path: Path, rows: list[list[float]], labels: list[str] | None = None) -> Path:
    """A CSV of numbers, with labels or without."""
    names = ["a", "b", "c", "d"] + (["label"] if labels else [])
    lines = [[*map(str, row), *([labels[i]] if labels else [])] for i, row in enumerate(rows)]
    path.write_text("\n".join(",".join(line) for line in [names, *lines]) + "\n")
    return path


@pytest.fixture
def model(toy_model: Path) -> Path:
    return toy_model


def adapted(model: Path, tmp_path: Path) -> Path:
    """The first three classes of the toy's test split, as a task file."""
    pool = ToySource().pool("test")
    rows = [row for which in range(3) for row in pool.of_class(which)[:5].tolist()]
    labels = [f"class {which}" for which in range(3) for _ in range(5)]
    table = write_table(tmp_path / "support.csv", rows, labels)
    assert main(["adapt", str(model), str(table), "--out", str(tmp_path / "one.task")]) == 0
    return tmp_path / "one.task"


def evaluated(
    model: Path, capsys: pytest.CaptureFixture[str], split: Split, *more: str
) -> dict | str:
    words = ["--way", "3", "--shot", "3", "--queries", "3", "--episodes", "40", "--split", split]
    capsys.readouterr()
    assert main(["evaluate", str(model), *words, "--unknown", *more]) == 0
    return capsys.readouterr().out


def test_a_threshold_is_learned_and_used(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_artifact(model).id
    scores = json.loads(evaluated(model, capsys, "test", "--json"))["unknown"]
    assert scores["split"] == "validation"
    assert scores["auroc"]["mean"] > 0.6
    assert {"fpr_at_95", "kept", "refused", "accuracy", "accuracy_without"} <= set(scores)
    kept = load_artifact(model)
    assert kept.id == before
    assert kept.facts["rejection"]["threshold"] == scores["threshold"]

    task = adapted(model, tmp_path)
    far = write_table(tmp_path / "far.csv", [[90.0, -90.0, 90.0, -90.0], [0.1, 0.2, 0.3, 0.4]])
    capsys.readouterr()
    assert main(["predict", str(task), str(far), "--reject", "--json"]) == 0
    shown = capsys.readouterr()
    for answer in json.loads(shown.out)["answers"]:
        beyond = answer["unknown_score"] > scores["threshold"]
        assert answer["unknown"] is beyond
        assert (answer["label"] == "unknown") is beyond
    assert main(["predict", str(task), str(far), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)["answers"]
    assert all("unknown" not in answer for answer in plain)


def test_scores_of_unknown_inputs_are_printed(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = evaluated(model, capsys, "validation")
    assert "learned from the train split" in " ".join(shown.split())
    assert "AUROC" in shown


def test_without_a_threshold_predict_says_how_to_get_one(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_table(tmp_path / "one.csv", [[0.0, 0.0, 0.0, 0.0]])
    task = adapted(model, tmp_path)
    capsys.readouterr()
    assert main(["predict", str(task), str(one), "--reject"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "--unknown" in shown.err
    assert shown.err.count("\n") == 1


def test_where_the_training_data_is_gone_other_classes_of_the_data_at_hand_teach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "copy"
    shutil.copytree(shipped("text"), model)
    says = ("the {} is late", "a {} for two", "who sells a {}", "my {} broke", "I like the {}")
    things = (
        "train",
        "pizza",
        "lamp",
        "horse",
        "violin",
        "shirt",
        "river",
        "garden",
        "letter",
        "doctor",
    )
    rows = [(say.format(thing), thing) for thing in things for say in says]
    table = tmp_path / "own.csv"
    table.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    words = [
        "--data",
        f"text:{table},test=0.4,validation=0.4",
        "--way",
        "2",
        "--shot",
        "2",
        "--queries",
        "2",
    ]
    assert main(["evaluate", str(model), *words, "--episodes", "10", "--unknown", "--json"]) == 0
    shown = capsys.readouterr()
    assert "Note: The threshold is learned from other classes of the data" in shown.err
    assert json.loads(shown.out)["unknown"]["split"] == "validation"
    assert load_artifact(model).facts["rejection"]["split"] == "validation"


def test_a_model_that_ships_says_to_copy_it_first(capsys: pytest.CaptureFixture[str]) -> None:
    says = r"adapt ARTIFACT EXAMPLES --unknown.* copy the folder .*text.*, which ships with the package"
    with pytest.raises(ArtifactError, match=says):
        rejection_of(load_artifact("text"))
    assert main(["evaluate", "text", "--data", "text:none.csv", "--unknown"]) == 1
    assert "ships with the package and stays as it is; copy the folder" in capsys.readouterr().err
