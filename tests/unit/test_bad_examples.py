"""Whatever the examples are, a learner of classes says finite probabilities, or says what is wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner_table import ROWS, Row, with_labels
from quickstudy.artifact import Artifact, ArtifactError, answer, extend
from quickstudy.config import RunConfig
from quickstudy.episode import Episode, Task, collate, without_support
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import ProtoNet
from quickstudy.likelihood import Bernoulli
from quickstudy.nn.encoders import RawEncoder, VectorEncoder

OF_CLASSES = [row for row in ROWS if not row.values]
"""Rows of learners that answer classes."""

RAW = ("protonet", "matching", "relation", "feat", "ridge", "linear_head")
"""Learners that also serve on the numbers themselves, whose size no norm has set right."""

WIDTH = 6

CASES = [
    *(pytest.param((row, False), id=row.label) for row in OF_CLASSES),
    *(pytest.param((row, True), id=f"{row.label}-raw") for row in OF_CLASSES if row.name in RAW),
]


@pytest.fixture(params=CASES, scope="module")
def learner(request: pytest.FixtureRequest) -> Learner:
    """In single precision, as artifacts are."""
    row: Row
    row, raw = request.param
    torch.manual_seed(0)
    encoder = RawEncoder(WIDTH) if raw else VectorEncoder(WIDTH, width=8, layers=1)
    return row.build(encoder).eval()


def has_many(learner: Learner) -> bool:
    """Whether its examples have any number of labels."""
    return isinstance(learner.likelihood, Bernoulli)


def batch_of(learner: Learner, task: Task) -> Episode:
    return collate([with_labels(task) if has_many(learner) else task])


def chances(learner: Learner, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    outputs = learner.predict(state, episode.query.x, episode.context).detach()
    return learner.likelihood.probabilities(outputs, episode.context)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Classes without examples, the same example many times, constant columns, far and tiny numbers."""
    way = draw(st.integers(2, 5))
    count = draw(st.integers(1, 9))
    labels = draw(st.lists(st.integers(0, way - 1), min_size=count, max_size=count))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    rows = torch.randn(count + 3, WIDTH, generator=generator)
    scale = draw(st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 1e3, 1e6]))
    offset = draw(st.sampled_from([0.0, 1.0, -1e4]))
    constant = draw(st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH))
    rows = torch.where(torch.tensor(constant), 7.0, rows * scale + offset)
    if draw(st.booleans()):
        rows[:] = rows[0]
    y = torch.tensor(labels)
    return Task(rows[:count], y, rows[count:], torch.zeros(3, dtype=torch.int64), way)


@given(task=tasks())
def test_probabilities_are_finite_and_those_of_classes_sum_to_one(
    learner: Learner, task: Task
) -> None:
    found = chances(learner, batch_of(learner, task))
    assert ((found >= 0) & (found <= 1)).all()
    if not has_many(learner):
        torch.testing.assert_close(found.sum(-1), torch.ones(1, 3))


@given(task=tasks())
def test_gradients_are_finite(learner: Learner, task: Task) -> None:
    learner.zero_grad()
    episode = batch_of(learner, task)
    reached = dict(learner.named_parameters())
    if not learner.inner_loop:
        reached["support"] = episode.support.x.requires_grad_()
    learner(episode).backward()
    for name, value in reached.items():
        assert value.grad is None or value.grad.isfinite().all(), name


def test_an_empty_support_gives_the_prior(learner: Learner) -> None:
    """All classes are equally likely, and a label is as likely as not, with places for examples and without any."""
    rows = torch.randn(6, WIDTH)
    task = Task(rows, torch.arange(6) % 3, rows, torch.zeros(6, dtype=torch.int64), 3)
    hidden = batch_of(learner, task)
    hidden = hidden._replace(support=without_support(hidden.support))
    none = batch_of(learner, task._replace(support_x=rows[:0], support_y=torch.arange(0)))
    prior = torch.full((1, 6, 3), 1 / 2 if has_many(learner) else 1 / 3)
    for episode in (hidden, none):
        torch.testing.assert_close(chances(learner, episode), prior)


def test_support_and_query_of_different_width_are_told_apart() -> None:
    task = Task(
        torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), torch.randn(2, 4), torch.arange(2), 2
    )
    with pytest.raises(ValueError, match="Examples of 4 numbers, but this encoder takes 3"):
        chances(ProtoNet(RawEncoder(3)), collate([task]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    config = RunConfig(data="numbers", encoder={"name": "vector", "inputs": WIDTH})
    artifact = Artifact(ProtoNet(VectorEncoder(WIDTH)).eval(), config, {}, id="it", path=None)
    good = torch.randn(4, WIDTH)
    broken = good.clone()
    broken[2, 1] = bad
    labels = ["a", "b", "a", "b"]
    with pytest.raises(ArtifactError, match=r"example number 3 holds a number that is not finite"):
        extend(artifact, None, broken, labels)
    task = extend(artifact, None, good, labels)
    with pytest.raises(ArtifactError, match=r"query number 3 holds a number that is not finite"):
        answer(artifact, task, broken)
