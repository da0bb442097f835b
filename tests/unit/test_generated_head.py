"""A head that is made of the examples of each class, then adapts: against a loop that is spelled out, also on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learner_table import shaken, vector_encoder
from quickstudy.episode import Task, collate
from quickstudy.functional import exact_derivatives
from quickstudy.learners.gradient import MAML
from quickstudy.nn.pretrained import HuggingFaceEncoder
from tiny_models import save_model

close = torch.testing.assert_close
RATE, STEPS = 0.3, 3


def task_of(rows: Any, shots: list[int], queries: int) -> Task:
    """A task whose examples are made by a function of their number."""
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    asked = torch.randint(len(shots), (queries,))
    return Task(rows(len(labels)), labels, rows(queries), asked, len(shots))


def two_tasks(rows: Any) -> list[Task]:
    return [task_of(rows, [1, 3, 2], 7), task_of(rows, [1, 2], 30)]


def vectors(count: int) -> Tensor:
    return torch.randn(count, 6, dtype=torch.float64)


def words(count: int) -> Tensor:
    tokens = torch.randint(4, 12, (count, 5))
    tokens[::3, 3:] = -1
    return tokens


def by_hand(learner: MAML, task: Task, *, first: bool) -> Tensor:
    """The loss of the queries of one task: a loop over classes, examples and steps, and autograd."""
    encoder, width = learner.encoder, learner.encoder.width
    norm, inner, _, outer = learner.of_examples.generate
    features = encoder(task.support_x)
    rows, shifts = [], []
    for way in range(task.way):
        own = [each for each, y in zip(features, task.support_y, strict=True) if y == way]
        said = []
        for feature in own:
            scaled = F.layer_norm(feature, (width,), norm.weight, norm.bias)
            said.append(outer.weight @ torch.tanh(inner.weight @ scaled + inner.bias))
        mean, found = torch.stack(own).mean(0), torch.stack(said).mean(0)
        rows.append((2 * mean + found[:width]) / width)
        shifts.append(found[width] - mean @ mean / width)
    names = learner.fast.names
    # Copies: a step moves the encoder while the head stays, though the head was made by it.
    weights = {name: encoder.get_parameter(name).clone() for name in names}
    weights |= {"rows": torch.stack(rows), "shifts": torch.stack(shifts)}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        own = {name: weights[name] for name in names}
        found = torch.func.functional_call(encoder, own, (x,))
        return F.cross_entropy(found @ weights["rows"].T + weights["shifts"], y)

    for _ in range(STEPS):
        value = loss(weights, task.support_x, task.support_y)
        slopes = torch.autograd.grad(value, list(weights.values()), create_graph=not first)
        moved = zip(weights.items(), slopes, strict=True)
        weights = {name: weight - RATE * slope for (name, weight), slope in moved}
    return loss(weights, task.query_x, task.query_y)


def check_gradient(learner: MAML, tasks: list[Task]) -> None:
    """Of everything that is trained, against that of the loop."""
    trained = {name: value for name, value in learner.named_parameters() if value.requires_grad}
    with exact_derivatives():
        each = [by_hand(learner, task, first=learner.strategy == "first") for task in tasks]
        right = torch.autograd.grad(torch.stack(each).mean(), list(trained.values()))
    loss = learner(collate(tasks))
    found = torch.autograd.grad(loss, list(trained.values()))
    close(loss, torch.stack(each).mean(), rtol=1e-12, atol=1e-12)
    tolerance = 1e-5 if learner.strategy == "fd" else 1e-9
    for name, own, other in zip(trained, found, right, strict=True):
        close(
            own,
            other,
            rtol=tolerance,
            atol=tolerance * 0.01,
            msg=lambda said, n=name: f"{n}: {said}",
        )
        # The bias of the keys of attention changes nothing.
        assert other.abs().max() > 1e-7 or ".key." in name, name


@pytest.mark.parametrize("adapt", ["last:1", "head"])
@pytest.mark.parametrize("strategy", ["unroll", "sweep", "sqrt", "first", "fd"])
def test_what_makes_it_is_trained_through_every_strategy(strategy: Any, adapt: str) -> None:
    options: dict[str, Any] = {"steps": STEPS, "rate": RATE, "adapt": adapt, "tasks_at_once": 2}
    learner = MAML(vector_encoder(layers=2), head="generated", strategy=strategy, **options)
    shaken(learner)
    check_gradient(learner, two_tasks(vectors))


@pytest.mark.parametrize(
    ("strategy", "adapt", "options"),
    [
        ("unroll", "lora", {"lora": 2}),
        ("sweep", "last:1", {"lora": 2}),
        ("first", "lora", {"lora": 2}),
        ("sweep", "last:1", {"frozen": False}),
    ],
)
def test_upper_layers_and_adapters_of_a_text_model_adapt_with_it(
    tmp_path: Path, strategy: Any, adapt: str, options: dict[str, Any]
) -> None:
    encoder = HuggingFaceEncoder(str(save_model(tmp_path)), words=8, **options)
    learner = MAML(
        encoder, head="generated", strategy=strategy, adapt=adapt, steps=STEPS, rate=RATE
    )
    shaken(learner).eval()
    moving = learner.fast.names
    assert moving
    assert ("lora_A" in moving[0]) == ("lora" in options)
    assert all("layer.1." in name for name in moving) == (adapt == "last:1")
    check_gradient(learner, two_tasks(words))


def test_before_it_is_trained_it_is_the_head_of_prototypes() -> None:
    episode = collate(two_tasks(vectors))
    states = []
    for head in ("prototypes", "generated"):
        torch.manual_seed(0)
        learner = MAML(vector_encoder(), head=head).double()
        states.append(learner.fast.initial(episode.support, episode.context))
    close(states[1], states[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "generator"}, "at zero, at the prototypes, or generated; found 'generator'"),
        ({"head": "generated", "values": 2}, "Found head='generated' beside values"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(vector_encoder(), **options)
