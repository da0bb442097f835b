"""``quickstudy compare`` through the real command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from quickstudy.artifact import save_artifact
from quickstudy.build import build_learner
from quickstudy.cli import main
from quickstudy.config import RunConfig

Capture = pytest.CaptureFixture[str]
INTENTS = f"text:{Path(__file__).parents[1] / 'data' / 'intents.csv'}"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig(
        data=INTENTS,
        learner={"name": "protonet", "names": True},
        encoder={"name": "text", "model": "minilm", "lora": 2},
    )
    folder = tmp_path_factory.mktemp("compared") / "artifact"
    with torch.random.fork_rng():
        save_artifact(
            folder, build_learner(config.learner, config.encoder), config, {}, whole=False
        )
    return folder


def test_a_model_is_compared_and_drawn(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    plot = tmp_path / "compared.svg"
    again = tmp_path / "again"
    shutil.copytree(artifact, again)
    words = ["compare", str(artifact), "--way", "3", "--shot", "2", "--episodes", "3"]
    assert main([*words, "--against", f"logreg,{again}", "--plot", str(plot), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["methods"]) == [str(artifact), "logreg", str(again)]
    assert (found["way"], found["shot"], found["episodes"]) == (3, 2, 3)
    assert found["methods"]["logreg"]["accuracy"]["mean"] > 0.6
    assert found["methods"][str(again)]["difference"] == {"mean": 0.0, "ci95": 0.0}
    drawn = plot.read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    assert "logreg" in drawn
    assert main([*words, "--against", "prototypes"]) == 0
    said = capsys.readouterr().out
    assert "3-way 2-shot, 3 tasks of the test split" in said
    assert "nearest class mean by MiniLM" in said
    assert "Against prototypes on the same tasks the difference is" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--against", "magic"], "no alternative named 'magic'; those known are logreg"),
        (["--against", "none/such"], "and the folder or the name of another model is one"),
        (["--against", "logreg,logreg"], "needs names, each once"),
        (["--plot", "a.pdf"], "drawn as .svg or .png; found a.pdf"),
        (["--data", "glyphs"], "reads examples of the kind text, but glyphs holds image"),
    ],
)
def test_what_cannot_be_compared(
    words: list[str], expected: str, artifact: Path, capsys: Capture
) -> None:
    assert main(["compare", str(artifact), *words]) == 2
    assert expected in capsys.readouterr().err


def test_only_models_that_read_texts_are_compared(
    artifact: Path, tmp_path: Path, capsys: Capture
) -> None:
    config = RunConfig(encoder={"name": "image", "width": 8, "layers": 1})
    images = tmp_path / "images"
    save_artifact(images, build_learner(config.learner, config.encoder), config, {})
    for words in ([str(images)], [str(artifact), "--against", str(images)]):
        assert main(["compare", *words]) == 2
        said = capsys.readouterr().err
        assert f"The model {images} reads examples of the kind image; compare is for" in said
