"""Bad input through the real command: the right exit code, one clear sentence, nothing lost, no traceback."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.artifact import save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.config import parse_config

Capture = pytest.CaptureFixture[str]

SMALL_IMAGES = {"name": "image", "width": 16, "layers": 1, "heads": 2}
NUMBERS = {"name": "vector", "inputs": 4, "width": 8, "layers": 1}


def draw(folder: Path, seed: int, count: int) -> None:
    """Pictures that differ from one another."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 28, 28), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{number}.png")


def save_model(
    path: Path, data: str, encoder: dict[str, object], learner: dict[str, object]
) -> None:
    """An artifact with random weights: bad input does not depend on training."""
    config = parse_config({"data": data, "encoder": encoder, "learner": learner})
    torch.manual_seed(0)
    save_artifact(path, build_learner(config.learner, config.encoder), config, {})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: images (and its data set), other, numbers, bank."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(["cat", "dog", "emu", "fox", "gnu", "owl", "rat", "yak"]):
        draw(folder / "animals" / name, seed, 4 if name == "owl" else 8)
    data = f"images:{folder / 'animals'},test=1"
    save_model(folder / "images", data, SMALL_IMAGES, {"name": "protonet"})
    save_model(folder / "other", data, SMALL_IMAGES, {"name": "ridge"})
    save_model(folder / "numbers", "toy", NUMBERS, {"name": "protonet"})
    few = {"name": "in_context", "width": 8, "layers": 1, "heads": 2, "bank": 3}
    save_model(folder / "bank", data, SMALL_IMAGES, few)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in that holds a support set of pictures."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "support" / "sun", 20, 3)
    draw(tmp_path / "support" / "moon", 21, 3)
    return tmp_path


