"""What docs/how-to/streams.md claims is in the committed benchmark."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = " ".join((ROOT / "docs/how-to/streams.md").read_text(encoding="utf-8").split())
FOUND = json.loads((ROOT / "benchmarks/results/streams.json").read_text(encoding="utf-8"))
COLUMNS = ("with_memory", "without_memory", "exact_remembering", "exact_forgetting")


def test_the_table_is_the_benchmark() -> None:
    for each in FOUND["test"]["positions"]:
        cells = [f"{each[name]['mean']:.3f} ± {each[name]['ci95']:.3f}" for name in COLUMNS]
        row = f"| {each['position']} | {' | '.join(cells)} |"
        assert (row in TEXT) == (each["position"] in (1, 2, 5, 10)), row


def test_the_sentence_is_the_benchmark() -> None:
    closed = FOUND["gap_closed_at_the_last_task"]
    share = f"{100 * closed['mean']:.0f} ± {100 * closed['ci95']:.0f}"
    with_memory, without = (FOUND[f"error_change_{name}_memory"] for name in ("with", "without"))
    said = (
        f"at the tenth task the error differs from that at the first by {100 * with_memory:+.0f} % with memory and by "
        f"{100 * without:+.0f} % without, and memory closes {share} % of the gap"
    )
    assert said in TEXT, said
    assert f"{FOUND['training_processor_seconds'] / 60:.0f} minutes of one core" in TEXT
