"""Heads that are solved rather than stepped towards, against scikit-learn and against each other's forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as Reference
from torch import Tensor, nn

from learner_table import vector_encoder
from quickstudy.episode import Context, Episode, Examples, Task, collate, leaves, tree_map
from quickstudy.learners.base import Learner
from quickstudy.learners.closed_form import LinearHead, Ridge
from quickstudy.learners.logistic import fit_logistic
from quickstudy.learners.metric import UNSEEN
from quickstudy.nn.encoders import RawEncoder

close = torch.testing.assert_close


def vector_task(way: int = 3, shot: int = 4, queries: int = 7, width: int = 6) -> Task:
    labels = torch.arange(way).repeat_interleave(shot)
    centres = torch.randn(way, width, dtype=torch.float64)
    rows = centres[labels] + torch.randn(way * shot, width, dtype=torch.float64)
    asked = torch.randint(way, (queries,))
    return Task(rows, labels, torch.randn(queries, width, dtype=torch.float64), asked, way)


def answer(learner: Learner, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


def padded(examples: Examples, more: int) -> Examples:
    """The same examples with places behind them in which there are none."""

    def pad(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, torch.zeros_like(tensor[:, :1].repeat_interleave(more, 1))], 1)

    return tree_map(pad, examples)


# Ridge


@pytest.mark.parametrize("shot", [1, 20])
def test_ridge_is_the_ridge_of_scikit_learn(shot: int) -> None:
    """With fewer examples than features and with more: the dual form and the primal."""
    task = vector_task(shot=shot)
    learner = Ridge(RawEncoder(6), penalty=0.3, scale=1.0).double()
    with torch.no_grad():
        learner.log_penalty.fill_(np.log(0.3))
    rows, asked = (np.c_[x / np.sqrt(6), np.ones(len(x))] for x in (task.support_x, task.query_x))
    reference = Reference(alpha=0.3, fit_intercept=False).fit(rows, np.eye(3)[task.support_y])
    expected = torch.from_numpy(reference.predict(asked))
    close(answer(learner, collate([task]))[0].detach(), expected)


def test_both_forms_of_ridge_give_the_same_answers_and_gradients() -> None:
    learner = Ridge(vector_encoder()).double()
    short = collate([vector_task(shot=2), vector_task(shot=1, way=2)])
    long = short._replace(support=padded(short.support, 9))
    states = [learner.adapt(each.support, each.context) for each in (short, long)]
    assert [state.rows.shape[1] for state in states] == [6, 0]
    assert [state.gram.shape[1] for state in states] == [0, 9]
    weights = list(learner.parameters())
    outputs = [answer(learner, each) for each in (short, long)]
    close(*outputs, rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad(learner(each), weights) for each in (short, long)]
    for dual, primal in zip(*slopes, strict=True):
        close(dual, primal, rtol=1e-8, atol=1e-10)


def test_the_state_of_ridge_never_outgrows_its_sums() -> None:
    """Examples one at a time equal all at once, before the support outgrows the width and after."""
    learner = Ridge(RawEncoder(6)).double()
    episode = collate([vector_task(shot=10)])
    state, sizes = None, []
    for place in range(30):
        one = tree_map(lambda tensor, at=place: tensor[:, at : at + 1], episode.support)
        state = learner.adapt(one, episode.context, state)
        sizes.append(sum(leaf.numel() for leaf in leaves(state)))
        seen = tree_map(lambda tensor, to=place + 1: tensor[:, :to], episode.support)
        at_once = learner.adapt(seen, episode.context)
        close(
            learner.predict(state, episode.query.x, episode.context),
            learner.predict(at_once, episode.query.x, episode.context),
        )
    assert sizes[7:] == [7 * 7 + 7 * 3] * 23
    assert max(sizes) < 80


def test_ridge_is_finite_on_columns_of_any_size() -> None:
    """A penalty below the rounding of the sums would leave them without a square root."""
    task = vector_task(shot=20)
    grown = task._replace(support_x=1e5 * task.support_x.float(), query_x=task.query_x.float())
    assert answer(Ridge(RawEncoder(6)), collate([grown])).isfinite().all()


# Logistic regression


@pytest.mark.parametrize("penalty", [0.01, 0.5])
@pytest.mark.parametrize("shape", [(3, 1, 6), (3, 20, 6), (5, 5, 64), (20, 2, 30), (2, 30, 4)])
def test_the_linear_head_is_the_logistic_regression_of_scikit_learn(
    shape: tuple[int, int, int], penalty: float
) -> None:
    """With fewer examples than features and with more."""
    way, shot, width = shape
    task = vector_task(way, shot, width=width)
    learner = LinearHead(RawEncoder(width), penalty=penalty, unit_length=False)
    # Of two classes the reference has one vector of weights, which is the difference of two of half its length.
    reference = LogisticRegression(
        C=(2 if way == 2 else 1) / penalty, tol=1e-12, max_iter=1000, solver="newton-cholesky"
    )
    reference.fit(task.support_x.numpy(), task.support_y.numpy())
    episode = collate([task])
    chances = learner.likelihood.probabilities(answer(learner, episode), episode.context)
    expected = torch.from_numpy(reference.predict_proba(task.query_x.numpy()))
    close(chances[0], expected, rtol=0, atol=1e-6)


def fitted(x: Tensor, labels: Tensor, way: int, penalty: float) -> Tensor:
    """Weights and bias of one task, by the library."""
    examples = Examples(x[None], labels[None], torch.ones(1, len(x), dtype=torch.bool))
    classes = torch.ones(1, way, dtype=torch.bool)
    context = Context(classes, torch.zeros(1, 0), torch.zeros(1, way, 0))
    return torch.cat(fit_logistic(examples, context, penalty=penalty, steps=32), 1)[0]


@pytest.mark.parametrize("shape", [(4, 3, 30), (4, 12, 5)])
def test_the_slope_is_nil_where_the_fit_rests(shape: tuple[int, int, int]) -> None:
    way, shot, width = shape
    task = vector_task(way, shot, width=width)
    values = fitted(task.support_x, task.support_y, way, 0.2).requires_grad_()
    logits = task.support_x @ values[:-1] + values[-1]
    loss = nn.functional.cross_entropy(logits, task.support_y, reduction="sum")
    (loss + 0.1 * values[:-1].square().sum()).backward()
    assert values.grad.abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(3, 2, 9), (3, 8, 4)])
def test_the_fit_is_differentiated_where_it_rests(shape: tuple[int, int, int]) -> None:
    """Against central differences of whole fits."""
    way, shot, width = shape
    task = vector_task(way, shot, width=width)
    toward = torch.randn(width + 1, way, dtype=torch.float64)
    # A shift of all classes alike is free, so a loss must not see it, as a softmax does not.
    toward = toward - toward.mean(1, keepdim=True)
    x = task.support_x.requires_grad_()
    slope = torch.autograd.grad((fitted(x, task.support_y, way, 0.05) * toward).sum(), x)[0]
    move = torch.randn_like(x)
    with torch.no_grad():
        ahead, behind = (
            (fitted(x + step * move, task.support_y, way, 0.05) * toward).sum()
            for step in (1e-5, -1e-5)
        )
    close((ahead - behind) / 2e-5, (slope * move).sum(), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shape", [(5, 5, 30), (5, 20, 8)])
def test_single_precision_is_enough_for_the_gradient(shape: tuple[int, int, int]) -> None:
    task = vector_task(shape[0], shape[1], width=shape[2])
    slopes = []
    for dtype in (torch.float32, torch.float64):
        x = nn.functional.normalize(task.support_x, dim=1).to(dtype).requires_grad_()
        values = fitted(x, task.support_y, shape[0], 0.1)
        logits = task.query_x.to(dtype) @ values[:-1] + values[-1]
        slopes.append(torch.autograd.grad(logits.log_softmax(1)[:, 0].mean(), x)[0].double())
    assert (slopes[0] - slopes[1]).norm() < 1e-4 * slopes[1].norm()


def test_a_hard_fit_ends_where_plain_newton_steps_would_leave_it() -> None:
    """Far points and hardly any penalty: full steps from zero overshoot, halved ones do not."""
    x = torch.tensor([[-40.0], [-39.0], [-1.0], [30.0], [0.5], [45.0]]).double()
    labels = torch.tensor([0, 0, 1, 1, 0, 1])
    values = fitted(x, labels, 2, 1e-4)
    reference = LogisticRegression(C=2e4, tol=1e-12, max_iter=1000, solver="newton-cholesky")
    reference.fit(x.numpy(), labels)
    expected = torch.from_numpy(reference.predict_proba(x.numpy()))
    close((x @ values[:-1] + values[-1]).softmax(-1), expected, rtol=0, atol=1e-5)


def test_classes_without_examples_take_no_part_in_the_fit() -> None:
    task = vector_task(way=3)
    wider = task._replace(way=5)
    learner = LinearHead(RawEncoder(6))
    narrow, wide = (answer(learner, collate([each]))[0] for each in (task, wider))
    close(wide[:, :3], narrow)
    assert (wide[:, 3:] == UNSEEN).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda e: Ridge(e, penalty=0), "penalty must be positive"),
        (lambda e: Ridge(e, scale=0), "scale must be positive"),
        (lambda e: LinearHead(e, penalty=0), "penalty must be positive"),
        (lambda e: LinearHead(e, steps=0), "at least 1; found 0"),
    ],
)
def test_a_bad_option_is_named(build: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(RawEncoder(2))
