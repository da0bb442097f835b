"""Scores by position: a learner that is exact closes all of the gap, one that forgets none, and both are paired."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from quickstudy.artifact import Artifact
from quickstudy.config import parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.streams import Streams
from quickstudy.evaluation.streams import evaluate_streams, gap_closed
from quickstudy.learners import ProtoNet
from quickstudy.learners.streams import stream_outputs
from quickstudy.nn.encoders import RawEncoder
from quickstudy.report.streams import along_streams
from recollecting import Levels, Recollecting

DESIGN = EpisodeDesign(1, 2, 6)


def scored(trust: float, **more: Any) -> dict[str, Any]:
    learner = Recollecting()
    torch.nn.init.constant_(learner.trust, trust)
    return evaluate_streams(learner, Levels(), design=DESIGN, positions=4, streams=40, **more)


def test_a_learner_that_is_exact_closes_the_whole_gap() -> None:
    found = scored(1.0)
    first, *later = found["positions"]
    assert first["gap_closed"] is None
    assert first["difference"] == {"mean": 0.0, "ci95": 0.0}
    for each in later:
        assert each["gap_closed"]["mean"] == pytest.approx(1, abs=1e-5)
        assert each["with_memory"]["mean"] == pytest.approx(each["exact_remembering"]["mean"])
        assert each["without_memory"]["mean"] == pytest.approx(each["exact_forgetting"]["mean"])
        assert each["difference"]["mean"] < 0
    last = found["last_against_first"]["with_memory"]
    scores = [each["with_memory"]["mean"] for each in found["positions"]]
    assert last["difference"] == pytest.approx(scores[-1] - scores[0])
    assert last["relative"] == pytest.approx(scores[-1] / scores[0] - 1)
    assert json.loads(json.dumps(found)) == found


def test_a_memory_that_nobody_uses_closes_nothing() -> None:
    for each in scored(0.0)["positions"][1:]:
        assert each["gap_closed"]["mean"] == pytest.approx(0, abs=1e-5)
        assert each["difference"] == {"mean": 0.0, "ci95": 0.0}


def test_scores_are_those_of_the_streams_of_the_seed_however_many_go_together() -> None:
    found, learner = scored(0.3, seed=3), Recollecting()
    draws = Streams(Levels(), "test", DESIGN, positions=4, length=40, seed=3)
    errors = []
    with torch.no_grad():
        for index in range(40):
            *_, (episode, outputs) = stream_outputs(learner, draws[index])
            errors.append((outputs - episode.query.y).square().mean())
    assert found["positions"][3]["with_memory"]["mean"] == pytest.approx(
        float(torch.stack(errors).mean())
    )


def test_the_interval_of_the_share_covers_as_often_as_it_says() -> None:
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        gap, noise = torch.randn(2, 50, generator=generator)
        found = gap_closed(0.6 * (2 + gap) + 0.5 * noise, 2 + gap)
        assert found is not None
        held += abs(found["mean"] - 0.6) <= found["ci95"]
    assert 0.92 <= held / 400 <= 0.98


def test_no_share_is_told_of_a_gap_that_cannot_be_told() -> None:
    assert gap_closed(torch.ones(4), torch.tensor([1.0, -1.0, 1.0, -1.0])) is None


def test_a_learner_without_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="has no memory: it begins every task anew"):
        evaluate_streams(ProtoNet(RawEncoder(1)), Levels(), design=DESIGN, positions=2, streams=2)
    with pytest.raises(ValueError, match="at least 2 streams of at least 2 tasks; found 2 of 1"):
        evaluate_streams(Recollecting(), Levels(), design=DESIGN, positions=1, streams=2)


def test_the_report_shows_scores_by_position_of_who_was_trained_on_streams() -> None:
    scores = {"way": 1, "shot": 2, "queries": 6, "within_group": False, "split": "test", "seed": 0}
    for stream, shown in ((4, True), (1, False)):
        config = parse_config({"data": "levels", "episode": {"stream": stream}})
        model = Artifact(Recollecting().eval(), config, {}, "untrained", None)
        sections = along_streams(model, Levels(), scores, streams=5)
        assert bool(sections) == shown
        for text in ("Task after task", "5 streams of 4 tasks", "exact remembering", "<svg"):
            assert (text in "".join(sections)) == shown
