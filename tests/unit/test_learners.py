"""Each learner against the truth that exists for it: another implementation, a loop, a closed form."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from learner_table import image_encoder, ragged_episode, ragged_tasks, shaken, vector_encoder
from quickstudy.episode import (
    Context,
    Episode,
    EpisodeError,
    Examples,
    Task,
    collate,
    take_tasks,
)
from quickstudy.functional import exact_derivatives
from quickstudy.learners.base import Learner
from quickstudy.learners.closed_form import LinearHead, Ridge
from quickstudy.learners.context import InContext
from quickstudy.learners.gradient import MAML
from quickstudy.learners.label_codes import simplex
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import Encoder, RawEncoder, VectorEncoder

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


# Metric


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_protonet_is_a_loop_over_classes(distance: str) -> None:
    task = vector_task()
    learner = ProtoNet(RawEncoder(6), distance=distance, temperature=3.0).double()
    outputs = answer(learner, collate([task]))[0]
    for query, logits in zip(task.query_x, outputs, strict=True):
        for way in range(3):
            own = task.support_x[task.support_y == way]
            if distance == "cosine":
                unit = own / own.norm(dim=1, keepdim=True)
                expected = 3 * torch.cosine_similarity(query, unit.mean(0), dim=0)
            else:
                expected = -3 * (query - own.mean(0)).square().sum() / 6
            close(logits[way], expected, rtol=1e-6, atol=1e-7)


# Gradient


def loop_loss(learner: MAML, episode: Episode, *, order: str) -> Tensor:
    """MAML written as in the paper: a loop over tasks and plain autograd, with a copy of every weight."""
    losses = []
    with exact_derivatives():
        for index in range(episode.tasks):
            one = take_tasks(episode, slice(index, index + 1))
            own = dict(learner.encoder.named_parameters())
            adapted = [*learner.fast.names, "head"]
            fast = {**own, "head": torch.zeros(one.context.classes.shape[1], 9).double()}
            fast["head"].requires_grad_()

            def loss(part: Examples, fast: dict[str, Tensor], one: Episode = one) -> Tensor:
                weights = {name: value for name, value in fast.items() if name != "head"}
                features = torch.func.functional_call(learner.encoder, weights, (part.x[0],))
                rows = torch.nn.functional.pad(features, (0, 1), value=1.0)
                return learner.likelihood.nll((rows @ fast["head"].T)[None], part, one.context)

            for _ in range(learner.fast.steps):
                slopes = torch.autograd.grad(
                    loss(one.support, fast),
                    [fast[name] for name in adapted],
                    create_graph=order == "second",
                )
                moves = dict(zip(adapted, slopes, strict=True))
                fast |= {name: fast[name] - learner.sizes.rate * moves[name] for name in adapted}
            losses.append(loss(one.query, fast))
    return torch.stack(losses).mean()


def shaken_maml(**options: object) -> MAML:
    torch.manual_seed(0)
    learner = shaken(MAML(image_encoder(), rate=0.3, steps=3, **options))
    assert isinstance(learner, MAML)
    return learner


@cache
def by_a_loop(adapt: str, order: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss and meta-gradient of the loop, which knows of no strategy and no chunks."""
    learner = shaken_maml(adapt=adapt)
    loss = loop_loss(learner, ragged_episode(), order=order)
    return loss.detach(), torch.autograd.grad(loss, list(learner.parameters()))


