"""Feedback by the command line: corrected at once, improved slowly, and what can go wrong in between."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toy import ToySource, signal_at, toy_config

import quickstudy
from quickstudy import durable
from quickstudy.artifact import ArtifactError, load_artifact, load_task, save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.config import RunConfig, parse_config
from quickstudy.data.source import DataError
from quickstudy.feedback import Event, append, read_feedback
from quickstudy.training import Interrupted, train
from quickstudy.training.improving import _verdict, improve

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: type[ToySource]) -> Path:
    """An untrained model of rows of numbers, a task of three classes, and a place to work in."""
    monkeypatch.chdir(tmp_path)
    config = toy_config()
    save_artifact("artifact", build_learner(config.learner, config.encoder), config, {})
    pool = ToySource().pool("test")
    write("support.csv", [pool.of_class(c)[i] for c in range(3) for i in range(2)], list("aabbcc"))
    assert main(["adapt", "artifact", "support.csv", "--out", "one.task"]) == 0
    write("new.csv", [pool.of_class(1)[4]])
    write("held-out.csv", [pool.of_class(c)[5] for c in range(3)], list("abc"))
    return tmp_path


def write(name: str, rows: list[torch.Tensor], labels: list[str] | None = None) -> None:
    """A CSV of numbers, with labels or without."""
    lines = ["p,q,r,s" + (",label" if labels else "")]
    for i, row in enumerate(rows):
        cells = [str(value) for value in row.tolist()] + ([labels[i]] if labels else [])
        lines.append(",".join(cells))
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def last_line(capsys: Capture) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_correction_is_learned_at_once_and_logged(here: Path, capsys: Capture) -> None:
    old = Path("one.task").read_bytes()
    capsys.readouterr()
    assert main(["correct", "one.task", "new.csv", "b", "--log", "logs/feedback.jsonl"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "one.task\n"
    assert "Learned that new.csv:2 is b" in shown.err
    model = load_artifact("artifact")
    after = load_task("one.task", model)
    assert after.examples == 7
    assert Path("one.task.before").read_bytes() == old
    assert not list(here.glob(".*"))
    (event,) = read_feedback("logs/feedback.jsonl").corrections
    assert (event.task, event.base, event.kind, event.correct) == (
        "../one.task",
        model.id,
        "vector",
        "b",
    )
    assert event.classes == ("a", "b", "c")
    assert len(event.input) == 4
    main(["adapt", "artifact", "support.csv", "--out", "two.task"])
    write("known.csv", [torch.tensor(event.input)], ["b"])
    main(["adapt", "artifact", "known.csv", "--from", "two.task", "--out", "two.task"])
    other = load_task("two.task", model)
    assert all(torch.equal(a, b) for a, b in zip(after.state, other.state, strict=True))


def test_what_was_learned_before_is_only_logged(here: Path, capsys: Capture) -> None:
    words = ["one.task", "new.csv", "--log", "log.jsonl"]
    assert main(["correct", *words[:2], "b", *words[2:]]) == 0
    content = Path("one.task").read_bytes()
    capsys.readouterr()
    assert main(["correct", *words[:2], "c", *words[2:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["corrected"][0]["learned"] is False
    assert found["examples"] == 7
    assert Path("one.task").read_bytes() == content
    with pytest.warns(UserWarning, match="contradicts itself on 1 inputs"):
        assert read_feedback("log.jsonl").corrections[0].correct == "c"


def test_the_new_task_can_go_elsewhere(here: Path) -> None:
    old = Path("one.task").read_bytes()
    words = ["correct", "one.task", "new.csv", "b", "--log", "log.jsonl", "--out", "two.task"]
    assert main(words) == 0
    assert Path("one.task").read_bytes() == old
    assert load_task("two.task", load_artifact("artifact")).examples == 7
    assert main(words) == 2  # it is never overwritten


def test_an_unknown_class_is_refused_and_nothing_is_logged(here: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["correct", "one.task", "new.csv", "d", "--log", "log.jsonl"]) == 1
    shown = capsys.readouterr().err
    assert "'d' is none of this task's classes, which are a, b, c" in shown
    assert not Path("log.jsonl").exists()


def test_a_full_disk_leaves_task_and_log(here: Path, capsys: Capture) -> None:
    old = Path("one.task").read_bytes()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
    try:
        code = main(["correct", "one.task", "new.csv", "b", "--log", "log.jsonl"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert code == 1
    assert "log.jsonl cannot be written" in last_line(capsys)
    assert Path("one.task").read_bytes() == old
    assert main(["correct", "one.task", "new.csv", "b", "--log", "log.jsonl"]) == 0
    assert load_task("one.task", load_artifact("artifact")).examples == 7


def test_a_kill_between_the_log_and_the_task_loses_neither(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Path("one.task").read_bytes()

    def die(path: Path, content: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            monkeypatch.setattr(durable, "write_through", die)
            main(["correct", "one.task", "new.csv", "b", "--log", "log.jsonl"])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert Path("one.task").read_bytes() == old
    assert len(read_feedback("log.jsonl").corrections) == 1
    assert main(["correct", "one.task", "new.csv", "b", "--log", "log.jsonl"]) == 0
    assert load_task("one.task", load_artifact("artifact")).examples == 7
    assert read_feedback("log.jsonl").contradictions == 0


def test_answers_are_logged_and_labelled_ones_are_corrections(here: Path, capsys: Capture) -> None:
    assert main(["predict", "one.task", "new.csv", "--log", "log.jsonl"]) == 0
    with pytest.raises(DataError, match="1 predictions and no correction"):
        read_feedback("log.jsonl")
    assert main(["predict", "one.task", "held-out.csv", "--labelled", "--log", "log.jsonl"]) == 0
    found = read_feedback("log.jsonl")
    assert [event.correct for event in found.corrections] == ["a", "b", "c"]
    assert found.predictions == 4
    assert set(found.corrections[0].classes) == {"a", "b", "c"}


def test_numbers_are_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config(
        {
            "data": "sinusoid",
            "learner": {"name": "maml", "values": 1},
            "encoder": {"name": "vector", "inputs": 1, "width": 8},
        }
    )
    save_artifact("artifact", build_learner(config.learner, config.encoder), config, {})
    Path("points.csv").write_text("x,value\n0,1\n1,3\n2,5\n", encoding="utf-8")
    assert main(["adapt", "artifact", "points.csv", "--out", "line.task"]) == 0
    assert main(["correct", "line.task", "3", "7", "--log", "log.jsonl"]) == 0
    assert main(["correct", "line.task", "4", "high", "--log", "log.jsonl"]) == 2
    assert main(["predict", "line.task", "5", "--log", "log.jsonl"]) == 0
    found = read_feedback("log.jsonl")
    assert [(event.input, event.correct) for event in found.corrections] == [([3.0], 7.0)]
    assert found.predictions == 2
    assert load_task("line.task", load_artifact("artifact")).examples == 4


def test_images_are_kept_beside_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = RunConfig(encoder={"name": "image", "width": 8, "heads": 2})
    save_artifact("artifact", build_learner(config.learner, config.encoder), config, {})
    generator = torch.Generator().manual_seed(0)
    for name in ("support/a/1", "support/b/1", "new/1", "new/2"):
        pixels = torch.randint(0, 255, (28, 28), dtype=torch.uint8, generator=generator)
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(file)
    assert main(["adapt", "artifact", "support", "--out", "one.task"]) == 0
    assert main(["correct", "one.task", "new", "a", "--log", "log.jsonl"]) == 0
    corrected = read_feedback("log.jsonl").corrections
    assert [event.input for event in corrected] == ["new/1.png", "new/2.png"]
    for event in corrected:
        assert Path("log.inputs", event.sha256).read_bytes() == Path(event.input).read_bytes()


def shifted(seed: int = 5, *, noise: bool = False) -> list[Event]:
    """Corrections of eight tasks of six classes, like the toy's own; with noise, of no classes at all."""
    generator = torch.Generator().manual_seed(seed)
    names = tuple(f"class {i}" for i in range(6))
    events = []
    for task in range(8):
        centres = torch.randn(6, 4, generator=generator) * (0 if noise else 1)
        for which, name in enumerate(names):
            for _ in range(5):
                x = centres[which] + 0.8 * torch.randn(4, generator=generator)
                events.append(
                    Event(f"{task}.task", "it", "vector", x.tolist(), "class 0", name, names)
                )
    return events


