"""Reptile, implicit gradients and contexts against what is known of them: closed forms, plain loops, definitions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from learner_table import shaken, vector_encoder
from quickstudy.episode import Episode, Task, collate, take_tasks
from quickstudy.functional import descend, tied
from quickstudy.learners.base import Learner
from quickstudy.learners.cavia import CAVIA
from quickstudy.learners.gradient import MAML
from quickstudy.learners.implicit import ImplicitMAML
from quickstudy.learners.metric import ProtoNet
from quickstudy.learners.reptile import Reptile
from quickstudy.nn.encoders import RawEncoder

close = torch.testing.assert_close


def vector_task(way: int = 3, shot: int = 3, queries: int = 5, width: int = 6) -> Task:
    labels = torch.arange(way).repeat_interleave(shot)
    centres = torch.randn(way, width, dtype=torch.float64)
    rows = centres[labels] + torch.randn(way * shot, width, dtype=torch.float64)
    asked = torch.randint(way, (queries,))
    return Task(rows, labels, torch.randn(queries, width, dtype=torch.float64), asked, way)


def vector_episode() -> Episode:
    return collate([vector_task(), vector_task(way=2), vector_task(shot=1, queries=2)])


def slopes(learner: Learner, loss: Tensor) -> dict[str, Tensor]:
    named = dict(learner.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(named[name]) if slope is None else slope
        for name, slope in zip(named, found, strict=True)
    }


# Implicit gradients


def unrolled_loss(learner: ImplicitMAML, episode: Episode) -> Tensor:
    """The same objective with a graph of all steps."""
    fast, (support, query, context) = learner.fast, episode
    start = fast.initial(support, context)
    data = ((support, context.classes), start)
    loop = tied(fast.loop(), learner.penalty)
    state = descend(loop, start, fast.shared(), data, tasks_at_once=3)
    return learner.likelihood.nll(learner.predict(state, query.x, context), query, context)


@pytest.mark.parametrize("adapt", ["all", "norms", "head"])
@pytest.mark.parametrize("chunk", [1, 0])
def test_implicit_maml_at_rest_has_the_gradient_of_all_its_steps(adapt: str, chunk: int) -> None:
    learner = ImplicitMAML(
        vector_encoder(),
        rate=0.15,
        steps=45,
        penalty=4.0,
        solver_steps=40,
        adapt=adapt,
        tasks_at_once=chunk,
    )
    shaken(learner)
    episode = vector_episode()
    loss, expected = learner(episode), unrolled_loss(learner, episode)
    close(loss, expected, rtol=1e-12, atol=1e-12)
    own, other = slopes(learner, loss), slopes(learner, expected)
    assert all(value.any() for value in other.values())
    close(own, other, rtol=1e-8, atol=1e-8)


def test_implicit_maml_at_rest_moves_where_the_head_of_values_begins() -> None:
    learner = ImplicitMAML(
        vector_encoder(), rate=0.1, steps=150, penalty=4.0, solver_steps=60, values=2
    )
    shaken(learner)
    tasks = [
        task._replace(support_y=task.support_x[:, :2], query_y=task.query_x[:, :2], way=2)
        for task in (vector_task(), vector_task(shot=1))
    ]
    episode = collate(tasks)
    loss, expected = learner(episode), unrolled_loss(learner, episode)
    close(loss, expected, rtol=1e-12, atol=1e-12)
    own, other = slopes(learner, loss), slopes(learner, expected)
    assert other["start.weight"].any()
    close(own, other, rtol=1e-8, atol=1e-8)


# Reptile


def plain_end(learner: Reptile, task: Episode) -> dict[str, Tensor]:
    """Where one task takes the encoder, by plain descent over the support and then over the queries."""
    own = {name: value.detach() for name, value in learner.encoder.named_parameters()}
    own["head"] = torch.zeros(task.context.classes.shape[1], 9, dtype=torch.float64)
    for part in (task.support, task.query):
        for _ in range(learner.fast.steps):
            own = {name: value.detach().requires_grad_() for name, value in own.items()}
            weights = {name: value for name, value in own.items() if name != "head"}
            features = torch.func.functional_call(learner.encoder, weights, (part.x[0],))
            logits = nn.functional.pad(features, (0, 1), value=1.0) @ own["head"].T
            learner.likelihood.nll(logits[None], part, task.context).backward()
            own = {name: value - learner.sizes.rate * value.grad for name, value in own.items()}
    return {name: value.detach() for name, value in own.items()}


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_step_of_reptile_goes_towards_where_the_tasks_go(chunk: int) -> None:
    learner = shaken(Reptile(vector_encoder(), rate=0.3, steps=2, tasks_at_once=chunk))
    episode = vector_episode()
    ends = [plain_end(learner, take_tasks(episode, slice(i, i + 1))) for i in range(3)]
    begin = {name: value.detach().clone() for name, value in learner.encoder.named_parameters()}
    learner(episode).backward()
    torch.optim.SGD(learner.parameters(), lr=0.4).step()
    for name, value in learner.encoder.named_parameters():
        towards = torch.stack([end[name] for end in ends]).mean(0)
        assert not torch.equal(towards, begin[name])
        close(value.detach(), begin[name] + 0.4 * (towards - begin[name]), rtol=1e-9, atol=1e-11)


def test_a_step_of_reptile_moves_where_the_head_of_values_begins() -> None:
    learner = shaken(Reptile(vector_encoder(), rate=0.1, steps=2, values=2))
    task = vector_task()
    task = task._replace(support_y=task.support_x[:, :2], query_y=task.query_x[:, :2], way=2)
    support, query, context = episode = collate([task])
    end = learner.adapt(query, context, learner.adapt(support, context))
    learner(episode).backward()
    start = learner.start
    assert not torch.equal(end["head.weight"][0], start.weight)
    close(start.weight.grad, (start.weight - end["head.weight"][0]).detach())
    close(start.bias.grad, (start.bias - end["head.bias"][0]).detach())


def test_the_loss_of_reptile_is_that_of_the_queries_after_learning_the_support() -> None:
    encoder, episode = shaken(vector_encoder()), vector_episode()
    maml, reptile = (cls(encoder, rate=0.3, steps=2).double() for cls in (MAML, Reptile))
    expected = maml.query_loss(episode)
    close(reptile(episode), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        close(reptile(episode), expected.detach(), rtol=1e-12, atol=1e-12)


def test_reptile_leaves_frozen_parameters_alone() -> None:
    encoder = vector_encoder()
    encoder.embed.requires_grad_(False)
    learner = shaken(Reptile(encoder, rate=0.3, steps=2))
    learner(vector_episode()).backward()
    assert encoder.embed.weight.grad is None
    assert encoder.layers[0][1].weight.grad.any()


# Contexts


def test_without_a_context_it_is_a_prototypical_network() -> None:
    encoder, episode = shaken(vector_encoder()), vector_episode()
    learner, reference = (cls(encoder, temperature=3.0).double() for cls in (CAVIA, ProtoNet))
    state = learner.adapt(episode.support, episode.context)
    before = state._replace(context=torch.zeros_like(state.context))
    expected = reference.query_loss(episode)
    outputs = learner.predict(before, episode.query.x, episode.context)
    close(learner.likelihood.nll(outputs, episode.query, episode.context), expected)
    outputs = learner.predict(state, episode.query.x, episode.context)
    after = learner.likelihood.nll(outputs, episode.query, episode.context)
    assert (after - expected).abs() > 1e-3


def plain_context(learner: CAVIA, task: Task) -> Tensor:
    """The context of one task: a loop over steps, examples and classes."""
    features, labels = learner.encoder(task.support_x).detach(), task.support_y.tolist()
    context = torch.zeros(learner.context_width, dtype=torch.float64)
    for _ in range(learner.steps):
        context.requires_grad_()
        scale, shift = (learner.modulation @ context).chunk(2)
        rows = [(1 + scale) * feature + shift for feature in features]
        losses = []
        for i, row in enumerate(rows):
            logits = []
            for way in range(task.way):
                near = [rows[j] for j, label in enumerate(labels) if label == way and j != i]
                near = near or [row]
                middle = torch.stack([other / other.norm() for other in near]).mean(0)
                logits.append(torch.cosine_similarity(row, middle, dim=0))
            scores = torch.stack(logits) * learner.log_temperature.exp()
            losses.append(nn.functional.cross_entropy(scores, torch.tensor(labels[i])))
        (slope,) = torch.autograd.grad(torch.stack(losses).mean(), context)
        context = (context - learner.rate * slope).detach()
    return context


@pytest.mark.parametrize("strategy", ["unroll", "first"])
def test_a_context_descends_the_loss_of_each_example_beside_the_others(strategy: str) -> None:
    learner = CAVIA(vector_encoder(), context_width=4, rate=0.5, strategy=strategy)
    shaken(learner)
    tasks = [vector_task(), vector_task(way=2), vector_task(shot=1, queries=2)]
    episode = collate(tasks)
    state = learner.adapt(episode.support, episode.context)
    assert state.context.requires_grad is (strategy == "unroll")
    for found, task in zip(state.context, tasks, strict=True):
        expected = plain_context(learner, task)
        assert expected.norm() > 0.01
        close(found.detach(), expected, rtol=1e-9, atol=1e-11)


def test_a_context_finds_the_feature_that_counts() -> None:
    """Tasks whose classes differ in one feature among loud noise, and differ in which."""

    def task(place: int) -> Task:
        labels = torch.arange(2).repeat(110)
        x = 2 * torch.randn(220, 8, dtype=torch.float64)
        x[:, place] = torch.where(labels == 1, 1.0, -1.0)
        return Task(x[:20], labels[:20], x[20:], labels[20:], way=2)

    episode = collate([task(place) for place in range(8)])
    learner = CAVIA(RawEncoder(8), context_width=16, rate=1.0, steps=20).double()
    with torch.no_grad():
        # One number of the context for the scale of each feature, and one for its shift.
        learner.modulation.copy_(torch.eye(16))
    support, query, context = episode
    state = learner.adapt(support, context)
    before = state._replace(context=torch.zeros_like(state.context))
    plain, adapted = (
        learner.likelihood.task_score(learner.predict(each, query.x, context), query, context)
        for each in (before, state)
    )
    assert state.context[:, :8].argmax(1).tolist() == list(range(8))
    assert (adapted > plain).all()
    assert (adapted - plain).mean() > 0.1


# What they share


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Reptile, {"rate": 0.1}, {"rate": 1e200}),
        (ImplicitMAML, {"rate": 0.1}, {"rate": 0.1, "penalty": 1e200}),
    ],
)
def test_an_inner_loop_that_diverges_is_found(kind: type[Learner], good: dict, bad: dict) -> None:
    support, _, context = vector_episode()
    fine, wild = (kind(vector_encoder(), **options).double() for options in (good, bad))
    assert fine.trouble(support, context) == ""
    assert "of task 0 made" in wild.trouble(support, context)


@pytest.mark.parametrize("kind", [Reptile, ImplicitMAML])
def test_an_encoder_is_saved_once_and_copied_with_its_learner(kind: type[Learner]) -> None:
    learner = kind(vector_encoder())
    assert set(learner.state_dict()) == {f"encoder.{n}" for n in learner.encoder.state_dict()}
    other = copy.deepcopy(learner)
    assert other.fast.encoder is other.encoder
    assert other.encoder is not learner.encoder


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Reptile, {"steps": 0}, "at least 1; found 0"),
        (Reptile, {"rate": -1.0}, "positive; found -1.0"),
        (ImplicitMAML, {"penalty": 0.0}, "penalty must be positive; found 0.0"),
        (ImplicitMAML, {"solver_steps": -1}, "must not be negative; found -1"),
        (ImplicitMAML, {"adapt": "body"}, "another adapt than 'body'"),
        (ImplicitMAML, {"rate": 0.0}, "positive; found 0.0"),
        (CAVIA, {"context_width": 0}, "width of the context must be at least 1; found 0"),
        (CAVIA, {"steps": 0}, "inner steps must be at least 1; found 0"),
        (CAVIA, {"rate": 0.0}, "rate must be positive; found 0.0"),
        (CAVIA, {"temperature": -1.0}, "temperature must be positive; found -1.0"),
        (CAVIA, {"strategy": "sweep"}, "unroll or first; found 'sweep'"),
    ],
)
def test_a_bad_option_is_named(kind: type[Learner], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(vector_encoder(), **options)
