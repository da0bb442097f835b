"""Learners that compare queries with classes, each against its formula in plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from learner_table import ragged_tasks, shaken, vector_encoder
from quickstudy.episode import Episode, Task, collate
from quickstudy.learners.base import Learner
from quickstudy.learners.matching import MatchingNetwork, class_log_sums
from quickstudy.learners.metric import UNSEEN, ProtoNet
from quickstudy.learners.relation import RelationNetwork
from quickstudy.learners.set_attention import FEAT
from quickstudy.nn.encoders import Encoder, ImageEncoder, RawEncoder

close = torch.testing.assert_close
cosine = torch.cosine_similarity


def uneven_task(shots: tuple[int, ...] = (3, 1, 2), queries: int = 5, width: int = 8) -> Task:
    """Classes of different shot, in mixed order."""
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    labels = labels[torch.randperm(len(labels))]
    rows, asked = (torch.randn(n, width, dtype=torch.float64) for n in (len(labels), queries))
    return Task(rows, labels, asked, torch.randint(len(shots), (queries,)), len(shots))


def answer(learner: Learner, episode: Episode) -> Tensor:
    state = learner.adapt(episode.support, episode.context)
    return learner.predict(state, episode.query.x, episode.context)


def chances(learner: Learner, task: Task) -> Tensor:
    """Probabilities (query, way) of one task."""
    episode = collate([task])
    return learner.likelihood.probabilities(answer(learner, episode), episode.context)[0]


def means_of(features: Tensor, labels: Tensor, way: int) -> list[Tensor]:
    return [features[labels == number].mean(0) for number in range(way)]


# Matching


def test_matching_averages_the_labels_of_the_support_by_attention() -> None:
    task = uneven_task()
    learner = MatchingNetwork(RawEncoder(8), temperature=3.0).double()
    for query, found in zip(task.query_x, chances(learner, task), strict=True):
        weights = [math.exp(3 * float(cosine(query, x, dim=0))) for x in task.support_x]
        expected = [0.0, 0.0, 0.0]
        for weight, label in zip(weights, task.support_y.tolist(), strict=True):
            expected[label] += weight / sum(weights)
        close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_the_context_of_matching_is_a_transformer_over_the_support_and_one_query() -> None:
    """Against the whole Transformer over [support, example], once for each example."""
    task = uneven_task()
    learner = MatchingNetwork(vector_encoder(8), layers=2, heads=2)
    shaken(learner).eval()
    tokens = learner.encode(task.support_x[None])[0]
    count = len(tokens)

    def beside(token: Tensor) -> Tensor:
        sequence = learner.project(torch.cat([tokens, token[None]]))
        seen = torch.ones(count + 1, count + 1, dtype=torch.bool)
        seen[:count, count] = False
        read = learner.transformer(sequence[None], mask=seen)[0, -1]
        return token + learner.read(read)

    support = [beside(token) for token in tokens]
    scale = learner.log_temperature.exp()
    found = answer(learner, collate([task]))[0]
    for x, logits in zip(task.query_x, found, strict=True):
        query = beside(learner.encode(x[None, None])[0, 0])
        close_to = torch.stack([scale * cosine(query, one, dim=0) for one in support])
        expected = [torch.logsumexp(close_to[task.support_y == way], 0) for way in range(3)]
        close(logits, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_before_training_the_context_of_matching_changes_nothing() -> None:
    encoder = vector_encoder(8).double()
    plain, context = (MatchingNetwork(encoder, layers=layers).double() for layers in (0, 2))
    episode = collate([uneven_task()])
    close(answer(context, episode), answer(plain, episode))


def test_sums_of_very_large_and_very_small_weights_are_finite_and_right() -> None:
    similar = torch.tensor([[[900.0, -900.0, -901.0, 5.0]]], requires_grad=True)
    labels = torch.tensor([[0, 1, 1, 3]])
    mask = torch.tensor([[True, True, True, False]])
    found = class_log_sums(similar, labels, mask, 4)
    expected = torch.tensor([-900.0, -901.0]).double().logsumexp(0).float()
    close(found[0, 0], torch.tensor([900.0, expected, UNSEEN, UNSEEN]))
    found[..., :2].sum().backward()
    share = torch.tensor([0.0, -1.0]).softmax(0)
    close(similar.grad[0, 0], torch.tensor([1.0, share[0], share[1], 0.0]))


# Relation


def test_a_relation_is_a_perceptron_of_a_query_and_a_class() -> None:
    task = uneven_task()
    learner = RelationNetwork(RawEncoder(8), hidden=5)
    shaken(learner)
    way = means_of(nn.functional.normalize(task.support_x, dim=1), task.support_y, 3)
    found = answer(learner, collate([task]))[0]
    for x, logits in zip(task.query_x, found, strict=True):
        query = x / x.norm() * 8**0.5
        for mean, logit in zip(way, logits, strict=True):
            of = mean / mean.norm() * 8**0.5
            both = torch.cat([of, query, of * query])
            layers = (learner.from_class, learner.from_query, learner.from_both)
            weight = torch.cat([layer.weight for layer in layers], 1)
            expected = learner.relate(weight @ both + learner.from_class.bias)
            close(logit, expected[0], rtol=1e-9, atol=1e-9)


# Set functions


def attention_by_hand(learner: FEAT, prototypes: Tensor) -> Tensor:
    """One head of attention among prototypes, each query in turn."""
    module = learner.set_function
    normed = module.norm(prototypes)
    layer = module.attention
    query, key, value = (part(normed) for part in (layer.query, layer.key, layer.value))
    rows = []
    for one in query:
        weights = torch.stack([one @ other / one.numel() ** 0.5 for other in key]).softmax(0)
        rows.append(layer.out(weights @ value))
    return prototypes + torch.stack(rows)


def deep_set_by_hand(learner: FEAT, prototypes: Tensor) -> Tensor:
    """Each prototype beside the mean of what is made of the others."""
    module = learner.set_function
    normed = module.norm(prototypes)
    rows = []
    for place, one in enumerate(normed):
        others = [module.each(other) for i, other in enumerate(normed) if i != place]
        rows.append(module.together(torch.cat([one, torch.stack(others).mean(0)])))
    return prototypes + torch.stack(rows)


@pytest.mark.parametrize("set_function", ["attention", "deepsets"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_feat_adapts_the_set_of_prototypes(set_function: str, distance: str) -> None:
    task = uneven_task()
    learner = FEAT(RawEncoder(8), set_function=set_function, distance=distance)
    shaken(learner)
    support, queries = task.support_x, task.query_x
    if distance == "cosine":
        support, queries = (nn.functional.normalize(x, dim=1) for x in (support, queries))
    prototypes = torch.stack(means_of(support, task.support_y, 3))
    by_hand = attention_by_hand if set_function == "attention" else deep_set_by_hand
    adapted = by_hand(learner, prototypes)
    found = answer(learner, collate([task]))[0]
    for query, logits in zip(queries, found, strict=True):
        for prototype, logit in zip(adapted, logits, strict=True):
            far = -(query - prototype).square().sum() / 8
            similar = cosine(query, prototype, dim=0) if distance == "cosine" else far
            close(logit, learner.log_temperature.exp() * similar, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("set_function", ["attention", "deepsets"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_feat_begins_as_a_prototypical_network(set_function: str, distance: str) -> None:
    encoder = vector_encoder(8).double()
    feat = FEAT(encoder, set_function=set_function, distance=distance).double()
    plain = ProtoNet(encoder, distance=distance).double()
    episode = collate([uneven_task()])
    assert torch.equal(answer(feat, episode), answer(plain, episode))


# All

KINDS = [
    lambda encoder: MatchingNetwork(encoder, layers=1),
    MatchingNetwork,
    RelationNetwork,
    FEAT,
    lambda encoder: FEAT(encoder, set_function="deepsets"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_examples_is_never_the_answer(kind: type[Learner]) -> None:
    task = uneven_task(shots=(2, 0, 2))
    learner = shaken(kind(vector_encoder(8))).eval()
    whole, poor = answer(learner, collate([task]))[0], task._replace(way=3)
    assert (whole[:, 1] == UNSEEN).all()
    assert (chances(learner, poor)[:, 1] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_gives_finite_answers(kind: type[Learner]) -> None:
    tasks = [
        task._replace(support_x=task.support_x.float(), query_x=task.query_x.float())
        for task in ragged_tasks()
    ]
    learner = kind(ImageEncoder(width=8, layers=1, heads=2, size=16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = learner(collate(tasks))
    loss.backward()
    assert all(value.grad.isfinite().all() for value in learner.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda e: MatchingNetwork(e, temperature=0), "temperature must be positive; found 0"),
        (lambda e: MatchingNetwork(e, layers=-1), "0 or more; found -1"),
        (lambda e: RelationNetwork(e, hidden=-2), "0 or more; found -2"),
        (lambda e: FEAT(e, set_function="graph"), "attention or deepsets; found 'graph'"),
        (lambda e: FEAT(e, distance="manhattan"), "cosine or euclidean; found 'manhattan'"),
        (lambda e: FEAT(e, temperature=-1), "temperature must be positive; found -1"),
    ],
)
def test_a_bad_option_is_named(build: type, message: str) -> None:
    encoder: Encoder = RawEncoder(8)
    with pytest.raises(ValueError, match=message):
        build(encoder)
