"""Examples with any number of labels: the likelihood, and learners of one label against the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch import Tensor

from quickstudy.episode import Context, Examples, Task, collate
from quickstudy.evaluation.labels import label_measures, share_of_support
from quickstudy.learners import LinearHead, ProtoNet
from quickstudy.likelihood import Bernoulli
from quickstudy.nn.encoders import RawEncoder

close = torch.testing.assert_close


def marks(rows: int, labels: int, generator: torch.Generator, share: float = 0.4) -> Tensor:
    return (torch.rand(rows, labels, generator=generator) < share).double()


def task(support: int, queries: int, labels: int, *, width: int = 5, seed: int = 0) -> Task:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(support + queries, width, generator=generator).double()
    y = marks(support + queries, labels, generator)
    return Task(x[:support], y[:support], x[support:], y[support:], way=labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10_000), st.sampled_from([0.1, 0.5]))
def test_micro_f1_is_that_of_scikit_learn(
    queries: int, labels: int, seed: int, share: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    y, answered = (marks(queries, labels, generator, share) for _ in range(2))
    mask = torch.ones(1, queries, dtype=torch.bool)
    classes = torch.ones(1, labels, dtype=torch.bool)
    context = Context(classes, torch.zeros(1, 0), torch.zeros(1, labels, 0))
    examples = Examples(torch.zeros(1, queries, 1), y[None], mask)
    found = Bernoulli().task_score(answered[None] - 0.5, examples, context).item()
    wanted = f1_score(y.numpy(), answered.numpy(), average="micro", zero_division=1)
    assert found == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(2, 4), st.integers(0, 10_000), st.booleans())
def test_the_other_measures_are_those_of_scikit_learn(
    queries: int, labels: int, seed: int, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(queries, labels, generator=generator).double()
    outputs = outputs.round() + 0.25 if ties else outputs
    y = marks(queries, labels, generator)
    padded = collate([Task(y, y, y, y, way=labels), task(2, 11, 5)])
    whole = torch.full((2, 11, 5), 9.0).double()
    whole[0, :queries, :labels] = outputs
    found = label_measures(whole, padded.query, padded.context)
    given_labels = (outputs > 0).double().numpy()
    some = (y.numpy() + given_labels).any(0)
    each = f1_score(y.numpy(), given_labels, average=None, zero_division=0)
    wanted = {
        "macro_f1": each[some].mean() if some.any() else 0,
        "exact_match": accuracy_score(y.numpy(), given_labels),
        "average_precision": np.mean(
            [
                average_precision_score(y[:, label], outputs[:, label])
                for label in range(labels)
                if y[:, label].any()
            ]
            or [0]
        ),
    }
    for name, value in wanted.items():
        assert found[name][0].item() == pytest.approx(value, abs=1e-12), name


def test_the_most_frequent_labels_are_those_of_most_examples() -> None:
    one = task(5, 2, 3)
    outputs = share_of_support(collate([one]))
    assert outputs.shape == (1, 2, 3)
    close(outputs[0, 0].sigmoid(), one.support_y.mean(0), rtol=1e-5, atol=1e-5)


def test_labels_and_queries_that_do_not_exist_count_for_nothing() -> None:
    tasks = [task(3, 4, 2, seed=1), task(3, 2, 4, seed=2)]
    episode, likelihood = collate(tasks), Bernoulli()
    outputs = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(3)).double()
    for each in ("task_nll", "task_score"):
        together = getattr(likelihood, each)(outputs, episode.query, episode.context)
        for place, one in enumerate(tasks):
            own, alone = outputs[place : place + 1, : len(one.query_y), : one.way], collate([one])
            close(
                together[place : place + 1],
                getattr(likelihood, each)(own, alone.query, alone.context),
            )
    p = likelihood.probabilities(outputs, episode.context)
    assert p[0, :, 2:].eq(0).all()
    chosen = torch.where(episode.query.y > 0, p, 1 - p)[1, :2]
    close(
        likelihood.task_nll(outputs, episode.query, episode.context)[1],
        -chosen.log().sum(-1).mean(),
    )


@pytest.mark.parametrize(("support", "width"), [(30, 5), (12, 40)])
def test_the_linear_head_is_a_logistic_regression_for_each_label(support: int, width: int) -> None:
    tasks = [task(support, 7, 3, width=width, seed=seed) for seed in range(2)]
    learner = LinearHead(
        RawEncoder(width), labels="many", penalty=0.3, unit_length=False, steps=60
    ).double()
    episode = collate(tasks)
    outputs = learner.outputs(episode)
    found = Bernoulli().probabilities(outputs, episode.context)
    for place, one in enumerate(tasks):
        for label in range(3):
            oracle = LogisticRegression(C=1 / 0.3, solver="newton-cholesky", tol=1e-13)
            oracle.fit(one.support_x.numpy(), one.support_y[:, label].numpy())
            wanted = oracle.predict_proba(one.query_x.numpy())[:, 1]
            np.testing.assert_allclose(found[place, :, label].detach(), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_prototype_is_told_from_the_mean_of_the_rest(distance: str) -> None:
    one = task(9, 4, 3, seed=4)
    learner = ProtoNet(RawEncoder(5), labels="many", distance=distance, temperature=3.0).double()
    with torch.no_grad():
        learner.threshold.fill_(0.2)
    found = learner.outputs(collate([one]))[0].detach().numpy()
    temperature = learner.log_temperature.exp().item()
    x, asked = one.support_x.numpy(), one.query_x.numpy()
    if distance == "cosine":
        x, asked = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, asked))

    def near(mean: np.ndarray) -> np.ndarray:
        if distance == "cosine":
            return asked @ mean / np.linalg.norm(mean)
        return -((asked - mean) ** 2).mean(1)

    for label in range(3):
        have = one.support_y[:, label].numpy() > 0
        wanted = temperature * (near(x[have].mean(0)) - near(x[~have].mean(0)) - 0.2)
        np.testing.assert_allclose(found[:, label], wanted, rtol=1e-12)


@pytest.mark.parametrize("learner", [ProtoNet, LinearHead])
def test_a_label_that_no_example_has_is_never_the_answer(learner: type) -> None:
    one = task(6, 3, 3)
    y = one.support_y.clone()
    y[:, 0], y[:, 1] = 0, 1
    built = learner(RawEncoder(5), labels="many").double()
    outputs = built.outputs(collate([one._replace(support_y=y)]))
    assert outputs[..., 0].max() == -10
    assert outputs[..., 1].min() == 10
    bare = task(0, 3, 3)
    assert built.outputs(collate([bare])).eq(0).all()


class Reader(RawEncoder):
    """Reads names as it reads examples."""

    def tokenize(self, texts: list[str]) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("learner", [ProtoNet, LinearHead])
def test_the_name_of_a_label_is_an_example_of_it_and_of_no_other(learner: type) -> None:
    one = task(6, 3, 3)
    names = torch.randn(3, 5, generator=torch.Generator().manual_seed(9)).double()
    reads = learner(Reader(5), labels="many", names=True).double()
    found = reads.outputs(collate([one._replace(names=names)]))
    more = one._replace(
        support_x=torch.cat([one.support_x, names]),
        support_y=torch.cat([one.support_y, torch.eye(3).double()]),
    )
    plain = learner(RawEncoder(5), labels="many").double()
    close(found, plain.outputs(collate([more])), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("learner", [ProtoNet, LinearHead])
def test_wrong_options_of_labels(learner: type) -> None:
    with pytest.raises(ValueError, match="labels must be one or many; found 'several'"):
        learner(RawEncoder(5), labels="several")
    with pytest.raises(ValueError, match=r"found label_smoothing=0.1 with labels=many"):
        learner(RawEncoder(5), labels="many", label_smoothing=0.1)
