"""Scores by position: a learner that is exact closes all of the gap, one that forgets none, and both are paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quickstudy.artifact import Artifact
from quickstudy.config import parse_config
from quickstudy.data.design import EpisodeDesign
from quickstudy.data.source import Pool, PoolSource, Split
from quickstudy.data.streams import Streams
from quickstudy.evaluation.streams import evaluate_streams, gap_closed
from quickstudy.learners import MetaTransformer, ProtoNet
from quickstudy.learners.base import Learner
from quickstudy.learners.streams import stream_outputs
from quickstudy.nn.encoders import RawEncoder
from quickstudy.report import write_report
from quickstudy.report.streams import by_position, scored_along
from recollecting import Levels, Recollecting

DESIGN = EpisodeDesign(1, 2, 6)


class Memoryless(Recollecting):
    """Leaves nothing to the next task."""

    carry = Learner.carry


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


def test_others_answer_the_same_streams_each_with_its_own_memory() -> None:
    exact, forgetful = Recollecting(), Recollecting()
    torch.nn.init.constant_(exact.trust, 1.0)
    torch.nn.init.constant_(forgetful.trust, 0.0)
    found = scored(0.3, others={"exact": exact, "forgetful": forgetful, "memoryless": Memoryless()})
    alone = scored(0.3)
    for each, without in zip(found["positions"], alone["positions"], strict=True):
        others = each.pop("others")
        assert each == without
        for name, same in (("exact", "exact_remembering"), ("forgetful", "without_memory")):
            assert others[name]["mean"] == pytest.approx(each[same]["mean"])
        assert others["memoryless"]["mean"] == pytest.approx(each["without_memory"]["mean"])
        for other in others.values():
            gap = each["with_memory"]["mean"] - other["mean"]
            assert other["difference"]["mean"] == pytest.approx(gap)
    later = found["last_against_first"]
    assert set(later) == {"with_memory", "without_memory", "exact", "forgetful", "memoryless"}


class Columns(PoolSource):
    """Classes in several columns, of which an encoder is given as many as it reads."""

    kind = "vector"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(8, 3, generator=generator).repeat_interleave(6, 0)
        self.x += 0.3 * torch.randn(48, 3, generator=generator)
        self.read = 3

    def prepare(self, encoder: RawEncoder) -> None:
        self.read = encoder.width

    def pool(self, split: Split) -> Pool:
        names = [str(number) for number in range(8)]
        one = torch.zeros(8, dtype=torch.int64)
        return Pool(self.x[:, : self.read], torch.full((8,), 6), names, one, ["all"])


def test_others_read_the_streams_through_their_own_encoders() -> None:
    source, design = Columns(), EpisodeDesign(3, 1, 2)
    wide, narrow = ProtoNet(RawEncoder(3)), ProtoNet(RawEncoder(1))
    learner = MetaTransformer(RawEncoder(2), learner=ProtoNet, shape="none", width=8, heads=2)
    found = evaluate_streams(
        learner,
        source,
        design=design,
        positions=2,
        streams=5,
        others={"wide": wide, "narrow": narrow},
    )
    for name, other in (("wide", wide), ("narrow", narrow)):
        source.prepare(other.encoder)
        draws = Streams(source, "test", design, positions=2, length=5)
        right = [
            (outputs.argmax(-1) == episode.query.y).double().mean()
            for index in range(5)
            for episode, outputs in [*stream_outputs(other, draws[index])][1:]
        ]
        mean = found["positions"][1]["others"][name]["mean"]
        assert mean == pytest.approx(float(torch.stack(right).mean()))


def test_learners_with_other_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="mean_squared_error, letters by its accuracy"):
        scored(0.3, others={"letters": ProtoNet(RawEncoder(1))})


def test_the_report_shows_scores_by_position_of_who_was_trained_on_streams() -> None:
    scores = {"way": 1, "shot": 2, "queries": 6, "within_group": False, "split": "test", "seed": 0}
    for stream, shown in ((4, True), (1, False)):
        config = parse_config({"data": "levels", "episode": {"stream": stream}})
        model = Artifact(Recollecting().eval(), config, {}, "untrained", None)
        found = scored_along(model, Levels(), scores, streams=5)
        assert (found is not None) == shown
    found = scored(0.3)
    assert "Beside others" not in by_position(found)
    for text in ("Task after task", "40 streams of 4 tasks", "exact remembering", "<svg"):
        assert text in by_position(found)


def test_the_report_shows_others_four_to_a_chart(tmp_path: Path) -> None:
    others = {f"other_{number}": Recollecting() for number in range(5)}
    found = scored(0.3, others={**others, "against": Recollecting()})
    config = parse_config({"data": "levels"})
    model = Artifact(Recollecting().eval(), config, {}, "untrained", None)
    write_report(tmp_path / "streams.html", artifact=model, streams=found | {"against": "<other>"})
    page = (tmp_path / "streams.html").read_text(encoding="utf-8")
    assert page.count("Beside others") == 2
    assert "The other model is &lt;other&gt;." in page
    assert "at the last task is <strong>" in page
    with pytest.raises(ValueError, match="at least one evaluation, or streams"):
        write_report(tmp_path / "none.html", artifact=model)
    assert not (tmp_path / "none.html").exists()
