"""Tasks that predict numbers, through the command line from beginning to end."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from quickstudy import load
from quickstudy.artifact import answer, load_task
from quickstudy.cli import main
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.draw import Episodes
from quickstudy.data.synthetic import Sinusoid

Capture = pytest.CaptureFixture[str]

DOCUMENT = Path(__file__).parents[2] / "docs/how-to/learn-functions.md"
SMALL = (
    *("--learner", "maml", "--set", "learner.adapt=head", "--set", "learner.rate=0.02"),
    *("--set", "encoder.width=16", "--set", "encoder.layers=1", "--set", "episode.shot=5"),
    *("--set", "validation.shot=5", "--set", "validation.queries=20", "--set", "episode.tasks=4"),
    *("--set", "validation.episodes=8", "--set", "validation.every=20"),
)
"""A training of a second or two."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained models: ``sinusoid`` of one input and ``linear`` of two."""
    folder = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, spec in (("sinusoid", "sinusoid"), ("linear", "linear,dims=2,noise=0.1")):
        words = ["train", "--data", spec, *SMALL, "--steps", "40", "--out", str(folder / name)]
        assert main(words) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(name: str, header: str, *rows: str) -> str:
    Path(name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return name


def refused(capsys: Capture, code: int, *words: object) -> str:
    """The one sentence of a command that fails."""
    assert main([str(word) for word in words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("Error: ")
    assert "unexpected" not in line
    return line


def test_the_config_says_how_many_numbers(runs: Path) -> None:
    config = load(runs / "linear").config
    assert config.learner["values"] == 1
    assert config.encoder["inputs"] == 2
    assert (config.episode.way, config.episode.queries) == (None, 235)


def test_a_training_goes_on(here: Path) -> None:
    words = ["train", "--data", "sinusoid", *SMALL, "--out", "run"]
    assert main([*words, "--steps", "20"]) == 0
    assert main(["train", "--out", "run", "--resume", "--steps", "40"]) == 0
    rows = csv.DictReader(Path("run/metrics.csv").read_text().splitlines())
    assert [int(row["step"]) for row in rows if row["validation_mean_squared_error"]] == [20, 40]


@pytest.mark.usefixtures("short_reports")
def test_evaluation_has_the_usual_keys(runs: Path, here: Path, capsys: Capture) -> None:
    words = ["evaluate", runs / "sinusoid", "--episodes", 40, "--against", runs / "sinusoid"]
    words = [str(word) for word in words]
    assert main([*words, "--json", "--report", "report.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        *("metric", "mean", "ci95", "episodes", "way", "shot", "queries", "split", "seed"),
        *("within_group", "unlabelled", "inductive", "before_adaptation", "baselines", "paired"),
    }
    assert found["metric"] == "mean_squared_error"
    assert (found["way"], found["shot"], found["queries"]) == (1, 5, 20)
    assert found["inductive"] is True
    assert found["paired"]["difference"] == 0
    assert set(found["baselines"]) == {"mean_of_support", "ridge_raw_inputs", "exact"}
    assert found["baselines"]["exact"]["mean"] < 1e-8
    page = Path("report.html").read_text(encoding="utf-8")
    for part in (
        "5-shot mean squared error",
        "exact answer",
        "More examples",
        "a function and its",
    ):
        assert part in page
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("5-shot, 40 tasks of the test split\n")
    assert "mean of the task's known values" in shown
    assert "chance" not in shown


def test_who_says_how_sure_it_is_is_measured(here: Path, capsys: Capture) -> None:
    small = ["--set", "learner.width=8", "--set", "learner.layers=1", "--set", "learner.heads=2"]
    words = ["train", "--data", "gaussian_process", "--learner", "neural_process", *small]
    words += ["--set", "encoder=raw", "--set", "episode.shot=[3,9]", "--set", "episode.queries=5"]
    words += ["--set", "validation.episodes=4", "--set", "validation.shot=[3,9]"]
    assert main([*words, "--steps", "5", "--out", "run"]) == 0
    words = ["evaluate", "run", "--episodes", "9", "--queries", "7"]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["below_exact"]["mean"] > 0
    assert 0 <= found["coverage"]["mean"] <= 1
    gap = found["baselines"]["exact"]["log_likelihood"]["mean"] - found["log_likelihood"]["mean"]
    assert found["below_exact"]["mean"] == pytest.approx(gap)
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "nats below Bayes-optimal" in shown
    assert "values in 95 % intervals" in shown


@pytest.mark.usefixtures("short_reports")
def test_many_inputs_are_reported_as_agreement(runs: Path, here: Path, capsys: Capture) -> None:
    words = ["evaluate", str(runs / "linear"), "--episodes", "9", "--shot", "3"]
    assert main([*words, "--report", "report.html"]) == 0
    assert "answers against true values" in Path("report.html").read_text(encoding="utf-8")


def test_the_card_speaks_of_numbers(runs: Path) -> None:
    card = (runs / "linear/artifact/README.md").read_text(encoding="utf-8")
    for part in ("to predict 1 number", "column `value`", "mean_squared_error, 5-shot", "dims: 2"):
        assert part in card
    assert "class" not in card.split("## Training")[0]


def test_adapt_and_predict(runs: Path, here: Path, capsys: Capture) -> None:
    points = table("points.csv", "value,x", "1.5,0.5", "-2,3", "0.5,-1")
    assert main(["adapt", str(runs / "sinusoid"), points, "--out", "wave.task"]) == 0
    said = capsys.readouterr()
    assert said.out == "wave.task\n"
    assert "Learned to predict value from 3 examples." in said.err

    assert main(["predict", "wave.task", "--json", "--", "0.25", "-2"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = load(runs / "sinusoid")
    expected = answer(model, load_task("wave.task", model), torch.tensor([[0.25], [-2.0]]))
    assert [row["value"] for row in found["answers"]] == pytest.approx(expected[:, 0].tolist())
    assert [row["input"] for row in found["answers"]] == ["0.25", "-2"]

    # Columns are known by name, whatever else a table holds and in whatever order.
    queries = table("queries.csv", "note,x,value", "a,0.25,1", "b,-2,3")
    assert main(["predict", "wave.task", queries, "--labelled", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    values = [row["value"] for row in scored["answers"]]
    assert values == pytest.approx(expected[:, 0].tolist())
    squares = (values[0] - 1) ** 2 + (values[1] - 3) ** 2
    assert scored["mean_squared_error"] == pytest.approx(squares / 2, rel=1e-4)
    assert main(["predict", "wave.task", queries, "--labelled"]) == 0
    assert "The mean squared error over 2 inputs is" in capsys.readouterr().out

    more = table("more.csv", "x,value", "2,0")
    assert (
        main(["adapt", str(runs / "sinusoid"), more, "--from", "wave.task", "--out", "2.task"]) == 0
    )
    assert load_task("2.task", model).examples == 4


def test_several_inputs(runs: Path, here: Path, capsys: Capture) -> None:
    points = table("points.csv", "height,weight,price", "1,2,3", "2,1,0", "0,1,2")
    assert main(["adapt", str(runs / "linear"), points, "--out", "price.task"]) == 0
    assert main(["predict", "price.task", "1,1.5"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2].split() == ["input", "price"]
    assert shown[-1].startswith("1,1.5 ")


def test_adapting_on_the_command_line_is_adapting_in_an_episode(runs: Path, here: Path) -> None:
    model = load(runs / "sinusoid")
    episode = Episodes(Sinusoid(), "test", EpisodeDesign(1, 5, 10))[0]
    rows = zip(
        episode.support.x[0, :, 0].tolist(), episode.support.y[0, :, 0].tolist(), strict=True
    )
    points = table("points.csv", "x,value", *(f"{x!r},{y!r}" for x, y in rows))
    assert main(["adapt", str(runs / "sinusoid"), points, "--out", "wave.task"]) == 0
    found = answer(model, load_task("wave.task", model), episode.query.x[0])
    with torch.no_grad():
        state = model.learner.adapt(episode.support, episode.context)
        expected = model.learner.predict(state, episode.query.x, episode.context)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["x,value", "1,nan"], ["line 2", "'nan'", "'value'", "expected a number"]),
        (["x,value", "one,1"], ["line 2", "'one'", "'x'"]),
        (["x,value", "1,"], ["line 2", "''", "'value'"]),
        (["x,y,value", "1,2,3"], ["2 columns of inputs (x, y)", "reads 1"]),
        (["value", "1"], ["one column only", "'value'"]),
    ],
)
def test_tables_that_cannot_be_learned(
    runs: Path, here: Path, capsys: Capture, rows: list[str], words: list[str]
) -> None:
    points = table("points.csv", *rows)
    text = refused(capsys, 1, "adapt", runs / "sinusoid", points, "--out", "wave.task")
    assert all(word in text for word in words), text
    assert not Path("wave.task").exists()


def test_inputs_that_cannot_be_answered(runs: Path, here: Path, capsys: Capture) -> None:
    points = table("points.csv", "x,value", "1,2", "2,3")
    assert main(["adapt", str(runs / "sinusoid"), points, "--out", "wave.task"]) == 0
    capsys.readouterr()
    for typed in ("abc", "1,2", "inf", ""):
        text = refused(capsys, 2, "predict", "wave.task", typed)
        assert repr(typed) in text
        assert "a number (x)" in text
    other = table("other.csv", "z", "1")
    assert "no column 'x', only 'z'" in refused(capsys, 1, "predict", "wave.task", other)
    assert "learned from points.csv:2" in refused(
        capsys, 1, "predict", "wave.task", points, "--labelled"
    )
    assert "--labelled" in refused(capsys, 2, "predict", "wave.task", "1", "--labelled")


def test_learners_and_worlds_that_do_not_fit(runs: Path, here: Path, capsys: Capture) -> None:
    text = refused(capsys, 2, "train", "--data", "sinusoid", "--learner", "ridge", "--out", "run")
    assert re.search("predicts numbers: .*maml", text)
    text = refused(
        capsys, 2, "train", "--data", "glyphs", "--learner", "maml", "--set", "learner.values=1",
        "--out", "run",
    )  # fmt: skip
    assert "predict a class" in text
    text = refused(capsys, 2, "train", "--data", "sinusoid,waves=2", "--out", "run")
    assert "its options are noise" in text
    wide = refused(capsys, 1, "evaluate", runs / "sinusoid", "--data", "linear", "--episodes", 2)
    assert "at most 1 numbers" in wide
    assert "reads examples of the kind vector" in refused(
        capsys, 2, "evaluate", runs / "sinusoid", "--data", "glyphs"
    )
    text = refused(capsys, 1, "evaluate", runs / "sinusoid", "--within-group")
    assert "no groups" in text


def test_worlds_are_listed(capsys: Capture) -> None:
    assert main(["list", "--json"]) == 0
    sources = json.loads(capsys.readouterr().out)["sources"]
    assert sources["sinusoid"].startswith("Sine waves")
    assert sources["linear"].startswith("Linear functions")
    assert sources["gaussian_process"].startswith("Random functions")
    assert sources["logistic"].startswith("Bursts of logistic tasks")


def test_the_figures_of_the_document_are_those_of_the_benchmark() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    file = DOCUMENT.parents[2] / "benchmarks/results/sinusoid.json"
    found = json.loads(file.read_text(encoding="utf-8"))["learners"]
    shots = ("5-shot", "10-shot")
    for name, row in (("head", "the head, learned"), ("all", "all weights, a learned rate")):
        runs = [run["scores"] for run in found[name]["runs"]]
        means = [sum(run[shot]["test"]["mean"] for run in runs) / len(runs) for shot in shots]
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {row}"))
        assert " | ".join(f"{float(f'{mean:.2g}'):f}".rstrip("0") for mean in means) in line
        chosen = {
            shot: {run[shot]["steps_chosen_on_validation_tasks"] for run in runs} for shot in shots
        }
        assert chosen == {
            shot: {int(n)}
            for shot, n in zip(shots, re.findall(r": (\d+) and (\d+)", line)[0], strict=True)
        }


@pytest.mark.usefixtures("short_reports")
def test_what_the_document_types(here: Path, capsys: Capture) -> None:
    """Every command of the how-to, in its order; trainings, evaluations and reports are cut short."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, content in re.findall(r"`(\w+\.csv)`:\n\n```\n(.*?)```", text, re.S):
        Path(name).write_text(content, encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    commands = [line for block in blocks for line in block.strip().splitlines()]
    assert len(commands) == 10
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "quickstudy"
        if words[0] == "train":
            words += ["--steps", "10", "--set", "validation.episodes=4"]
        elif words[0] == "evaluate":
            words += ["--episodes", "4"]
        assert main(words) == 0, line
    assert Path("waves.html").exists()
    for page in ("functions.html", "rules.html"):
        assert "Bayes-optimal" in Path(page).read_text(encoding="utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert capsys.readouterr().out.count("nats below Bayes-optimal") == 2
    exec(python, {})
    assert eval(capsys.readouterr().out)["mean"] < 1e-6
