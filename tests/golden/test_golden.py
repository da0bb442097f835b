"""Outputs of each learner as they were: a change of any of them must be meant.

Write them anew, after a change that is meant, with ``python tests/golden/test_golden.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from learner_table import ROWS, Row, TokenEncoder, with_labels, with_unlabelled
from quickstudy.episode import Episode, Task, collate

GOLDEN = Path(__file__).with_name("outputs.json")


def episode(values: int = 0, *, many: bool = False, bare: bool = False) -> Episode:
    """Two ragged tasks of images that no generator has to remember; with ``values``, of so many numbers each.

    Some of their examples have no label, if they are ``bare``.
    """

    def images(count: int, start: float) -> torch.Tensor:
        waves = np.sin(start + np.arange(count * 256) * 0.7) / 2 + 0.5
        return torch.from_numpy(waves.reshape(count, 1, 16, 16))

    def numbers(count: int, width: int, start: float) -> torch.Tensor:
        return torch.from_numpy(np.sin(start + np.arange(count * width)).reshape(count, width))

    def task(way: int, shot: int, start: float) -> Task:
        labels = torch.arange(way).repeat(shot)
        asked = torch.arange(way)
        if values:
            labels, asked = (numbers(len(each), values, start) for each in (labels, asked))
        support, query = images(way * shot, start), images(way, start + 1)
        made = Task(support, labels, query, asked, values or way)
        if bare:
            made = with_unlabelled(made, 2)
        return with_labels(made) if many else made

    return collate([task(3, 2, 0.0), task(2, 1, 5.0)])


def outputs(row: Row) -> list:
    """Outputs and loss of a learner whose weights come from a formula."""
    learner = row.build(TokenEncoder()).double().eval()
    with torch.no_grad():
        for place, tensor in enumerate(learner.state_dict().values()):
            waves = 0.5 * np.sin(1 + place + 1.3 * np.arange(tensor.numel()))
            tensor.copy_(torch.from_numpy(waves).reshape(tensor.shape))
    batch = episode(row.values, many=row.many, bare=row.bare)
    state = learner.adapt(batch.support, batch.context)
    answers = learner.predict(state, batch.query.x, batch.context).detach()
    return [answers.flatten().tolist(), learner(batch).item()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_outputs_are_as_they_were(row: Row) -> None:
    expected = json.loads(GOLDEN.read_text())[row.label]
    for own, old in zip(outputs(row), expected, strict=True):
        np.testing.assert_allclose(own, old, rtol=1e-7, atol=1e-9)


def test_no_learner_is_missing() -> None:
    assert set(json.loads(GOLDEN.read_text())) == {row.label for row in ROWS}


if __name__ == "__main__":
    lines = [f"{json.dumps(row.label)}: {json.dumps(outputs(row))}" for row in ROWS]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
