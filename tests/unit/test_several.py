"""Examples of several parts: encoders, records, and the way from training to an answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.artifact import load_artifact
from quickstudy.build import BuildError, build_encoder
from quickstudy.cli import main
from quickstudy.data.draw import EpisodeDesign, Episodes
from quickstudy.data.items import RecordSource
from quickstudy.data.source import DataError
from quickstudy.episode import leaves
from quickstudy.nn.several import SeveralEncoders

PARTS = {
    "image": {"name": "image", "width": 8, "size": 8, "heads": 2},
    "text": {"name": "words", "width": 8, "buckets": 64},
    "numbers": {"name": "vector", "inputs": 2, "width": 8, "layers": 1},
}
KINDS = ("fox", "owl", "elm", "oak", "ray", "eel", "ant", "bee", "cod")


def encoder(**options: object) -> SeveralEncoders:
    torch.manual_seed(0)
    made = build_encoder({"name": "several", "parts": PARTS, "width": 8, "heads": 2, **options})
    assert isinstance(made, SeveralEncoders)
    return made


def batch() -> dict[str, torch.Tensor]:
    images = torch.randint(1, 255, (4, 1, 8, 8), dtype=torch.uint8)
    text = encoder().part("text").tokenize(["red fox", "grey wolf", "", "owl"])  # type: ignore[operator]
    return {"image": images, "text": text, "numbers": torch.randn(4, 2)}


@pytest.mark.parametrize("layers", [0, 1])
def test_each_part_counts_and_what_is_not_there_does_not(layers: int) -> None:
    several, x = encoder(layers=layers), batch()
    found = several(x)
    assert found.shape == (4, 8)
    for name in PARTS:
        changed = {**x, name: x[name].flip(0)}
        assert not torch.allclose(several(changed)[0], found[0])
    # The third has no text: whatever the encoder of texts would say of it is masked.
    with torch.no_grad():
        for value in several.part("text").parameters():
            value.add_(0.5)
    again = several(x)
    torch.testing.assert_close(again[2], found[2])
    assert not torch.allclose(again[0], found[0])


def test_an_example_of_nothing_is_finite_and_so_is_its_gradient() -> None:
    several, x = encoder(), batch()
    x["image"][0], x["text"][0], x["numbers"][0] = 0, -1, torch.nan
    x["numbers"][1, 0] = torch.nan
    found = several(x)
    found.square().sum().backward()
    assert found.isfinite().all()
    for parameter in several.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_wrong_parts_are_named() -> None:
    with pytest.raises(
        ValueError, match="Found image, but examples for this encoder have the parts"
    ):
        encoder()({"image": batch()["image"]})
    with pytest.raises(BuildError, match="needs parts, such as"):
        build_encoder({"name": "several"})
    with pytest.raises(BuildError, match="no encoder named 'nose'"):
        build_encoder({"name": "several", "parts": {"smell": {"name": "nose"}}})


def write(path: Path, kinds: tuple[str, ...], each: int, *, seed: int = 0) -> str:
    """Creatures: a picture of stripes, a word or two, and two numbers; some cells are empty."""
    rows = []
    generator = np.random.default_rng(seed)
    for kind in kinds:
        place = KINDS.index(kind)
        for i in range(each):
            pixels = generator.integers(0, 90, (8, 8)).astype(np.uint8)
            pixels[place % 8] = 255
            file = path.parent / f"{path.stem}-{kind}-{i}.png"
            Image.fromarray(pixels).save(file)
            numbers = generator.normal([place, -place], 0.2)
            row = {"image": file.name, "text": f"a {kind} no {seed}{i}", "label": kind}
            row |= {"length": f"{numbers[0]:.3f}", "weight": f"{numbers[1]:.3f}"}
            row[("image", "text", "length")[i % 3]] = ""
            rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_records_become_tasks_of_several_parts(tmp_path: Path) -> None:
    source = RecordSource(write(tmp_path / "a.csv", KINDS, 6), size=8, invert="no")
    assert {name: each["name"] for name, each in source.encoders.items()} == {
        "image": "image", "text": "words", "numbers": "vector",
    }  # fmt: skip
    source.prepare(encoder())
    pool = source.pool("train")
    assert int((pool.x["image"].flatten(1) == 0).all(1).sum()) == 2 * pool.classes
    assert int(pool.x["numbers"].isnan().any(1).sum()) == 2 * pool.classes
    tasks = Episodes(source, "train", EpisodeDesign(2, 1, 2), tasks=3, augment=True)[0]
    assert [leaf.shape[:2] for leaf in leaves(tasks.support.x)] == [(3, 2)] * 3
    assert tasks.context.names.shape[2] == 3
    with pytest.raises(DataError, match="RawThing takes one kind of example"):
        source.prepare(type("RawThing", (), {})())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\na\nb\n", "expected image"),
        ("text,size,label\nx,big,a\ny,1,b\n", "found 'big' in the column 'size'"),
        ("image,label\nno.png,a\nno.png,b\n", "no.png"),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        RecordSource(str(tmp_path / "a.csv"))


def test_from_training_to_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "creatures.csv", KINDS, 6)
    run, task = str(tmp_path / "run"), str(tmp_path / "new.task")
    words = ["train", "--data", f"records:{data},size=8,invert=no", "--learner", "meta_transformer"]
    for setting in (
        *("learner.names=true", "learner.width=8", "learner.heads=2", "encoder.width=8"),
        *("encoder.heads=2", "episode.way=2", "episode.shot=[0, 1]", "episode.queries=2"),
        *("validation.way=2", "validation.queries=1", "validation.episodes=4"),
    ):
        words += ["--set", setting]
    assert main([*words, "--steps", "3", "--out", run]) == 0
    assert set(load_artifact(run).config.encoder["parts"]) == {"image", "text", "numbers"}
    asked = ["evaluate", run, "--way", "2", "--shot", "0", "--queries", "1", "--episodes", "4"]
    assert main([*asked, "--json"]) == 0
    capsys.readouterr()
    assert main([*asked[:5], "1", *asked[6:], "--json", "--report", str(tmp_path / "a.html")]) == 0
    assert json.loads(capsys.readouterr().out)["shot"] == 1
    support = write(tmp_path / "support.csv", ("fox", "elm"), 3, seed=1)
    queries = write(tmp_path / "queries.csv", ("fox", "elm"), 3, seed=2)
    assert main(["adapt", run, support, "--out", task]) == 0
    assert main(["predict", task, queries, "--labelled", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert len(answers["answers"]) == 6
    log = str(tmp_path / "log.jsonl")
    for logged in (["correct", task, queries, "fox"], ["predict", task, queries]):
        assert main([*logged, "--log", log]) == 2
        assert "reads records of several parts" in capsys.readouterr().err
    assert not Path(log).exists()
    named = str(tmp_path / "named.task")
    assert (
        main(["adapt", run, "--classes", "fox, elm", "--describe", "creatures", "--out", named])
        == 0
    )
    capsys.readouterr()
    (tmp_path / "text.csv").write_text("text\na fox\nan elm\n")
    assert main(["predict", named, str(tmp_path / "text.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["fox", "elm"]
