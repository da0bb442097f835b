"""The report in a real browser: it is complete, and asks no host for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from quickstudy.artifact import Artifact
from quickstudy.build import build_source
from quickstudy.config import RunConfig
from quickstudy.data.draw import EpisodeDesign
from quickstudy.evaluation import contest_of, evaluate
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import ImageEncoder
from quickstudy.report import write_report

pytestmark = pytest.mark.browser

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.mark.parametrize("width", [1280, 400])
def test_report_is_drawn(width: int, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), "")
    assert browser, "install Chromium (apt-get install chromium) to run these tests"
    torch.manual_seed(0)
    learner = ProtoNet(ImageEncoder(16)).eval()
    artifact = Artifact(learner, RunConfig(), {}, id="untrained", path=None)
    source = build_source("glyphs")
    contest = contest_of(learner, source)
    design = EpisodeDesign(5, 1, 5)
    scores = evaluate(learner, source, design=design, episodes=8, contest=contest)
    page = tmp_path / "report.html"
    write_report(
        page, artifact=artifact, evaluations=[scores], source=source, contest=contest, episodes=4
    )
    assert not re.search(r"(?:src|href)=[\"']?https?:", page.read_text(encoding="utf-8"))
    shot = tmp_path / "report.png"
    done = subprocess.run(
        [
            *(browser, *QUIET, f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},2000", f"--screenshot={shot}", page.as_uri()),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert b"Refused" not in done.stderr
    from PIL import Image

    colours = Image.open(shot).convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 100, "the page came out empty"
