"""What the guides for users of other libraries say: our code runs, our names exist, our options are taken."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from quickstudy.learners.gradient import MAML
from quickstudy.nn.encoders import VectorEncoder

GUIDES = sorted((Path(__file__).parents[2] / "docs/how-to").glob("migrate-from-*.md"))
TEXTS = {guide.stem.removeprefix("migrate-from-"): guide.read_text("utf-8") for guide in GUIDES}
OURS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, block in enumerate(re.findall(r"```python\n# quickstudy\n(.*?)```", text, re.S))
]
NAMES = sorted(
    {name for text in TEXTS.values() for name in re.findall(r"`(quickstudy(?:\.\w+)+)", text)}
)
OPTIONS = sorted(
    {
        pair
        for text in TEXTS.values()
        for pair in re.findall(r'(strategy|adapt|rates|head)="([^"]+)"', text)
    }
)


def run(block: str) -> dict[str, object]:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(block, "guide", "exec"), names)
    return names


def test_the_blocks_are_found() -> None:
    assert set(TEXTS) == {"learn2learn", "higher-and-torchopt"}
    assert len(OURS) == 9
    assert len(NAMES) > 20
    assert len(OPTIONS) > 6


@pytest.mark.parametrize("block", OURS)
def test_our_code_runs_and_its_gradients_arrive(block: str) -> None:
    names = run(block)
    modules = [value for value in names.values() if isinstance(value, torch.nn.Module)]
    weights = [weight for module in modules for weight in module.parameters()]
    weights += [value for value in names.values() if isinstance(value, torch.nn.Parameter)]
    assert weights or "backward" not in block
    for weight in weights:
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


def test_the_momentum_is_that_of_torch() -> None:
    (block,) = [str(each.values[0]) for each in OURS if "momentum" in str(each.values[0])]
    names = run(block)
    x, y, shared, ends = (names[name] for name in ("x", "y", "shared", "ends"))
    for task in range(2):
        w = torch.zeros(3, requires_grad=True)
        rule = torch.optim.SGD([w], lr=shared["rate"].item(), momentum=shared["momentum"].item())
        for _ in range(10):
            rule.zero_grad()
            (x[task] @ w - y[task]).square().mean().backward()
            rule.step()
        torch.testing.assert_close(ends["w"][task], w, rtol=1e-5, atol=1e-6)


def test_a_task_at_rest_moves_with_whoever_pulls() -> None:
    (block,) = [str(each.values[0]) for each in OURS if "settle" in str(each.values[0])]
    names = run(block)
    pulled = names["w"].grad + names["centre"].grad
    torch.testing.assert_close(pulled, torch.full((3,), 2.0))


@pytest.mark.parametrize("name", NAMES)
def test_names_exist(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("option", "value"), [pair for pair in OPTIONS if pair[1] != "lora"])
def test_options_are_taken(option: str, value: str) -> None:
    assert MAML(VectorEncoder(2, width=8), **{option: value})