def refused(capsys: Capture, code: int, *words: object) -> str:
    """The sentence with which a command is refused."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert shown.err.endswith(".\n")
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    assert "--debug" not in shown.err
    return shown.err


def begin(model: Path, support: object = "support", out: str = "known.task") -> bytes:
    """Adapt to a good support set; the bytes of the task."""
    assert main(["adapt", str(model), str(support), "--out", out]) == 0
    return Path(out).read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no image", "cannot be read"), (b"", "is empty"), (None, "cannot be read")],
    ids=["no image", "empty", "truncated"],
)
def test_a_picture_that_cannot_be_read(
    here: Path, models: Path, capsys: Capture, content: bytes | None, reason: str
) -> None:
    bad = here / "support" / "sun" / "1.png"
    bad.write_bytes(bad.read_bytes()[:300] if content is None else content)
    text = refused(capsys, 1, "adapt", models / "images", "support", "--out", "new.task")
    assert "1.png" in text
    assert reason in text
    assert not Path("new.task").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["table.csv", "empty"]),
        (b"a,b\n1,2\n3,4\n", ["table.csv", "'label'"]),
        (b"a,b,label\n1,2,x\n3,4,x\n", ["one class", "'x'", "at least 2"]),
        ("a,label\n1,caf\xe9\n2,x\n".encode("latin-1"), ["table.csv", "UTF-8"]),
        (b"a,label\n1,x\ntwo,y\n", ["line 3", "'two'", "number"]),
    ],
    ids=["empty", "column", "one class", "encoding", "number"],
)
def test_a_table_that_cannot_be_used(
    here: Path, models: Path, capsys: Capture, content: bytes, words: list[str]
) -> None:
    (here / "table.csv").write_bytes(content)
    text = refused(capsys, 1, "adapt", models / "numbers", "table.csv", "--out", "new.task")
    assert all(word in text for word in words)
    assert not Path("new.task").exists()


def test_one_class_only(here: Path, models: Path, capsys: Capture) -> None:
    shutil.rmtree(here / "support" / "moon")
    text = refused(capsys, 1, "adapt", models / "images", "support", "--out", "new.task")
    assert "'sun'" in text
    assert "at least 2" in text


def test_an_example_with_two_labels(here: Path, models: Path, capsys: Capture) -> None:
    shutil.copy(here / "support" / "sun" / "0.png", here / "support" / "moon" / "same.png")
    text = refused(capsys, 1, "adapt", models / "images", "support", "--out", "new.task")
    assert all(word in text for word in ("'sun'", "'moon'", "same.png"))


def test_no_support_at_all(here: Path, models: Path, capsys: Capture) -> None:
    text = refused(capsys, 1, "adapt", models / "images", "nowhere", "--out", "new.task")
    assert "nowhere" in text


def test_a_class_with_too_few_examples(here: Path, models: Path, capsys: Capture) -> None:
    text = refused(
        capsys, 1, "evaluate", models / "images", "--way", 8, "--shot", 2, "--queries", 3
    )
    for word in ("8 classes", "'owl'", "with 4", "largest way is 8", "largest shot 1"):
        assert word in text


def test_examples_that_the_task_learned_from_do_not_test_it(
    here: Path, models: Path, capsys: Capture
) -> None:
    begin(models / "images")
    draw(here / "held-out" / "sun", 30, 2)
    shutil.copy(here / "support" / "moon" / "0.png", here / "held-out" / "sun" / "seen.png")
    text = refused(capsys, 1, "predict", "known.task", "held-out", "--labelled")
    assert "seen.png" in text
    assert "learned from" in text
    assert main(["predict", "known.task", "held-out/sun/seen.png"]) == 0


def test_a_label_that_does_not_exist(here: Path, models: Path, capsys: Capture) -> None:
    before = begin(models / "images")
    draw(here / "held-out" / "star", 30, 1)
    text = refused(capsys, 1, "predict", "known.task", "held-out", "--labelled")
    assert "'star'" in text
    assert "moon, sun" in text
    text = refused(
        capsys,
        1,
        *("adapt", models / "images", "held-out", "--from", "known.task", "--out", "known.task"),
    )
    assert "'star'" in text
    assert "moon, sun" in text
    assert Path("known.task").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--set", "training.stepz=3"], ["'training.stepz'", "steps, minutes, rate"]),
        (["--set", "learner.temprature=3"], ["'temprature'", "temperature"]),
        (["--set", "learner.temperature=warm"], ["'temperature'", "a number", "'warm'"]),
        (["--set", "learner.temperature=-1"], ["positive", "-1"]),
        (["--set", "training.rate"], ["key=value", "'training.rate'"]),
        (["--learner", "protonett"], ["'protonett'", "protonet"]),
        (["--encoder", "pixels"], ["'pixels'", "image, raw, several, table, text, vector, words"]),
        (
            ["--data", "glyph"],
            ["'glyph'", "glyphs, hidden_words, huffpost, images, leopard, linear, logistic"],
        ),
        (["--data", "glyphs,colour=3"], ["'colour'", "rotations"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "cannot be read"]),
        (["--config", "wrong.yaml"], ["'epizode'", "episode"]),
    ],
)
def test_a_name_or_key_that_does_not_exist(
    here: Path, capsys: Capture, words: list[str], right: list[str]
) -> None:
    Path("wrong.yaml").write_text("epizode: {way: 5}\n")
    text = refused(capsys, 2, "train", *words, "--out", "run")
    assert all(word in text for word in right)
    assert not Path("run").exists()


def test_a_way_above_the_bank_is_answered(here: Path, models: Path) -> None:
    words = ["evaluate", models / "bank", "--way", 5, "--shot", 1, "--episodes", 3]
    assert main([str(word) for word in words]) == 0
    for seed, name in enumerate(["star", "comet"]):
        draw(here / "support" / name, seed, 1)
    words = ["adapt", models / "bank", "support", "--out", "new.task"]
    assert main([str(word) for word in words]) == 0


def test_data_of_another_kind(here: Path, models: Path, capsys: Capture) -> None:
    text = refused(capsys, 2, "evaluate", models / "images", "--data", "text:a.csv")
    assert "reads examples of the kind image" in text


@pytest.mark.parametrize("command", ["evaluate", "adapt", "predict"])
@pytest.mark.parametrize("damage", ["truncated", "edited", "config", "no weights", "gone"])
def test_a_damaged_artifact(
    here: Path, models: Path, capsys: Capture, command: str, damage: str
) -> None:
    model = here / "model"
    shutil.copytree(models / "images", model)
    before = begin(model)
    weights, config = model / "model.safetensors", model / "config.json"
    content = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(content[:-100])
    elif damage == "edited":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "config":
        config.write_text(config.read_text().replace('"heads": 2', '"heads": 4'))
    elif damage == "no weights":
        weights.unlink()
    else:
        shutil.rmtree(model)
    words = {
        "evaluate": ["evaluate", model],
        "adapt": ["adapt", model, "support", "--from", "known.task", "--out", "known.task"],
        "predict": ["predict", "known.task", "support/sun/0.png"],
    }[command]
    assert "model" in refused(capsys, 1, *words)
    assert Path("known.task").read_bytes() == before


@pytest.mark.parametrize("damage", ["truncated", "edited", "no task", "gone"])
def test_a_damaged_task(here: Path, models: Path, capsys: Capture, damage: str) -> None:
    task = here / "known.task"
    content = begin(models / "images")
    if damage == "gone":
        task.unlink()
    else:
        task.write_bytes(
            {
                "truncated": content[:-10],
                "edited": content[:-1] + bytes([content[-1] ^ 1]),
                "no task": b"no task",
            }[damage]
        )
    text = refused(capsys, 1, "predict", task, "support/sun/0.png")
    assert "known.task" in text
    assert "quickstudy adapt" in text


def test_a_task_of_another_model(here: Path, models: Path, capsys: Capture) -> None:
    before = begin(models / "images")
    text = refused(
        capsys, 1, "predict", "known.task", "support/sun/0.png", "--artifact", models / "other"
    )
    assert "adapted with the artifact" in text
    text = refused(
        capsys, 1, "adapt", models / "other", "support", "--from", "known.task", "--out", "b.task"
    )
    assert "adapted with the artifact" in text
    assert Path("known.task").read_bytes() == before


def test_a_task_is_overwritten_only_when_asked(here: Path, models: Path, capsys: Capture) -> None:
    before = begin(models / "images")
    draw(here / "support" / "sun", 40, 5)
    words = ("adapt", models / "images", "support", "--out", "known.task")
    text = refused(capsys, 2, *words)
    assert "--replace" in text
    assert Path("known.task").read_bytes() == before
    assert main([*map(str, words), "--replace"]) == 0
    assert Path("known.task").read_bytes() != before


def test_a_full_disk_while_saving(here: Path, models: Path, capsys: Capture) -> None:
    before = begin(models / "images")
    files = sorted(each.name for each in here.iterdir())
    draw(here / "more" / "sun", 41, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system then refuses to let any file of this process grow beyond 100 bytes.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        text = refused(
            capsys,
            1,
            *("adapt", models / "images", "more", "--from", "known.task", "--out", "known.task"),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "known.task cannot be saved" in text
    assert "intact" in text
    assert Path("known.task").read_bytes() == before
    assert sorted(each.name for each in here.iterdir()) == sorted([*files, "more"])


def test_an_input_that_is_not_there(here: Path, models: Path, capsys: Capture) -> None:
    begin(models / "images")
    assert "nothing.png" in refused(capsys, 1, "predict", "known.task", "nothing.png")


def test_the_real_process_says_the_same(here: Path, models: Path) -> None:
    (here / "support" / "sun" / "1.png").write_bytes(b"no image")
    words = ["adapt", str(models / "images"), "support", "--out", "new.task"]
    done = subprocess.run(
        [sys.executable, "-m", "quickstudy", *words], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: The image support/sun/1.png cannot be read")
    assert done.stderr.count("\n") == 1


def test_answers_with_and_without_labels(here: Path, models: Path, capsys: Capture) -> None:
    begin(models / "images")
    draw(here / "held-out" / "sun", 30, 2)
    draw(here / "held-out" / "moon", 31, 1)
    capsys.readouterr()
    assert main(["predict", "known.task", "held-out", "--labelled", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["moon", "sun"]
    assert [row["truth"] for row in found["answers"]] == ["moon", "sun", "sun"]
    assert found["accuracy"] == pytest.approx(found["right"] / 3)
    for row in found["answers"]:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["probability"] == max(row["probabilities"].values())
    assert main(["predict", "known.task", "held-out/sun", "held-out/moon/0.png", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in plain["answers"]] == [
        found["answers"][i]["label"] for i in (1, 2, 0)
    ]
    assert "accuracy" not in plain


def test_what_is_no_task_is_never_replaced(here: Path, models: Path, capsys: Capture) -> None:
    table = here / "table.csv"
    table.write_text("a,b,c,d,label\n1,2,3,4,x\n5,6,7,8,y\n")
    before = table.read_bytes()
    text = refused(capsys, 2, "adapt", models / "numbers", table, "--out", table, "--replace")
    assert "holds what is to be learned from and is not overwritten" in text
    notes = here / "notes.md"
    notes.write_text("mine")
    text = refused(capsys, 2, "adapt", models / "numbers", table, "--out", notes, "--replace")
    assert "notes.md is no task and is not overwritten" in text
    text = refused(capsys, 2, "adapt", models / "numbers", table, "--out", here, "--replace")
    assert "is a folder, and a task is a file" in text
    task = begin(models / "numbers", table)
    text = refused(capsys, 1, "predict", "known.task", table, "--log", table)
    assert "holds something else than feedback, and nothing is written to it" in text
    assert table.read_bytes() == before
    assert notes.read_text() == "mine"
    assert (
        main(["adapt", str(models / "numbers"), str(table), "--out", "known.task", "--replace"])
        == 0
    )
    assert Path("known.task").read_bytes() == task


def test_columns_in_another_order_are_the_same_table(
    here: Path, models: Path, capsys: Capture
) -> None:
    rows = [f"{i},{10 - i},{i % 3},{i * i},{'xy'[i % 2]}" for i in range(8)]
    (here / "a.csv").write_text("\n".join(["a,b,c,d,label", *rows]) + "\n")
    turned = [",".join([*reversed(row.split(",")[:4])]) for row in rows]
    (here / "b.csv").write_text("\n".join(["d,c,b,a", *turned]) + "\n")
    (here / "c.csv").write_text("a,b,c\n1,2,3\n")
    begin(models / "numbers", "a.csv")
    capsys.readouterr()
    answers = []
    for table in ("a.csv", "b.csv"):
        assert main(["predict", "known.task", table, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)["answers"]
        answers.append([each["probabilities"] for each in said])
    assert answers[0] == answers[1]
    assert "there is no column 'd'" in refused(capsys, 1, "predict", "known.task", "c.csv")


def test_a_file_is_no_model(here: Path, models: Path, capsys: Capture) -> None:
    begin(models / "images")
    text = refused(capsys, 1, "evaluate", "known.task")
    assert "known.task is a file, and a model is a folder; name the folder" in text


def test_a_rival_reads_what_the_model_reads(here: Path, models: Path, capsys: Capture) -> None:
    text = refused(capsys, 2, "evaluate", models / "images", "--against", models / "numbers")
    assert "reads examples of the kind image" in text
    assert "reads vector; name one in --against that reads the same" in text


def test_nothing_is_trained_by_a_mistyped_folder(here: Path, capsys: Capture) -> None:
    text = refused(capsys, 2, "train", "--out", here / "none", "--resume")
    assert "There is no run in" in text
    assert "say what to train, by --data or --config" in text
    assert not (here / "none").exists()
    (here / "file").write_text("mine")
    text = refused(capsys, 2, "train", "--out", here / "file")
    assert "is a file, and a run is a folder" in text
    assert "'anil'" in refused(capsys, 2, "train", "--print-config", "--set", "learner=anil")
    (here / "run.yaml").write_text("learner: 3\n")
    text = refused(capsys, 2, "train", "--config", here / "run.yaml", "--out", "new")
    assert "run.yaml: The configuration's learner must be a name" in text
