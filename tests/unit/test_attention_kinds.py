"""Grouped, local and linear attention: each against the plainest way to write it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from learner_table import IN_CONTEXT, PROCESS
from quickstudy.episode import Context, Examples
from quickstudy.functional import exact_derivatives
from quickstudy.learners.context import InContext
from quickstudy.learners.neural_process import TransformerNeuralProcess
from quickstudy.nn.encoders import ImageEncoder, RawEncoder
from quickstudy.nn.layers import Attention, Transformer, and_itself, attention, options_of_manner
from quickstudy.nn.linear_attention import kernel_attention, kernel_sums
from quickstudy.nn.local_attention import local_attention

close = torch.testing.assert_close


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_linear_attention_is_an_explicit_double_loop(generator: torch.Generator) -> None:
    query, key, value, own_key, own_value = (normal(generator, n, 3) for n in (4, 5, 5, 4, 4))
    mask = torch.tensor([[True, False, True, True, True]])
    alone = torch.tensor([[True], [False], [True], [False]])
    sums = kernel_sums(key, value, mask)
    found = kernel_attention(query, sums, own_key, own_value, alone=alone)

    def feature(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.exp())

    for i in range(4):
        top, bottom = torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for j in range(5):
            if mask[0, j]:
                weight = feature(query[i]) @ feature(key[j])
                top, bottom = top + weight * value[j], bottom + weight
        if alone[i]:
            weight = feature(query[i]) @ feature(own_key[i])
            top, bottom = top + weight * own_value[i], bottom + weight
        close(found[i], top / bottom)


def test_plain_products_are_an_explicit_double_loop(generator: torch.Generator) -> None:
    query, key, value, own_key, own_value = (normal(generator, n, 3) for n in (4, 5, 5, 4, 4))
    mask = torch.tensor([[True, False, True, True, True]])
    alone = torch.tensor([[True], [False], [True], [False]])
    sums = kernel_sums(key, value, mask, plain=True)
    found = kernel_attention(query, sums, own_key, own_value, alone=alone, plain=True)
    for i in range(4):
        seen = [(key[j], value[j]) for j in (0, 2, 3, 4)] + [(own_key[i], own_value[i])] * alone[i]
        products = [(query[i] @ k) * v / 3**0.5 for k, v in seen]
        close(found[i], torch.stack(products).mean(0))


def test_one_layer_of_plain_products_can_take_a_step_of_gradient_descent(
    generator: torch.Generator,
) -> None:
    x, y, asked = (normal(generator, n, d) for n, d in ((6, 3), (6, 1), (2, 3)))
    # One step from zero on the mean squared error of a linear model: w = 2/n Σ y_i x_i at rate 1.
    expected = asked @ (2 / 6 * x.T @ y)
    sums = kernel_sums(x, (2 * 3**0.5) * y.expand(-1, 3), plain=True)
    nobody = torch.zeros(2, 1, dtype=torch.bool)
    found = kernel_attention(asked, sums, asked, asked, alone=nobody, plain=True)
    close(found, expected.expand(-1, 3))


@pytest.mark.parametrize("plain", [False, True])
def test_the_sums_of_two_memories_are_those_of_both(
    generator: torch.Generator, plain: bool
) -> None:
    key, value = normal(generator, 2, 7, 3), normal(generator, 2, 7, 3)
    whole = kernel_sums(key, value, plain=plain)
    parts = [
        kernel_sums(key[:, some], value[:, some], plain=plain)
        for some in (slice(3), slice(3, None))
    ]
    for one, first, second in zip(whole, *parts, strict=True):
        close(one, first + second)


def plain_local(
    query: Tensor, key: Tensor, value: Tensor, window: int, slots: int, known: Tensor
) -> Tensor:
    """The same by a mask of all pairs."""
    place = torch.arange(query.shape[-2])
    near = (place[:, None] - place).abs() <= window
    near = near | (place < slots) | (place < slots)[:, None]
    return attention(query, key, value, mask=and_itself(near & known))


@pytest.mark.parametrize("tokens", [1, 4, 9, 10])
@pytest.mark.parametrize(("window", "slots"), [(1, 0), (3, 0), (3, 2), (20, 1)])
def test_local_attention_is_attention_with_a_mask(
    generator: torch.Generator, tokens: int, window: int, slots: int
) -> None:
    query, key, value = (normal(generator, 2, 3, tokens + slots, 4) for _ in range(3))
    known = torch.rand(2, 1, 1, tokens + slots, generator=generator) < 0.7
    for mask in (None, known):
        seen = torch.tensor(True) if mask is None else mask
        found = local_attention(query, key, value, window=window, slots=slots, mask=mask)
        close(found, plain_local(query, key, value, window, slots, seen))


def test_grouped_attention_is_attention_with_repeated_keys(generator: torch.Generator) -> None:
    grouped, plain = (Attention(8, heads=4, groups=groups).double() for groups in (2, 0))
    assert grouped.key.out_features == 4
    plain.load_state_dict(
        {
            name: value.unflatten(0, (2, 1, 2)).expand(2, 2, 2, *value.shape[1:]).flatten(0, 2)
            if "key" in name or "value" in name
            else value
            for name, value in grouped.state_dict().items()
        }
    )
    x, memory = normal(generator, 3, 5, 8), normal(generator, 3, 7, 8)
    mask = torch.ones(3, 1, 1, 7, dtype=torch.bool)
    close(grouped(x), plain(x))
    close(grouped(x, memory), plain(x, memory))
    close(
        grouped.isolated(x, *grouped.memory(memory), mask=mask),
        plain.isolated(x, *plain.memory(memory), mask=mask),
    )
    assert grouped.memory(memory)[0].shape == (3, 2, 7, 2)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "options", [{"groups": 1}, {"linear": True}, {"linear": True, "groups": 2}]
)
def test_one_stream_is_a_memory_and_those_who_see_it(
    generator: torch.Generator, options: dict[str, int], grad: bool
) -> None:
    stack = Transformer(8, layers=3, heads=4, **options).double()  # type: ignore[arg-type]
    memory, x = normal(generator, 2, 6, 8), normal(generator, 2, 5, 8)
    seen = torch.tensor([[1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    mask = seen[:, None, None]
    among = mask if "linear" in options else and_itself(seen[:, None])[:, None]
    with torch.set_grad_enabled(grad):
        kept = stack.memorise(memory, mask=among)
        apart = stack.isolated(x, *kept, mask=mask)
        close(stack.together(memory, x, memory_mask=among, mask=mask), apart)
    assert apart.isfinite().all()
    if "linear" in options:
        assert {tensor.shape[-2] for tensor in kept} == {1, 2}


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"linear": True},
        {"window": 2},
        {"window": 2, "slots": 2},
        {"window": 2, "slots": 1, "rotary": True, "groups": 1},
    ],
)
def test_gradients_are_those_of_differences(
    generator: torch.Generator, options: dict[str, int]
) -> None:
    stack = Transformer(4, layers=2, heads=2, **options).double()  # type: ignore[arg-type]
    x = normal(generator, 1, 5, 4).requires_grad_()
    with exact_derivatives():
        assert torch.autograd.gradcheck(stack, x)
        assert torch.autograd.gradgradcheck(stack, x)


def test_distant_tokens_meet_only_by_slots(generator: torch.Generator) -> None:
    x = normal(generator, 1, 12, 8)
    other = x.clone()
    other[0, -1, 0] += 1
    for slots in (0, 2):
        stack = Transformer(8, layers=2, heads=2, window=2, slots=slots).double()
        change = (stack(x) - stack(other)).abs()[0, 0].max()
        assert (float(change.detach()) > 0) == bool(slots)
        assert stack(x).shape == x.shape


def saved_bytes(run: object) -> int:
    """What is kept for the gradient, each storage once."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = run()  # type: ignore[operator]
    assert loss.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("name", ["in_context", "neural_process"])