SETTINGS: dict[str, Any] = {"steps": 60, "rate": 0.02, "episodes": 60, "progress": False}


def test_a_model_improves_and_says_by_what(tmp_path: Path, toy: type[ToySource]) -> None:
    old = train(toy_config(steps=1), tmp_path / "run", progress=False)
    append(tmp_path / "log.jsonl", shifted())
    before = {file.name: file.read_bytes() for file in (tmp_path / "run/artifact").iterdir()}
    found = improve(tmp_path / "run", tmp_path / "log.jsonl", tmp_path / "new", **SETTINGS)
    assert found.accepted, found.reason
    assert found.artifact is not None
    new = load_artifact(tmp_path / "new")
    assert new.id == found.artifact.id != old.id
    assert new.config == old.config
    noted = new.facts["improvement"]
    assert noted == json.loads(json.dumps(found.figures))
    assert (noted["parent"], noted["corrections"], noted["tasks"]) == (old.id, 240, 8)
    assert noted["log_sha256"] == durable.sha256_of((tmp_path / "log.jsonl").read_bytes())
    assert (noted["held_out"], noted["feedback"]["over"]) == ("tasks", "examples")
    card = (tmp_path / "new/README.md").read_text(encoding="utf-8")
    assert old.id in card
    assert noted["log_sha256"] in card
    assert {
        file.name: file.read_bytes() for file in (tmp_path / "run/artifact").iterdir()
    } == before
    again = improve(old, tmp_path / "log.jsonl", tmp_path / "again", **SETTINGS)
    assert again.artifact is not None
    assert again.artifact.id == new.id


