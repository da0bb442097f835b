"""From sentences with several labels to a model, its scores, a task and its answers, and who refuses such a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quickstudy.artifact import load_artifact, load_task
from quickstudy.cli import main
from quickstudy.durable import ArtifactError
from quickstudy.estimator import FewShotClassifier
from quickstudy.learning import extend
from tiny_corpora import lines, nlupp

TINY = ["encoder=words", "encoder.width=8", "episode.way=2", "episode.queries=2", "episode.tasks=2"]
TINY += ["validation.way=2", "validation.queries=2", "validation.episodes=2", "learner.names=false"]
SETTINGS = [word for each in TINY for word in ("--set", each)]


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command says, on either channel."""
    assert main(list(words)) == code, "".join(capsys.readouterr())
    return "".join(capsys.readouterr())


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_sentences_to_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    nlupp(Path("data/nlupp"))
    own = [
        {"text": f"{i} {' '.join(labels)}", "label": labels}
        for i, labels in enumerate([["pay"], ["card", "pay"], ["card"], [], ["pay"], ["card"]])
    ]
    lines(Path("support.jsonl"), own)
    lines(Path("more.jsonl"), [{"text": "a pin", "label": ["pin", "card"]}])
    lines(Path("asked.jsonl"), [{"text": "pay it", "label": "pay"}, {"text": "hello"}])
    for learner in ("protonet", "linear_head"):
        words = ["train", "--data", "nlupp", "--data-dir", "data", "--learner", learner]
        run(capsys, *words, *SETTINGS, "--steps", "2", "--out", f"runs/{learner}")
    model = load_artifact("runs/protonet")
    assert model.config.learner["labels"] == "many"

    scores = as_json(capsys, "evaluate", "runs/protonet", "--episodes", "3", "--shot", "2")
    assert scores["metric"] == "micro_f1"
    assert scores["before_adaptation"]["mean"] == 0
    assert {"most_frequent", "linear_head", "nearest_mean_raw_inputs"} <= set(scores["baselines"])
    for name in ("macro_f1", "exact_match", "average_precision"):
        assert 0 <= scores[name]["mean"] <= 1
        assert 0 <= scores["baselines"]["linear_head"][name]["mean"] <= 1
    folds = ["--data", "nlupp:data/nlupp,protocol=folds", "--shot", "1", "--episodes", "6"]
    said = run(capsys, "evaluate", "runs/linear_head", *folds, "--against", "runs/protonet")
    assert "8-way 1-fold, 6 tasks of the test split" in said
    assert "mean average precision" in said
    assert "Against runs/protonet on the same tasks" in said
    assert "chance" not in said

    for learner in ("protonet", "linear_head"):
        task = f"{learner}.task"
        run(capsys, "adapt", f"runs/{learner}", "support.jsonl", "--out", task)
        answers = as_json(capsys, "predict", task, "pay by card", "nothing")
        assert answers["labels"] == ["card", "pay"]
        for answer in answers["answers"]:
            chosen = [name for name, p in answer["probabilities"].items() if p > 0.5]
            assert answer["labels"] == chosen
        judged = as_json(capsys, "predict", task, "asked.jsonl", "--labelled")
        assert [each["truth"] for each in judged["answers"]] == [["pay"], []]
        assert 0 <= judged["micro_f1"] <= 1
        assert "all labels right of" in run(capsys, "predict", task, "asked.jsonl", "--labelled")
        more = ["adapt", f"runs/{learner}", "more.jsonl", "--from", task, "--out", task]
        assert "make it a new class" in run(capsys, *more, code=1)
        run(capsys, *more, "--new-classes")
        assert load_task(task, load_artifact(f"runs/{learner}")).class_names == [
            "card",
            "pay",
            "pin",
        ]
        assert "learned from support.jsonl, line 1 itself" in run(
            capsys, "predict", task, "support.jsonl", "--labelled", code=1
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    nlupp(folder / "nlupp")
    lines(folder / "one.jsonl", [{"text": f"{i}", "label": f"{i % 8}"} for i in range(80)])
    words = ["train", "--data", f"nlupp:{folder / 'nlupp'}", "--steps", "1", *SETTINGS]
    assert main([*words, "--learner", "protonet", "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "RUN", "--report", "a.html"], "--report is not for a model that gives"),
        (["evaluate", "RUN", "--unknown"], "Only a learner of classes"),
        (["evaluate", "RUN", "--data", "text:ONE"], "but examples of text have one class"),
        (["compare", "RUN"], "compare is not for a model that gives an example any number"),
        (["export", "RUN", "--to", "a.onnx"], "export is not for a model"),
        (
            ["adapt", "RUN", "ONE", "--unlabelled", "ONE", "--out", "a.task"],
            "--unlabelled is not for a model that gives",
        ),
        (
            ["train", "--data", "DATA", "--learner", "matching", "--dry-run"],
            "choose a learner of many labels: protonet, linear_head.",
        ),
        (
            ["train", "--data", "DATA", "--dry-run", "--set", "learner.labels=one"],
            "was given labels=one, but an example of",
        ),
        (
            ["train", "--data", "text:ONE", "--dry-run", "--set", "learner.labels=many"],
            "was given labels=many, but an example of",
        ),
    ],
)
def test_who_says_no(
    trained: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": "run", "ONE": "one.jsonl", "DATA": "nlupp"}
    line = []
    for word in words:
        for name, place in places.items():
            path = f"nlupp:{trained / place}" if name == "DATA" else str(trained / place)
            word = word.replace(name, path)
        line.append(word)
    if words[0] == "train" and "--learner" not in words:
        line += ["--learner", "protonet"]
    assert main(line) in (1, 2)
    assert said in " ".join("".join(capsys.readouterr()).split())


def test_labels_of_the_wrong_kind_are_refused(trained: Path) -> None:
    model = load_artifact(trained / "run")
    x = model.learner.encoder.tokenize(["a", "b"])
    with pytest.raises(ArtifactError, match="predicts a list of labels for a query"):
        extend(model, None, x, ["pay", "card"])
    with pytest.raises(ArtifactError, match="Found no label; a task needs at least 2"):
        extend(model, None, x, [[], []])
    with pytest.raises(ValueError, match="gives an example any number of labels, and a FewShot"):
        FewShotClassifier(model).fit(["a", "b"], ["pay", "card"])