def test_memory_of_linear_attention_grows_linearly(name: str) -> None:
    def kept(examples: int, manner: str) -> int:
        x = torch.randn(1, examples, 2)
        mask = torch.ones(1, examples, dtype=torch.bool)
        context = Context(
            torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 0), torch.zeros(1, 2, 0)
        )
        if name == "in_context":
            learner = InContext(RawEncoder(2), **IN_CONTEXT, attention=manner)  # type: ignore[arg-type]
            y = (x[..., 0] > 0).long()
        else:
            learner = TransformerNeuralProcess(RawEncoder(2), **PROCESS, values=2, attention=manner)  # type: ignore[arg-type, assignment]
            y = x
        queries = torch.randn(1, 3, 2)

        def run() -> Tensor:
            state = learner.adapt(Examples(x, y, mask), context)
            return learner.predict(state, queries, context).sum()

        return saved_bytes(run)

    few, many = (kept(examples, "linear") for examples in (1000, 5000))
    assert many < 5.2 * few
    shorter, longer = (kept(examples, "standard") for examples in (200, 1000))
    assert longer > 10 * shorter
    assert 3 * few < longer


def test_what_does_not_go_together_is_refused() -> None:
    for options, words in (
        ({"groups": 3}, "multiple of the groups"),
        ({"slots": 1}, "go with a window"),
        ({"linear": True, "rotary": True}, "neither rotary"),
    ):
        with pytest.raises(ValueError, match=words):
            Attention(8, heads=4, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="all see one another"):
        Attention(8, heads=4, linear=True)(torch.zeros(1, 3, 8), causal=True)
    window = Attention(8, heads=4, window=1)
    with pytest.raises(ValueError, match="no positions"):
        window.isolated(
            torch.zeros(1, 3, 8), *2 * [torch.zeros(1, 4, 3, 2)], mask=torch.ones(1) > 0
        )
    with pytest.raises(ValueError, match="standard, grouped, linear"):
        options_of_manner("fast", 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs"):
        options_of_manner("grouped", 3)
    learner = InContext(RawEncoder(2), **IN_CONTEXT | {"bank": 2}, attention="linear")  # type: ignore[arg-type]
    support = Examples(torch.zeros(1, 3, 2), torch.arange(3)[None], torch.ones(1, 3) > 0)
    wide = Context(torch.ones(1, 3) > 0, torch.zeros(1, 0), torch.zeros(1, 3, 0))
    with pytest.raises(ValueError, match="at most 2 classes"):
        learner.adapt(support, wide)


@pytest.mark.parametrize(
    "options", [{"positions": "rotary"}, {"groups": 1}, {"window": 3, "slots": 2}]
)
def test_images_are_read_by_each(options: dict[str, object]) -> None:
    encoder = ImageEncoder(8, layers=2, heads=2, size=16, **options)  # type: ignore[arg-type]
    found = encoder(torch.rand(3, 1, 16, 16))
    assert found.shape == (3, 8)
    found.sum().backward()
    assert all(
        value.grad is not None and value.grad.isfinite().all() for value in encoder.parameters()
    )


def test_rotary_attention_knows_distances_only(generator: torch.Generator) -> None:
    layer = Attention(8, heads=2, rotary=True).double()
    x = normal(generator, 1, 3, 8)
    filler = torch.zeros(1, 2, 8, dtype=torch.float64)
    mask = torch.tensor([False, False, True, True, True])
    behind = layer(torch.cat([filler, x], 1), mask=and_itself(mask.expand(5, 5)))
    close(behind[:, 2:], layer(x))
    assert math.isfinite(float(behind.detach().sum()))