@pytest.mark.parametrize("strategy", ["auto", "unroll", "sweep", "sqrt", "fd", "first"])
@pytest.mark.parametrize("adapt", ["all", "norms", "head"])
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_maml_equals_a_loop_over_tasks(strategy: str, adapt: str, chunk: int) -> None:
    learner = shaken_maml(strategy=strategy, adapt=adapt, tasks_at_once=chunk)
    loss = learner(ragged_episode())
    expected, gradient = by_a_loop(adapt, "first" if strategy == "first" else "second")
    close(loss.detach(), expected, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(loss, list(learner.parameters()))
    for own, other in zip(found, gradient, strict=True):
        loose = 1e-4 if strategy == "fd" else 1
        close(own, other, rtol=1e-9 / loose, atol=1e-11 / loose)


def test_first_order_is_the_gradient_of_the_query_loss_at_the_fast_weights() -> None:
    learner = shaken(MAML(vector_encoder(), rate=0.5, steps=2, strategy="first"))
    episode = collate([vector_task()])
    learner(episode).backward()
    state = {
        name: value.detach().requires_grad_()
        for name, value in learner.adapt(episode.support, episode.context).items()
    }
    outputs = learner.predict(state, episode.query.x, episode.context)
    learner.likelihood.nll(outputs, episode.query, episode.context).backward()
    for name, value in learner.encoder.named_parameters():
        assert value.grad.any() or name.endswith("bias")
        close(value.grad, state[f"encoder.{name}"].grad[0])


def test_the_first_step_moves_the_head_alone() -> None:
    """All classes begin with one row, so features have no slope until the rows differ."""
    episode = ragged_episode()
    once, twice = (shaken(MAML(image_encoder(), steps=steps)) for steps in (1, 2))
    for learner, moves in ((once, False), (twice, True)):
        state = learner.adapt(episode.support, episode.context)
        start = learner.fast.initial(episode.support, episode.context)
        moved = [not torch.equal(state[name], start[name]) for name in learner_encoder(state)]
        assert any(moved) is moves
        assert state["head.weight"].any()


def learner_encoder(state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if name.startswith("encoder.")]


class Crowded(Encoder):
    """An encoder with a frozen, an unused and a tied parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.frozen = nn.Linear(6, 6)
        self.frozen.requires_grad_(False)
        self.unused = nn.Linear(6, 6)
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(self.frozen(x))))


@pytest.mark.parametrize("strategy", ["unroll", "sweep", "first"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_frozen_unused_and_tied_parameters_do_no_harm(strategy: str, chunk: int) -> None:
    learner = MAML(Crowded(), strategy=strategy, steps=2, rate=0.5, tasks_at_once=chunk).double()
    episode = collate([vector_task(), vector_task(way=2)])
    assert not any(name.startswith("frozen") for name in learner.fast.names)
    state = learner.adapt(episode.support, episode.context)
    assert torch.equal(state["encoder.unused.weight"][0], learner.encoder.unused.weight)
    learner(episode).backward()
    assert learner.encoder.frozen.weight.grad is None
    assert learner.encoder.first.weight.grad.any()
    learner.requires_grad_(False)
    served = learner.adapt(episode.support, episode.context)
    close(served, {name: value.detach() for name, value in state.items()})


def test_the_key_bias_has_no_slope_and_no_nan() -> None:
    learner = shaken(MAML(image_encoder(), steps=3, rate=0.3))
    learner(ragged_episode()).backward()
    slope = learner.encoder.transformer.blocks[0].attention.key.bias.grad
    assert slope.abs().max() < 1e-12


def test_the_inner_loop_runs_without_dropout() -> None:
    encoder = VectorEncoder(6, width=8, layers=1)
    encoder.layers[0].append(nn.Dropout(0.5))
    learner = MAML(encoder, steps=2).double().train()
    support, _, context = collate([vector_task()])
    first, second = (learner.adapt(support, context) for _ in range(2))
    close(first, second, rtol=0, atol=0)


def test_adapting_again_takes_more_steps() -> None:
    episode = ragged_episode()
    encoder = shaken(image_encoder())
    short, long = (MAML(encoder, steps=steps).double() for steps in (2, 4))
    support, context = episode.support, episode.context
    twice = short.adapt(support, context, short.adapt(support, context))
    close(twice, long.adapt(support, context))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "positive; found 0.0"),
        ({"steps": 0}, "at least 1; found 0"),
        ({"strategy": "third"}, "auto, unroll, sweep, sqrt, fd, first; found 'third'"),
        ({"tasks_at_once": -1}, "found -1"),
        ({"adapt": "torso"}, "No trainable parameter matches 'torso'"),
        ({"rates": "wild"}, "fixed, tensor, element, step, curvature; found 'wild'"),
        ({"head": "long"}, "at zero, at the prototypes, or generated; found 'long'"),
    ],
)
def test_maml_names_a_bad_option(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(vector_encoder(), **options)


# In context


@pytest.mark.parametrize(("count", "width"), [(2, 1), (5, 4), (5, 16), (64, 64)])
def test_label_codes_are_equiangular(count: int, width: int) -> None:
    codes = simplex(count, width).double()
    expected = torch.full((count, count), -1 / (count - 1)).double().fill_diagonal_(1)
    close(codes @ codes.T, expected, rtol=0, atol=1e-6)
    assert torch.equal(simplex(count, width), simplex(count, width))


def in_context(**options: int) -> InContext:
    learner = InContext(vector_encoder(), **{"width": 8, "heads": 2, "bank": 9, **options})
    shaken(learner)
    return learner.eval()


def test_each_query_is_a_sequence_of_its_own() -> None:
    """The isolated queries against the whole Transformer over [support, query], once for each query."""
    learner = in_context()
    episode = collate([vector_task()])
    state = learner.adapt(episode.support, episode.context)
    outputs = learner.predict(state, episode.query.x, episode.context)[0]
    codes = learner.bank_codes[state.codes[0]]
    support = learner.project(learner.encode(episode.support.x))[0] + codes[episode.support.y[0]]
    features = learner.encode(episode.query.x)[0]
    means = torch.stack(
        [
            nn.functional.normalize(state.features[0, episode.support.y[0] == way], dim=1).mean(0)
            for way in range(3)
        ]
    )
    for feature, logits in zip(features, outputs, strict=True):
        sequence = torch.cat([support, (learner.project(feature) + learner.unknown)[None]])
        seen = torch.ones(13, 13, dtype=torch.bool)
        seen[:12, 12] = False
        hidden = learner.transformer(sequence[None], mask=seen)[0, -1]
        cosine = torch.cosine_similarity(feature[None], means)
        read = codes @ learner.read(hidden) / 8**0.5
        close(logits, (cosine + read) * learner.log_temperature.exp(), rtol=1e-9, atol=1e-9)


def test_codes_are_dealt_by_content_and_every_code_is_dealt() -> None:
    learner = in_context()
    tasks = [vector_task() for _ in range(60)]
    episode = collate(tasks)
    codes = learner.adapt(episode.support, episode.context).codes
    assert all(len(set(row)) == 3 for row in codes.tolist())
    for way in range(3):
        assert set(codes[:, way].tolist()) == set(range(9))
    place = torch.tensor([2, 0, 1])
    renamed = collate([task._replace(support_y=place[task.support_y]) for task in tasks])
    assert torch.equal(learner.adapt(renamed.support, renamed.context).codes[:, place], codes)


def test_before_training_it_is_a_prototypical_network() -> None:
    encoder = vector_encoder().double()
    learner = InContext(encoder, width=8, heads=2, bank=9).double()
    episode = collate([vector_task()])
    choices = (answer(each.double(), episode).argmax(-1) for each in (learner, ProtoNet(encoder)))
    assert torch.equal(*choices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bank": 10}, "10 label codes needs a width of at least 9; found a width of 8"),
        ({"bank": 1}, "at least 2 label codes"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"ensemble": 0}, "at least 1 member; found 0"),
        ({"ensemble_over": "tasks"}, "over codes or features; found 'tasks'"),
    ],
)
def test_in_context_names_a_bad_option(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_context(**options)


# All


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda e: ProtoNet(e, distance="manhattan"), "cosine or euclidean; found 'manhattan'"),
        (lambda e: ProtoNet(e, temperature=-1), "temperature must be positive"),
    ],
)
def test_a_bad_option_is_named(build: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(RawEncoder(2))


@pytest.mark.parametrize("kind", [ProtoNet, Ridge, LinearHead, InContext])
def test_a_class_without_examples_is_never_the_answer(kind: type[Learner]) -> None:
    task = vector_task()
    kept = task.support_y != 1
    poor = task._replace(support_x=task.support_x[kept], support_y=task.support_y[kept])
    outputs = answer(shaken(kind(vector_encoder())).eval(), collate([poor]))
    assert (outputs.argmax(-1) != 1).all()


@pytest.mark.parametrize("kind", [ProtoNet, Ridge, LinearHead, InContext])
def test_mixed_precision_gives_finite_answers(kind: type[Learner]) -> None:
    tasks = [
        task._replace(support_x=task.support_x.float(), query_x=task.query_x.float())
        for task in ragged_tasks()
    ]
    learner = kind(image_encoder())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = learner(collate(tasks))
    loss.backward()
    assert all(value.grad.isfinite().all() for value in learner.parameters())


def test_nothing_is_carried_to_the_next_task_by_default() -> None:
    learner = ProtoNet(RawEncoder(6))
    support, _, context = collate([vector_task()])
    assert learner.carry(learner.adapt(support, context)) is None
    assert isinstance(context, Context)


def test_labels_of_another_kind_are_refused_by_a_sentence() -> None:
    y = torch.arange(3.0)
    numbers = collate([Task(torch.zeros(3, 6), y, torch.zeros(3, 6), y, way=3)])
    with pytest.raises(
        EpisodeError, match=r"labels are float32, .* tells classes apart; give int64"
    ):
        ProtoNet(vector_encoder())(numbers)
    classes = collate([vector_task()])
    with pytest.raises(EpisodeError, match=r"labels are int64, .* predicts floats; give floats"):
        MAML(vector_encoder(), values=3)(classes)


def test_another_module_than_an_encoder_is_refused() -> None:
    with pytest.raises(TypeError, match=r"stands on a .*Encoder.*; found Linear\. Derive your own"):
        ProtoNet(nn.Linear(4, 2))  # type: ignore[arg-type]