def test_noise_is_refused_with_the_figures(
    tmp_path: Path, toy: type[ToySource], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(toy_config(steps=1), "run", progress=False)
    append("log.jsonl", shifted(noise=True))
    words = ["improve", "run", "--feedback", "log.jsonl", "--out", "new", "--steps", "4"]
    capsys.readouterr()
    assert main([*words, "--episodes", "30", "--json"]) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["accepted"] is False
    assert found["reason"] in shown.err
    assert "held-out corrections are not answered better" in found["reason"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl", "run"]


def compared(metric: str, before: float, gain: float, ci95: float) -> dict[str, Any]:
    better = gain if metric == "accuracy" else -gain
    return {
        "metric": metric, "count": 9, "over": "tasks", "before": {"mean": before},
        "after": {"mean": before + better}, 
        "gain": {"mean": gain, "ci95": ci95, "low": gain - ci95, "high": gain + ci95},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "original", "feedback", "words"),
    [
        ("accuracy", (0.002, 0.003), (0.05, 0.04), "accepted"),
        ("accuracy", (-0.002, 0.003), (0.05, 0.04), "accepted"),
        ("accuracy", (-0.004, 0.003), (0.05, 0.04), "a loss on the original tasks is shown"),
        ("accuracy", (0.0, 0.02), (0.05, 0.04), "cannot be ruled out"),
        ("accuracy", (0.0, 0.0), (0.05, 0.06), "accepted"),
        ("accuracy", (0.0, 0.0), (-0.01, 0.06), "held-out corrections are not answered better"),
        ("accuracy", (-0.1, 0.0), (0.0, 0.0), "is shown and held-out corrections are not"),
        ("mean_squared_error", (0.0, 0.015), (1.0, 0.5), "accepted"),
        ("mean_squared_error", (0.0, 0.03), (1.0, 0.5), "cannot be ruled out"),
    ],
)
def test_the_rule(
    metric: str, original: tuple[float, float], feedback: tuple[float, float], words: str
) -> None:
    before = 0.8 if metric == "accuracy" else 2.0
    accepted, reason = _verdict(
        {
            "original": compared(metric, before, *original),
            "feedback": compared(metric, before, *feedback),
        }
    )
    assert words in reason
    assert accepted == ("accepted" in words)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_improvement_leaves_nothing(
    number: int,
    code: int,
    tmp_path: Path,
    toy: type[ToySource],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    train(toy_config(steps=1), "run", progress=False)
    append("log.jsonl", shifted())
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    Path("scratch").mkdir()
    monkeypatch.setattr(toy, "on_draw", staticmethod(signal_at(9, number)))
    words = ["improve", "run", "--feedback", "log.jsonl", "--out", "new", "--steps", "50"]
    assert main(words) == code
    assert "run is as it was and nothing was written" in last_line(capsys)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log.jsonl", "run", "scratch"]
    assert list(Path("scratch").iterdir()) == []
    load_artifact("run")


def test_a_full_disk_leaves_no_half_of_a_new_artifact(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_config(steps=1), tmp_path / "run", progress=False)
    append(tmp_path / "log.jsonl", shifted())
    real: Callable[..., Any] = durable.write_through

    def full(path: Path, content: Any) -> None:
        if ".new." in str(path):
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr("quickstudy.artifact.write_through", full)
    with pytest.raises(ArtifactError, match="cannot be saved: No space left"):
        improve(tmp_path / "run", tmp_path / "log.jsonl", tmp_path / "new", **SETTINGS)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log.jsonl", "run"]


def test_what_cannot_be_improved_is_refused_before_any_training(
    tmp_path: Path, toy: type[ToySource]
) -> None:
    old = train(toy_config(steps=1), tmp_path / "run", progress=False)
    log = tmp_path / "log.jsonl"

    def attempt(words: str, kind: type[Exception] = DataError, **more: Any) -> None:
        with pytest.raises(kind, match=words):
            improve(old, log, tmp_path / more.pop("out", "new"), **SETTINGS, **more)

    attempt("No such file")
    append(log, shifted()[:2])
    attempt("2 corrections of 1 tasks are too few")
    attempt("exists already", ArtifactError, out="run")
    attempt("share of corrected tasks", ValueError, share=0.0)
    append(log, shifted())
    append(log, [Event("1.task", "it", "vector", [1.0], "class 0", "class 1", ("class 1",))])
    attempt(r"line 243: found 1 numbers, but the artifact reads 4")
    append(log, [Event("1.task", "it", "text", "hello", "class 0", "class 1", ("class 1",))])
    attempt("line 244: found an example of the kind text, but the artifact reads vector")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log.jsonl", "run"]


def test_an_error_improves_too(tmp_path: Path) -> None:
    """Of numbers: tasks are held out, and less error is better."""
    config = parse_config(
        {
            "data": "linear,dims=1",
            "learner": {"name": "maml", "values": 1, "steps": 1},
            "encoder": {"name": "vector", "inputs": 1, "width": 8, "layers": 1},
            "episode": {"shot": 5, "queries": 5, "tasks": 4},
            "validation": {"shot": 5, "queries": 5, "episodes": 4, "every": 1},
            "training": {"steps": 1, "accelerator": "cpu"},
        }
    )
    old = train(config, tmp_path / "run", progress=False)
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(12, generator=generator)
    points = [(t, x) for t in range(12) for x in torch.randn(10, generator=generator).tolist()]
    append(
        tmp_path / "log.jsonl",
        [Event(f"{t}.task", "it", "vector", [x], 0.0, float(slopes[t]) * x) for t, x in points],
    )
    found = improve(old, tmp_path / "log.jsonl", tmp_path / "new", **SETTINGS)
    assert found.figures["held_out"] == "tasks"
    assert found.figures["original"]["metric"] == "mean_squared_error"
    part = found.figures["feedback"]
    assert part["gain"]["mean"] == pytest.approx(part["before"]["mean"] - part["after"]["mean"])
    assert (part["count"], part["over"]) == (30, "examples")


def test_python_offers_it(tmp_path: Path) -> None:
    assert quickstudy.improve is improve
    assert "improve" in dir(quickstudy)


def test_ctrl_c_in_the_test_leaves_nothing(
    tmp_path: Path, toy: type[ToySource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the training, where nobody catches signals."""
    old = train(toy_config(steps=1), tmp_path / "run", progress=False)
    append(tmp_path / "log.jsonl", shifted())

    def stop(*of: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quickstudy.training.improving._on_corrections", stop)
    with pytest.raises(KeyboardInterrupt) as raised:
        improve(old, tmp_path / "log.jsonl", tmp_path / "new", **SETTINGS)
    assert not isinstance(raised.value, Interrupted)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log.jsonl", "run"]


def test_whose_training_data_are_gone_is_improved_with_others(here: Path, capsys: Capture) -> None:
    config = toy_config().model_copy(update={"data": "text:gone.csv"})
    save_artifact("elsewhere", build_learner(config.learner, config.encoder), config, {})
    with pytest.raises(
        DataError, match=r"not at hand .*gone.csv.* data in their place with --data"
    ):
        improve("elsewhere", "log.jsonl", "new", **SETTINGS)


def test_a_model_of_texts_that_ships_is_improved_with_texts_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few.csv").write_text("text,label\nwhere is it,delivery\nmy money back,refund\n")
    assert main(["adapt", "text", "few.csv", "--out", "one.task"]) == 0
    assert main(["correct", "one.task", "it is late", "delivery", "--log", "log.jsonl"]) == 0
    assert "--feedback log.jsonl --data short_texts --out NEW" in last_line(capsys)
