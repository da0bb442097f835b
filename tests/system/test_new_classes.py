"""``adapt --new-classes``: a class that comes later, from one example, while the task runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quickstudy.artifact import load_artifact, load_task, save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.config import RunConfig

Capture = pytest.CaptureFixture[str]


def table(path: str, rows: list[str]) -> str:
    Path(path).write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("protonet", "maml"):
        config = RunConfig(
            data="text:a.csv",
            learner={"name": name},
            encoder={"name": "words", "width": 8},
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_artifact(name, build_learner(config.learner, config.encoder), config, {})
    table("two.csv", ["aaa bbb,x", "aaa ccc,x", "zzz yyy,y", "zzz www,y"])
    table("third.csv", ["kkk mmm,w"])
    for name in ("protonet", "maml"):
        assert main(["adapt", name, "two.csv", "--out", f"{name}.task"]) == 0


def test_a_running_task_gets_another_class(capsys: Capture) -> None:
    more = ["adapt", "protonet", "third.csv", "--from", "protonet.task", "--out", "more.task"]
    assert main(more) == 1
    assert "make it a new class (--new-classes" in capsys.readouterr().err
    assert main([*more, "--new-classes"]) == 0
    assert "Learned 3 classes (x, y, w) from 5 examples" in capsys.readouterr().err
    assert load_task("more.task", load_artifact("protonet")).class_names == ["x", "y", "w"]
    assert main(["predict", "more.task", "kkk mmm", "aaa bbb", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["label"] for each in found["answers"]] == ["w", "x"]


def test_what_cannot_get_another_class(capsys: Capture) -> None:
    words = ["adapt", "maml", "third.csv", "--out", "more.task", "--new-classes"]
    assert main(words) == 2
    assert "--new-classes adds to a task that has begun" in capsys.readouterr().err
    assert main([*words, "--from", "maml.task"]) == 1
    assert "'w' is new, but tasks of the learner maml keep the classes" in capsys.readouterr().err
    assert not Path("more.task").exists()


def test_a_running_task_gets_a_class_by_its_name(capsys: Capture) -> None:
    config = RunConfig(
        data="text:a.csv",
        learner={"name": "protonet", "names": True},
        encoder={"name": "words", "width": 32},
    )
    save_artifact("named", build_learner(config.learner, config.encoder), config, {})
    assert main(["adapt", "named", "two.csv", "--out", "named.task"]) == 0
    more = ["adapt", "named", "--from", "named.task", "--out", "more.task"]
    capsys.readouterr()
    assert main([*more, "--classes", "kkk mmm"]) == 2
    assert "--new-classes --classes NAME,NAME" in capsys.readouterr().err
    assert main([*more, "--new-classes", "--classes", "kkk mmm, ooo"]) == 0
    assert "Learned 4 classes (x, y, kkk mmm, ooo) from 4 examples" in capsys.readouterr().err
    assert main(["predict", "more.task", "kkk mmm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"][0]["label"] == "kkk mmm"
    # A class by its name and others by examples, at once.
    both = [*more[:2], "third.csv", *more[2:-1], "both.task"]
    assert main([*both, "--new-classes", "--classes", "ooo"]) == 0
    task = load_task("both.task", load_artifact("named"))
    assert (task.class_names, task.examples) == (["x", "y", "ooo", "w"], 5)
    for classes, said in (("x", "'x' twice"), ("q,,r", "an empty name")):
        assert main([*more, "--replace", "--new-classes", "--classes", classes]) == 1
        assert said in capsys.readouterr().err
    refused = ["adapt", "protonet", "--from", "protonet.task", "--out", "no.task"]
    assert main([*refused, "--new-classes", "--classes", "q"]) == 1
    assert "reads no names" in capsys.readouterr().err
