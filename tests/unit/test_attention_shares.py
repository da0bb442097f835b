"""What a query attends to, against the attention computed by hand, and as a report shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learner_table import ROWS, image_task, learner_of
from quickstudy.artifact import Artifact
from quickstudy.build import build_learner, build_source
from quickstudy.config import RunConfig
from quickstudy.data.design import EpisodeDesign
from quickstudy.episode import Episode, collate
from quickstudy.evaluation import evaluate
from quickstudy.evaluation.attention import answer_with_attention
from quickstudy.learners import Learner
from quickstudy.nn.layers import Attention, recorded_attention
from quickstudy.report import write_report


def row(label: str) -> Learner:
    return learner_of(next(each for each in ROWS if each.label == label))


def episode(values: int = 0) -> Episode:
    generator = torch.Generator().manual_seed(0)
    return collate([image_task(3, [2, 1, 2], 4, generator, values)])


def test_weights_are_those_of_a_softmax_over_memory_and_self() -> None:
    torch.manual_seed(0)
    layer = Attention(8, heads=2).double()
    tokens, memory = torch.randn(3, 8).double(), torch.randn(5, 8).double()
    mask = torch.ones(1, 1, 5, dtype=torch.bool)
    with recorded_attention() as calls:
        layer.isolated(tokens, *layer.keys_values(memory), mask=mask)
    layer.isolated(tokens, *layer.keys_values(memory), mask=mask)  # is not recorded
    (weights,) = calls
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for i, token in enumerate(tokens):
            query = layer.query(token)[part]
            seen = torch.cat([memory, token[None]])
            scores = layer.key(seen)[:, part] @ query / 2
            assert torch.allclose(weights[head, i], scores.softmax(0), atol=1e-12)


@pytest.mark.parametrize("label", ["in_context", "in_context-ensemble", "matching-context"])
def test_shares_add_up_to_one_and_nothing_else_changes(label: str) -> None:
    learner, tasks = row(label), episode()
    outputs, shares = answer_with_attention(learner, tasks)
    state = learner.adapt(tasks.support, tasks.context)
    assert torch.equal(outputs, learner.predict(state, tasks.query.x, tasks.context))
    assert shares is not None
    assert shares.shape == (1, 4, 5)
    assert torch.allclose(shares.sum(-1), torch.ones(1, 4).double())
    assert (shares > 0).all()


def test_learners_that_compare_without_attention_have_no_shares() -> None:
    assert answer_with_attention(row("protonet"), episode())[1] is None


@pytest.mark.parametrize(
    ("data", "learner", "encoder", "design"),
    [
        ("glyphs", {"name": "in_context", "layers": 1}, {"name": "image", "width": 16}, (3, 1, 2)),
        (
            "sinusoid",
            {"name": "neural_process", "layers": 1, "values": 1},
            {"name": "raw", "inputs": 1},
            (1, 6, 9),
        ),
    ],
    ids=["classes", "function"],
)
def test_a_report_shows_what_answers_looked_at(
    data: str,
    learner: dict[str, object],
    encoder: dict[str, object],
    design: tuple[int, int, int],
    tmp_path: Path,
) -> None:
    config = RunConfig(data=data, learner=learner, encoder=encoder)
    artifact = Artifact(
        build_learner(config.learner, config.encoder).eval(), config, {}, id="0", path=None
    )
    source = build_source(data)
    scores = evaluate(artifact.learner, source, design=EpisodeDesign(*design), episodes=2)
    path = tmp_path / "report.html"
    write_report(path, artifact=artifact, evaluations=[scores], source=source, episodes=2)
    assert "What an answer looked at" in path.read_text(encoding="utf-8")
