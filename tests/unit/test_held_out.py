"""Answers to a task's own examples from tasks that have not learned them: which learn what, and what follows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

from named_tasks import Words
from quickstudy.adapted import load_task, save_task
from quickstudy.answering import judge
from quickstudy.artifact import Artifact
from quickstudy.config import RunConfig
from quickstudy.data.source import DataNote
from quickstudy.durable import ArtifactError
from quickstudy.episode import NO_LABEL
from quickstudy.estimator import FewShotClassifier
from quickstudy.evaluation.held_out import HeldOut, _dealt, held_out
from quickstudy.learners import (
    MAML,
    LinearHead,
    MetaTransformer,
    ProtoNet,
    TransformerNeuralProcess,
)
from quickstudy.learners.base import Learner
from quickstudy.learning import extend, grow_by_name
from quickstudy.nn.encoders import RawEncoder, VectorEncoder

NAMES = ["aaa", "bbb", "ccc"]
LABELS = ["aaa", "bbb", "ccc", "aaa", "bbb", "aaa", "ccc", "bbb", "aaa"]


def made(learner: Learner) -> Artifact:
    """In float64, with weights that are not all zero."""
    torch.manual_seed(0)
    for each in learner.parameters():
        nn.init.normal_(each, std=0.5)
    config = RunConfig(data="numbers", encoder={"name": "vector", "inputs": 3})
    return Artifact(learner.double().eval(), config, {}, "0123456789abcdef", None)


def encoder() -> VectorEncoder:
    return VectorEncoder(3, width=8, layers=1)


def points(labels: list[str], seed: int = 0) -> Tensor:
    noise = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(seed))
    place = torch.tensor([[float(NAMES.index(label))] for label in labels])
    return (2 * place + noise).double()


def meta_transformer() -> Learner:
    return MetaTransformer(encoder(), names=True, width=8, heads=2, slots=2)


@pytest.mark.parametrize(
    "learner",
    [
        lambda: LinearHead(encoder()),
        lambda: ProtoNet(encoder()),
        lambda: MAML(encoder(), steps=2, rate=0.1),
        meta_transformer,
    ],
    ids=["linear_head", "protonet", "maml", "meta_transformer"],
)
@pytest.mark.parametrize("folds", [None, 3, 9])
def test_each_example_is_answered_by_a_task_of_the_others(learner, folds: int | None) -> None:
    artifact, x = made(learner()), points(LABELS)
    found = held_out(artifact, x, LABELS, folds=folds)
    assert found.folds == (folds or 4)
    assert found.asked.all()
    part = _dealt(found.y, found.asked, found.folds, 0)
    for fold in range(found.folds):
        rest = part != fold
        kept = [label for label, left in zip(LABELS, rest.tolist(), strict=True) if left]
        task = extend(artifact, None, x[rest], kept, class_names=NAMES)
        expected = artifact.learner.predict(task.state, x[~rest][None], task.context)[0]
        torch.testing.assert_close(found.outputs[~rest], expected.detach(), rtol=1e-8, atol=1e-8)


def test_an_encoder_of_texts_reads_examples_and_names_once() -> None:
    artifact = made(LinearHead(Words(), names=True))
    read = artifact.learner.encoder
    calls: list[int] = []
    read.register_forward_hook(lambda module, x, out: calls.append(len(out)))
    x = read.tokenize([f"{label} {place}" for place, label in enumerate(LABELS)])  # type: ignore[operator]
    found = held_out(artifact, x, LABELS)
    assert sum(calls) == len(LABELS) + len(NAMES)
    rest = _dealt(found.y, found.asked, found.folds, 0) != 0
    kept = [label for label, left in zip(LABELS, rest.tolist(), strict=True) if left]
    task = extend(artifact, None, x[rest], kept, class_names=NAMES)
    expected = artifact.learner.predict(task.state, x[~rest][None], task.context)[0]
    torch.testing.assert_close(found.outputs[~rest], expected.detach(), rtol=1e-8, atol=1e-8)


@given(
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=6),
    folds=st.integers(2, 12),
    seed=st.integers(0, 99),
)
def test_examples_of_a_class_are_shared_out_evenly(
    counts: list[int], folds: int, seed: int
) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    asked = torch.rand(len(y), generator=torch.Generator().manual_seed(seed + 1)) < 0.9
    part = _dealt(y, asked, folds, seed)
    assert (part[~asked] == -1).all()
    for rows in [asked, *(asked & (y == each) for each in range(len(counts)))]:
        times = Counter(part[rows].tolist())
        assert sum(times.values()) == int(rows.sum())
        assert not times or max(times.values()) - min(times[each] for each in range(folds)) <= 1


def test_who_is_alone_in_its_class_is_asked_about_only_where_names_are_read() -> None:
    labels = [*LABELS[:-1], "ddd"]
    x = points(LABELS)
    found = held_out(made(LinearHead(encoder())), x, labels)
    assert found.asked.tolist() == [True] * 8 + [False]
    assert not found.outputs[-1].any()
    assert held_out(made(meta_transformer()), x, labels).asked.all()
    with pytest.raises(ArtifactError, match="3 examples of 3 classes leave none to ask about"):
        held_out(made(ProtoNet(encoder())), x[:3], NAMES)


def test_copies_are_left_out_together() -> None:
    artifact, x = made(ProtoNet(encoder())), points(LABELS)
    found = held_out(artifact, torch.cat([x, x[:1]]), [*LABELS, LABELS[0]], folds=9)
    once = held_out(artifact, x, LABELS, folds=9)
    torch.testing.assert_close(found.outputs[9], found.outputs[0])
    torch.testing.assert_close(found.outputs[0], once.outputs[0])
    clash = held_out(artifact, torch.cat([x[:1], x[:8]]), ["ddd", *LABELS[:8]])
    assert clash.asked.tolist() == [False, False, *[True] * 7]


def test_examples_without_a_label_are_learned_from_and_not_asked_about() -> None:
    artifact, x = made(LinearHead(encoder())), points([*LABELS, *NAMES])
    found = held_out(artifact, x, [*LABELS, None, None, None])
    assert found.y[9:].tolist() == [NO_LABEL] * 3
    assert not found.asked[9:].any()
    without = held_out(artifact, x[:9], LABELS)
    assert not torch.allclose(found.outputs[:9], without.outputs)
    assert found.rejection().unlabelled == 3


def test_what_cannot_be_checked_is_refused() -> None:
    x = points(LABELS)
    values = made(
        TransformerNeuralProcess(RawEncoder(3), values=1, width=8, layers=1, heads=2, waves=0)
    )
    with pytest.raises(ArtifactError, match="answers with numbers or several labels"):
        held_out(values, x, x[:, :1])
    artifact = made(ProtoNet(encoder()))
    with pytest.raises(ValueError, match="2 parts or more; found folds=1"):
        held_out(artifact, x, LABELS, folds=1)
    x[4, 1] = torch.inf
    with pytest.raises(ArtifactError, match="example number 5 holds a number that is not finite"):
        held_out(artifact, x, LABELS)


def found_of(outputs: list[list[float]], y: list[int], asked: list[bool]) -> HeldOut:
    return HeldOut(NAMES, torch.tensor(y), torch.tensor(asked), torch.tensor(outputs), 2)


def test_what_is_wrong_is_told_the_surest_first() -> None:
    outputs = [[3.0, 0, 0], [0, 1, 0], [0, 4, 0], [0, 0, 9], [9, 0, 0]]
    found = found_of(outputs, [0, 0, 0, 2, 1], [True, True, True, True, False])
    assert found.right.tolist() == [True, False, False, True, False]
    assert found.wrong() == [2, 1]


@pytest.mark.parametrize(("right", "count"), [(0, 3), (7, 9), (5, 5), (200, 300)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    y = [int(i >= right) for i in range(count)]
    found = found_of([[1.0, 0, 0]] * count, y, [True] * count)
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert found.accuracy() == pytest.approx((right / count, expected.low, expected.high), abs=1e-4)


@given(share=st.floats(0.05, 0.95), count=st.integers(2, 40), seed=st.integers(0, 99))
def test_the_threshold_keeps_at_least_the_share(share: float, count: int, seed: int) -> None:
    outputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    found = HeldOut(NAMES, torch.arange(count) % 2, torch.ones(count).bool(), outputs, 2)
    threshold = found.rejection(share).threshold
    kept = (-outputs.amax(1) <= threshold).double().mean()
    assert kept >= min(share, 1)
    # One example fewer would be too few for a further one of their like.
    assert float(kept) == 1 or (kept - 1 / count) * count < share * (count + 1)


def test_a_share_or_a_score_that_cannot_be_is_refused() -> None:
    found = found_of([[1.0, 0, 0]] * 3, [0, 1, 2], [True] * 3)
    with pytest.raises(ValueError, match="between 0 and 1; found 1"):
        found.rejection(1)
    with pytest.raises(ValueError, match="probability, similarity, energy; found 'mahalanobis'"):
        found.rejection(score="mahalanobis")


def test_a_task_keeps_the_threshold_of_its_examples(tmp_path: Path) -> None:
    artifact, x = made(ProtoNet(encoder())), points(LABELS)
    task = extend(artifact, None, x, LABELS)
    save_task(tmp_path / "none.task", task)
    assert load_task(tmp_path / "none.task", artifact).rejection is None
    with pytest.raises(ArtifactError, match=r"Neither this task nor its artifact .*--unknown"):
        judge(artifact, task, x)
    found = held_out(artifact, x, LABELS)
    task.rejection = found.rejection(0.8)
    assert (task.rejection.way, task.rejection.shot) == (3, (2, 4))
    save_task(tmp_path / "own.task", task)
    again = load_task(tmp_path / "own.task", artifact)
    assert again.rejection == task.rejection
    judged = judge(artifact, again, torch.cat([x, x + 1000]))
    assert judged.unknown.tolist() == (judged.scores > task.rejection.threshold).tolist()
    with pytest.warns(DataNote, match="learned from the first 9 examples"):
        more = extend(artifact, again, x[:1] + 1, ["aaa"])
    assert more.rejection == task.rejection


def test_a_class_that_is_added_by_name_leaves_the_threshold() -> None:
    artifact = made(meta_transformer())
    x = points(LABELS)
    task = extend(artifact, None, x, LABELS)
    task.rejection = held_out(artifact, x, LABELS).rejection()
    with pytest.warns(DataNote, match="learned from the first 9 examples"):
        assert grow_by_name(artifact, task, ["ddd"]).rejection == task.rejection


def test_the_estimator_learns_what_is_of_no_class() -> None:
    artifact, x = made(ProtoNet(encoder())), points(LABELS).numpy()
    artifact.learner.float()
    classifier = FewShotClassifier(artifact).fit(x, LABELS, unknown=0.7)
    rejection = classifier.task_.rejection
    assert rejection is not None
    assert rejection.share_kept == 0.7
    score = classifier.unknown_score(x)
    refused = [answer is None for answer in classifier.predict(x, reject=True)]
    assert refused == (score > rejection.threshold).tolist()
    assert (
        FewShotClassifier(artifact).fit(x, LABELS, unknown=True).task_.rejection.share_kept == 0.95
    )
    assert FewShotClassifier(artifact).fit(x, LABELS).task_.rejection is None
    with pytest.raises(ValueError, match="begins by itself"):
        FewShotClassifier(artifact).fit(classes=NAMES, unknown=True)
