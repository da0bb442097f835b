"""Tables as people have them, with categories and gaps, through the real commands, by the models that ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quickstudy import FewShotClassifier, FewShotRegressor
from quickstudy.cli import main

Capture = pytest.CaptureFixture[str]

ROWS = [
    ("34", "basic", "0", "Rome", "no"),
    ("", "pro", "1", "Paris", "yes"),
    ("29", "basic", "0", "Rome", "no"),
    ("55", "pro", "1", "NA", "yes"),
    ("41", "basic", "0", "Paris", "no"),
    ("38", "?", "1", "Rome", "yes"),
]
NAMES = ["age", "plan", "churn", "city", "label"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [";".join(NAMES), *(";".join(row) for row in ROWS)]
    (tmp_path / "customers.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    (tmp_path / "new.csv").write_text(
        "city,plan,note,age,churn\nRome,pro,x,40,1\nBerlin,basic,y,,0\n"
    )
    return tmp_path


def asked(capsys: Capture, *words: str) -> list[dict]:
    """The answers that a command prints as JSON."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    answers: list[dict] = json.loads(capsys.readouterr().out)["answers"]
    return answers


def test_the_commands_say_what_the_classifier_says(here: Path, capsys: Capture) -> None:
    assert main(["adapt", "tables", "customers.csv", "--out", "one.task"]) == 0
    found = asked(capsys, "predict", "one.task", "new.csv")
    rows = [[cell if cell else None for cell in row[:-1]] for row in ROWS]
    classifier = FewShotClassifier.from_pretrained("tables").fit(rows, [row[-1] for row in ROWS])
    expected = classifier.predict_proba(
        [["40", "pro", "1", "Rome"], [None, "basic", "0", "Berlin"]]
    )
    shares = [[each["probabilities"][name] for name in ("no", "yes")] for each in found]
    # One computes in single precision, the other in double.
    np.testing.assert_allclose(shares, expected, atol=1e-4)


def test_a_task_knows_its_columns_and_categories_later_too(here: Path, capsys: Capture) -> None:
    (here / "first.csv").write_text("\n".join([",".join(NAMES), *map(",".join, ROWS[:4])]) + "\n")
    turned = [",".join(reversed(row)) for row in ROWS[4:]]
    (here / "rest.csv").write_text("\n".join([",".join(reversed(NAMES)), *turned]) + "\n")
    assert main(["adapt", "tables", "first.csv", "--out", "parts.task"]) == 0
    assert main(["adapt", "tables", "rest.csv", "--from", "parts.task", "--out", "parts.task"]) == 0
    assert main(["adapt", "tables", "customers.csv", "--out", "whole.task"]) == 0
    parts, whole = (
        asked(capsys, "predict", task, "new.csv") for task in ("parts.task", "whole.task")
    )
    for one, other in zip(parts, whole, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
    assert main(["predict", "whole.task", "new.csv", "--log", "log.jsonl"]) == 0
    logged = [json.loads(line)["input"] for line in (here / "log.jsonl").read_text().splitlines()]
    assert [each is None for each in logged[1]] == [True, False, False, True]
    assert main(["correct", "whole.task", "new.csv", "no", "--log", "log.jsonl"]) == 0
    assert "Learned that new.csv:2 is no" in capsys.readouterr().err


def test_numbers_are_predicted_from_categories(here: Path, capsys: Capture) -> None:
    rows = [("1", "red", 10), ("2", "blue", 20), ("3", "red", 31), ("4", "", 39), ("5", "blue", 52)]
    lines = ["size,colour,price", *(",".join(map(str, row)) for row in rows)]
    (here / "prices.csv").write_text("\n".join(lines) + "\n")
    assert main(["adapt", "tables/values", "prices.csv", "--out", "price.task"]) == 0
    found = [each["value"] for each in asked(capsys, "predict", "price.task", "6,red", ",blue")]
    x, prices = [[size, colour or None] for size, colour, _ in rows], [row[2] for row in rows]
    regressor = FewShotRegressor.from_pretrained("tables").fit(x, prices)
    expected = regressor.predict([["6", "red"], [None, "blue"]])
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert main(["predict", "price.task", "6"]) == 1
    assert "Found 1 entries in '6'; expected a table" in capsys.readouterr().err


def test_a_row_can_be_typed(here: Path, capsys: Capture) -> None:
    assert main(["adapt", "tables", "customers.csv", "--out", "one.task"]) == 0
    of_table = asked(capsys, "predict", "one.task", "new.csv")
    typed = asked(capsys, "predict", "one.task", "40,pro,1,Rome", ', basic,0,"Berlin"')
    assert [each["input"] for each in typed] == ["40,pro,1,Rome", ', basic,0,"Berlin"']
    for one, other in zip(typed, of_table, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert main(["correct", "one.task", "40,pro,1,Rome", "no", "--log", "log.jsonl"]) == 0
    said = capsys.readouterr().err
    assert "Learned that 40,pro,1,Rome is no" in said
    assert "quickstudy improve tables --feedback log.jsonl" in said
    for wrong in ("40,pro,1,Rome\n41,pro,1,Rome", '40,pro,1,"Rome'):
        assert main(["predict", "one.task", wrong]) == 1
        assert "expected the entries of one row with commas between" in capsys.readouterr().err
    assert main(["predict", "one.task", "40,pro"]) == 1
    assert "(age, plan, churn, city); one that is not known is left" in capsys.readouterr().err


def test_check_shows_rows_as_they_were(here: Path, capsys: Capture) -> None:
    answers = asked(capsys, "check", "tables", "customers.csv")
    found = {each["origin"]: each["input"] for each in answers}
    assert found["customers.csv:3"] == ["", "pro", 1.0, "Paris"]
    assert found["customers.csv:7"] == [38.0, "", 1.0, "Rome"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("city,plan,age\nRome,pro,40\n", "there is no column 'churn', only 'city', 'plan', 'age'"),
        (
            "city,plan,age,churn\nRome,pro,old,1\n",
            "Column 'age' holds numbers since the task began",
        ),
        ("city,plan,age,churn\nRome,pro,1e39,1\n", "a number beyond 3.4e+38; choose another unit"),
    ],
    ids=["column", "text", "size"],
)
def test_rows_that_cannot_be_asked_about(
    here: Path, capsys: Capture, content: str, said: str
) -> None:
    assert main(["adapt", "tables", "customers.csv", "--out", "one.task"]) == 0
    (here / "bad.csv").write_text(content)
    capsys.readouterr()
    assert main(["predict", "one.task", "bad.csv"]) == 1
    assert said in capsys.readouterr().err
