"""The figures that README claims are those of the committed benchmarks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def figures(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def percent(score: dict[str, float]) -> str:
    return f"{100 * score['mean']:.1f} ± {100 * score['ci95']:.1f}"


@pytest.mark.parametrize("data", ["glyphs", "omniglot"])
def test_the_table_is_the_benchmark(data: str) -> None:
    scores = figures("glyphs")["runs"][0]["scores"][data]
    for shape, score in scores.items():
        pixels = score["baselines"]["nearest_mean_raw_inputs"]
        row = re.search(
            rf"^\| [^|]*\| {re.escape(shape)} \|.*{re.escape(percent(score))}.*$", README, re.M
        )
        assert row, f"README has no row for {data} {shape}: {percent(score)}"
        assert percent(pixels) in row[0]


def test_every_result_has_its_script_and_machine() -> None:
    found = sorted(RESULTS.glob("*.json"))
    assert {file.stem for file in found} == {"first_run", "glyphs", "protonet_step", "sampling"}
    for file in found:
        assert (ROOT / "benchmarks" / f"{file.stem}.py").is_file()
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result["hardware"]["cores"]
        assert result["versions"]["torch"]
        assert not re.search(r"/(?:work|root|home|tmp)/", json.dumps(result))
