"""``check`` and ``adapt --unknown``: what a task's own examples tell of it, as typed and as the guides have it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from toy import ToySource

from quickstudy.cli import main

GUIDES = Path(__file__).parents[2] / "docs/how-to"
TEXTS = {
    "delivery": ["where is my parcel", "it never arrived", "the courier lost it", "ship it faster"],
    "billing": ["I was billed twice", "my invoice is wrong", "pay by card", "charge me monthly"],
    "account": ["I cannot log in", "my password fails", "delete my profile", "change my e-mail"],
}
PLANTED = "somebody else knows my password"


def table(path: Path, *, planted: bool = False) -> Path:
    rows = [(text, label) for label, texts in TEXTS.items() for text in texts]
    rows += [(PLANTED, "delivery")] if planted else []
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


def test_a_wrong_label_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tickets = str(table(tmp_path / "tickets.csv", planted=True))
    assert main(["check", "text", tickets, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first = found["answers"][found["wrong"][0]]
    assert first["input"] == PLANTED
    assert (first["label"], first["answer"]) == ("delivery", "account")
    assert first["origin"].endswith("tickets.csv:14")
    assert found["asked"] == 13
    assert found["folds"] == 5
    assert found["right"] == 13 - len(found["wrong"]) == sum(c["right"] for c in found["classes"])
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert main(["check", "text", tickets]) == 0
    shown = capsys.readouterr().out
    assert PLANTED in shown
    assert f"{found['right']} of 13 right" in shown


def test_numbers_are_checked_too_and_folds_can_be_chosen(
    toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = ToySource().pool("test")
    rows = [[*row, f"class {c}"] for c in range(3) for row in pool.of_class(c)[:5].tolist()]
    lines = ["a,b,c,d,label", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    assert main(["check", str(toy_model), str(tmp_path / "own.csv"), "--folds", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folds"], found["asked"]) == (3, 15)
    assert [each["name"] for each in found["classes"]] == ["class 0", "class 1", "class 2"]


def test_rows_of_a_table_are_checked_by_the_model_that_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{10 * (i % 2) + i / 9},{i % 5},{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y,label", *rows]) + "\n")
    assert main(["check", "tables", str(tmp_path / "rows.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["right"], found["asked"], found["folds"]) == (20, 20, 5)


def test_a_task_learns_from_its_examples_what_is_of_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tickets, task = str(table(tmp_path / "tickets.csv")), str(tmp_path / "one.task")
    assert main(["adapt", "text", tickets, "--unknown", "--keep", "0.8", "--out", task]) == 0
    assert "80.0 %" in capsys.readouterr().err
    words = ["the parcel is late", "do you sell elephants"]
    assert main(["predict", task, *words, "--reject", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [each["unknown"] for each in answers] == [False, True]
    more = tmp_path / "more.csv"
    more.write_text("text,label\ncan I have my money back,billing\n")
    assert main(["adapt", "text", str(more), "--from", task, "--out", task]) == 0
    assert "learned from the first 12 examples" in capsys.readouterr().err
    assert main(["predict", task, *words, "--reject"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--unknown", "--from", "none.task"], "leave --from and --after out"),
        (["--keep", "0.9"], "--keep goes with --unknown"),
        (["--unknown", "--keep", "1.5"], "share between 0 and 1, such as 0.9; found 1.5"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tickets = str(table(tmp_path / "tickets.csv"))
    assert main(["adapt", "text", tickets, *words, "--out", str(tmp_path / "one.task")]) == 2
    assert said in capsys.readouterr().err


def test_a_model_toy_model_says_how_it_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "tables/values", str(table(tmp_path / "tickets.csv"))]) == 2
    assert "predict TASK TABLE --labelled" in capsys.readouterr().err


def test_one_example_of_each_class_is_too_few(
    toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few.csv").write_text("a,b,c,d,label\n1,2,3,4,x\n4,3,2,1,y\n")
    assert main(["check", str(toy_model), str(tmp_path / "few.csv")]) == 1
    assert "give at least two of each class" in capsys.readouterr().err


def test_the_guides_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "tickets.csv")
    said = (GUIDES / "check-a-task.md").read_text(encoding="utf-8")
    said += (
        (GUIDES / "say-none-of-these.md").read_text(encoding="utf-8").split("## Or from other")[0]
    )
    blocks = re.findall(r"```(bash|python)\n(.*?)```", said, re.S)
    assert [kind for kind, _ in blocks] == ["bash", "python", "bash"]
    for kind, block in blocks:
        if kind == "python":
            capsys.readouterr()
            exec(block, {})
            assert re.match(r"\d+% right, between \d+% and \d+%\n\[", capsys.readouterr().out)
            continue
        for line in block.strip().splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
