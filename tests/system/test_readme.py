"""What README tells a newcomer to type, typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from quickstudy.artifact import save_artifact
from quickstudy.cli import main
from quickstudy.config import RunConfig
from quickstudy.data.glyphs import GlyphSource
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import ImageEncoder

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
MADE_BY_OTHERS = ("make", "pip")
"""Commands that are no business of a test in an environment that is set up already."""


def picture(file: Path, pixels: torch.Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - pixels[0].numpy()).save(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README speaks of: the demo's artifact, a folder of photos, a folder of letters."""
    folder = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    save_artifact(folder / "runs/demo/artifact", ProtoNet(ImageEncoder().eval()), RunConfig(), {})
    pool = GlyphSource().pool("test")
    for name, which in (("sun", 0), ("moon", 1)):
        for number in range(3):
            picture(folder / "photos" / name / f"{number + 1}.png", pool.of_class(which)[number])
    picture(folder / "new.png", pool.of_class(0)[5])
    for which in range(30):
        for number in range(8):
            file = folder / "letters" / f"letter{which}" / f"{number}.png"
            picture(file, pool.of_class(which)[number])
    return folder


def test_the_blocks_are_found() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "python", "python", "python", "sh", "sh", "sh"]


@pytest.mark.usefixtures("short_reports")
@pytest.mark.parametrize("block", [text for kind, text in BLOCKS if kind == "sh"])
def test_commands(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for line in block.strip().splitlines():
        program, *words = shlex.split(line)
        if program in MADE_BY_OTHERS:
            continue
        assert program == "quickstudy"
        assert main(words) == 0, line


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for _, block in BLOCKS:
        for target in re.findall(r"^make (\S+)", block, re.M):
            assert f"\n{target}:" in makefile


def test_python(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, "README.md", "exec"), {})
    said = capsys.readouterr().out
    *probabilities, accuracy = [float(p) for p in re.findall(r"[\d.]+", said)]
    assert said.endswith("['delivery']\n")
    assert len(probabilities) == 2
    assert abs(sum(probabilities) - 1) < 1e-3
    assert accuracy > 0.9


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
