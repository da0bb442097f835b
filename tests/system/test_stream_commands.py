"""Streams through the command line and Python, as docs/how-to/streams.md has them, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from quickstudy.cli import main
from quickstudy.config import parse_config

Capture = pytest.CaptureFixture[str]

TEXT = (Path(__file__).parents[2] / "docs/how-to/streams.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the how-to and what its commands left; the training is cut short."""
    folder = tmp_path_factory.mktemp("streams")
    first, second = blocks("yaml")
    assert parse_config(yaml.safe_load(second)).episode.habit == 2
    (folder / "streams.yaml").write_text(first, encoding="utf-8")
    for name, table in zip(("monday", "tuesday"), blocks("csv"), strict=True):
        (folder / f"{name}.csv").write_text(table, encoding="utf-8")
    small = ["learner.learner.width=8", "learner.learner.layers=1", "learner.width=8"]
    small += ["learner.heads=2", "learner.learner.heads=2", "episode.tasks=2", "episode.stream=2"]
    small += ["validation.episodes=2", "validation.stream=2"]
    short = {
        "train": ["--steps", "2", *(word for each in small for word in ("--set", each))],
        "evaluate": ["--episodes", "6", "--stream", "3"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks("sh"):
            for line in block.strip().splitlines():
                program, *words = shlex.split(line)
                assert program == "quickstudy"
                assert main([*words, *short.get(words[0], [])]) == 0, line
    return folder


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(here)
    return here


def test_the_python_of_the_document_runs(capsys: Capture) -> None:
    exec("\n".join(blocks("python")), {})
    assert capsys.readouterr().out.splitlines() == ["torch.Size([4, 10, 2])"] * 3 + ["(1,)"]


def test_scores_by_position_as_json_and_as_a_table(inside: Path, capsys: Capture) -> None:
    words = ["evaluate", "runs/streams", "--stream", "3", "--episodes", "9", "--queries", "4"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["stream"], found["streams"], found["queries"]) == (3, 3, 4)
    assert [each["position"] for each in found["positions"]] == [1, 2, 3]
    first = found["positions"][0]
    assert first["with_memory"] == first["without_memory"]
    assert main(words) == 0
    table = capsys.readouterr().out
    for said in ("with memory", "exact, forgetting", "3 streams of 3 tasks", "From the first task"):
        assert said in table


def test_a_task_file_says_its_place_in_the_stream(inside: Path, capsys: Capture) -> None:
    words = [
        "adapt",
        "runs/streams",
        "monday.csv",
        "--after",
        "tuesday.task",
        "--out",
        "third.task",
    ]
    assert main([*words, "--place", "3", "--replace"]) == 0
    assert "as task 3 of its stream" in capsys.readouterr().err
    for place, said in (
        ("2", "The previous task is number 2 of its stream, but this one is to be number 2"),
        ("7", "is cut off. Learn tasks 3 to 6 first"),
    ):
        assert main([*words, "--place", place, "--replace"]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--from", "monday.task", "--after", "monday.task"], 2, "leave one of them out"),
        (["--place", "3"], 1, "No previous task was given, but this one is to be number 3"),
        (["--after", "none.task"], 1, "There is no task file none.task"),
    ],
)
def test_what_cannot_follow_is_said(
    more: list[str], code: int, said: str, inside: Path, capsys: Capture
) -> None:
    assert main(["adapt", "runs/streams", "monday.csv", "--out", "new.task", *more]) == code
    assert said in capsys.readouterr().err
    assert not Path("new.task").exists()


def test_a_model_without_memory_is_told_so(inside: Path, capsys: Capture) -> None:
    words = ["train", "--data", "sinusoid", "--learner", "conditional_process", "--encoder", "raw"]
    words += ["--set", "learner.width=8", "--set", "episode.shot=2", "--set", "validation.shot=2"]
    assert main([*words, "--set", "validation.episodes=2", "--steps", "1", "--out", "plain"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "plain", "--stream", "3"]) == 2
    assert "has no memory: its learner conditional_process begins" in capsys.readouterr().err
    assert main(["adapt", "plain", "monday.csv", "--out", "plain.task"]) == 0
    words = ["adapt", "plain", "tuesday.csv", "--after", "plain.task", "--out", "new.task"]
    capsys.readouterr()
    assert main(words) == 1
    assert "The learner conditional_process has no memory" in capsys.readouterr().err
    words = ["adapt", "runs/streams", "tuesday.csv", "--after", "plain.task", "--out", "new.task"]
    assert main(words) == 1
    assert "was adapted with the artifact" in capsys.readouterr().err


def test_streams_beside_others_and_as_a_report(inside: Path, capsys: Capture) -> None:
    words = ["evaluate", "runs/streams", "--stream", "3", "--episodes", "9", "--ablate"]
    words += ["--against", "runs/streams", "--report", "streams.html"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["against"] == "runs/streams"
    for each in found["positions"]:
        assert set(each["others"]) == {"without_modulation", "against"}
        assert each["others"]["against"]["mean"] == each["with_memory"]["mean"]
    page = Path("streams.html").read_text(encoding="utf-8")
    for said in ("By position in the stream", "Beside others", "The other model is runs/streams"):
        assert said in page
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "with the same weights in every task" in shown.out
    assert "The report is in streams.html" in shown.err


def test_what_streams_are_not_scored_for_is_said(inside: Path, capsys: Capture) -> None:
    for more in (["--unknown"], ["--unlabelled", "5"]):
        assert main(["evaluate", "runs/streams", "--stream", "3", *more]) == 2
        assert "leave --unknown and --unlabelled out" in capsys.readouterr().err
    rivals = {
        "glyphs": "reads examples of the kind vector, and glyphs reads image",
        "logistic": "--against compares models with answers of one kind",
    }
    for rival, said in rivals.items():
        few = ["validation.episodes=2", "episode.way=2", "episode.shot=2", "validation.way=2"]
        words = ["train", "--data", rival, "--steps", "1", "--out", rival]
        for each in (*few, "validation.shot=2"):
            words += ["--set", each]
        assert main(words) == 0
        capsys.readouterr()
        assert main(["evaluate", "runs/streams", "--stream", "3", "--against", rival]) == 2
        assert said in capsys.readouterr().err
