"""The MetaTransformer: what it shapes, what it remembers, and what it makes of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner_table import image_encoder, ragged_episode, shaken
from quickstudy.build import BuildError, build_learner
from quickstudy.episode import Context, Episode, Examples, take_tasks, without_support
from quickstudy.learners import MAML, InContext, Learner, MetaTransformer, ProtoNet
from quickstudy.nn import encoders
from quickstudy.nn.encoders import Encoder, VectorEncoder
from quickstudy.nn.modulation import Modulation
from quickstudy.nn.words import bytes_of

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
SMALL = {"width": 8, "slots": 2, "heads": 2}


def encoder() -> Encoder:
    return VectorEncoder(3, width=8, layers=1)


def episode(tasks: int = 3, way: int = 3, shot: int = 2, seed: int = 0) -> Episode:
    generator = torch.Generator().manual_seed(seed)

    def examples(each: int) -> Examples:
        x = torch.randn(tasks, way * each, 3, generator=generator, dtype=torch.float64)
        y = torch.arange(way).repeat_interleave(each).expand(tasks, -1)
        return Examples(x, y, torch.ones(tasks, way * each, dtype=torch.bool))

    names = torch.zeros(tasks, way, 0, dtype=torch.int64)
    exists = torch.ones(tasks, way, dtype=torch.bool)
    return Episode(examples(shot), examples(4), Context(exists, torch.zeros(tasks, 0), names))


def named(found: Episode, names: list[str]) -> Episode:
    words = bytes_of(names)[None].expand(found.tasks, -1, -1)
    return found._replace(context=found.context._replace(names=words))


def answer(learner: Learner, found: Episode, state: object = None) -> Tensor:
    learned = learner.adapt(found.support, found.context, state)
    return learner.predict(learned, found.query.x, found.context)


def made(learner: Callable[..., Learner] = ProtoNet, **options: object) -> MetaTransformer:
    torch.manual_seed(0)
    return MetaTransformer(encoder(), learner=learner, **{**SMALL, **options})  # type: ignore[arg-type]


WRAPPED = [
    ProtoNet,
    partial(InContext, width=8, layers=1, heads=2, bank=4),
    partial(MAML, steps=2),
]


@pytest.mark.parametrize("kind", ["film", "lora", "none"])
@pytest.mark.parametrize("wrapped", WRAPPED, ids=["protonet", "in_context", "maml"])
def test_before_training_it_is_the_learner_that_it_wraps(
    wrapped: Callable[..., Learner], kind: str
) -> None:
    learner = made(wrapped, shape=kind, names=True).double().eval()
    plain = wrapped(encoder()).double().eval()
    plain.load_state_dict(learner.base.state_dict(), strict=False)
    plain.encoder.load_state_dict(learner.encoder.state_dict())
    found = episode()
    close(answer(learner, found), answer(plain, found))
    close(learner.outputs(found), answer(plain, found))


@pytest.mark.parametrize("wrapped", WRAPPED, ids=["protonet", "in_context", "maml"])
def test_the_short_way_of_an_episode_is_adapting_and_predicting(
    wrapped: Callable[..., Learner],
) -> None:
    learner = shaken(made(wrapped, names=True)).eval()
    assert isinstance(learner, MetaTransformer)
    found = named(episode(), ["alpha", "beta", ""])
    close(learner.outputs(found), answer(learner, found))


@pytest.mark.parametrize("bottleneck", [0, 3])
@pytest.mark.parametrize("kind", ["film", "lora"])
def test_layers_shaped_for_a_batch_are_layers_with_the_weights_of_each_task(
    kind: Literal["film", "lora"], bottleneck: int
) -> None:
    net = encoder().double()
    plain = Modulation({"encoder": net}, 4, kind=kind, rank=2, bottleneck=bottleneck)
    modulation = shaken(plain)
    assert isinstance(modulation, Modulation)
    numbers = modulation(torch.randn(2, 4, dtype=torch.float64))
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    with modulation.applied({"encoder": net}, numbers):
        together = net(x.flatten(0, 1)).unflatten(0, (2, 5))
    start = {f"encoder.{n}": p.expand(2, *p.shape) for n, p in net.named_parameters()}
    weights = modulation.weights(start, numbers)
    for task in range(2):
        own = {n.removeprefix("encoder."): value[task] for n, value in weights.items()}
        close(together[task], torch.func.functional_call(net, own, (x[task],)))
    assert "forward" not in net.norm.__dict__
    assert not torch.allclose(together[0], net(x[0]))


def test_a_bottleneck_that_is_not_narrow_is_left_out() -> None:
    shapes = {
        bottleneck: [
            p.shape
            for p in Modulation({"encoder": encoder()}, 4, bottleneck=bottleneck).parameters()
        ]
        for bottleneck in (0, 3, 4, 9)
    }
    assert shapes[0] == shapes[4] == shapes[9]
    assert len(shapes[3]) == len(shapes[0]) + 2


def test_layers_are_as_they_were_after_an_error() -> None:
    net = encoder()
    modulation = Modulation({"encoder": net}, 4)
    with (
        pytest.raises(ValueError, match="at most 3 numbers"),
        modulation.applied({"encoder": net}, modulation(torch.ones(1, 4))),
    ):
        net(torch.zeros(1, 9))
    assert all("forward" not in part.__dict__ for part in net.modules())


def test_an_encoder_that_goes_in_pieces_is_shaped_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    learner = shaken(MetaTransformer(image_encoder(), learner=ProtoNet, **SMALL)).eval()  # type: ignore[arg-type]
    assert isinstance(learner, Learner)
    found = ragged_episode()
    whole = answer(learner, found)
    for most in (1, 3, 8):
        size = most * learner.encoder.bytes_per_example
        monkeypatch.setattr(encoders, "LARGEST_CPU_TENSOR", size)
        monkeypatch.setattr("quickstudy.learners.memory.LARGEST_CPU_TENSOR", size)
        close(answer(learner, found), whole)


# Memory


def test_the_task_before_counts_and_can_be_forgotten() -> None:
    learner = shaken(made()).eval()
    assert isinstance(learner, MetaTransformer)
    first, second, other = (episode(seed=seed) for seed in (0, 1, 2))
    before = learner.carry(learner.adapt(first.support, first.context))
    elsewhere = learner.carry(learner.adapt(other.support, other.context))
    fresh = answer(learner, second)
    remembering = answer(learner, second, before)
    assert not torch.allclose(remembering, fresh)
    assert not torch.allclose(remembering, answer(learner, second, elsewhere))
    learner.remembers = False
    close(answer(learner, second, before), fresh)


def test_what_is_carried_is_the_memory_and_what_classes_were_called_and_look_like() -> None:
    learner = shaken(made(names=True)).eval()
    assert isinstance(learner, MetaTransformer)
    found = named(episode(), ["one", "two", "three"])
    state = learner.adapt(found.support, found.context)
    left = {"memory", "earlier.names", "earlier.looks"}
    assert set(learner.carry(state)) == left  # type: ignore[arg-type]
    assert {"memory", "shape", "head", "counts", "named", "base.sums"} <= set(state)


def test_more_support_reaches_memory_and_leaves_the_shape() -> None:
    learner = shaken(made()).eval()
    assert isinstance(learner, MetaTransformer)
    first, more = episode(seed=0), episode(seed=1)
    state = learner.adapt(first.support, first.context)
    later = learner.adapt(more.support, more.context, state)
    assert torch.equal(later["shape"], state["shape"])
    assert not torch.allclose(later["memory"], state["memory"])
    assert torch.equal(later["base.counts"], 2 * state["base.counts"])


def test_a_memory_of_many_tasks_stays_finite() -> None:
    learner = shaken(made()).eval()
    assert isinstance(learner, MetaTransformer)
    carried = None
    for seed in range(60):
        found = episode(tasks=1, seed=seed)
        carried = learner.carry(learner.adapt(found.support, found.context, carried))
    assert carried is not None
    assert carried["memory"].abs().max() < 100


def test_parts_can_be_switched_off() -> None:
    learner = shaken(made(names=True)).eval()
    assert isinstance(learner, MetaTransformer)
    plain = episode()
    found = named(plain, ["one", "two", "three"])
    whole = answer(learner, found)
    learner.describes = False
    undescribed = answer(learner, found)
    assert not torch.allclose(undescribed, whole)
    close(undescribed, answer(learner, plain))
    learner.describes, learner.modulates = True, False
    assert not torch.allclose(answer(learner, found), whole)


# Names and descriptions


def test_a_class_can_be_told_by_its_name_alone() -> None:
    learner = shaken(made(names=True)).eval()
    found = named(episode(), ["red", "green", "blue"])
    nothing = found._replace(support=without_support(found.support))
    outputs = answer(learner, nothing)  # type: ignore[arg-type]
    assert outputs.abs().max() < 1e3
    assert (outputs.std(-1) > 1e-3).all()
    moved = named(nothing, ["blue", "red", "green"])
    close(answer(learner, moved)[..., [1, 2, 0]], outputs)  # type: ignore[arg-type]
    same = named(nothing, ["red", "red", "blue"])
    close(*answer(learner, same)[..., :2].unbind(-1))  # type: ignore[arg-type]


def test_a_class_without_example_or_name_is_no_answer() -> None:
    learner = shaken(made(names=True)).eval()
    found = named(episode(), ["red", "green", ""])
    known = found.support._replace(mask=found.support.mask & (found.support.y == 0))
    outputs = answer(learner, found._replace(support=known))  # type: ignore[arg-type]
    assert (outputs[..., :2].abs() < 1e3).all()
    assert (outputs[..., 2] < -1e3).all()


def test_words_and_numbers_describe_a_task() -> None:
    plain = episode()
    spoken = plain.context._replace(description=bytes_of(["a", "much longer one", ""]))
    learner = shaken(made(names=True)).eval()
    described = answer(learner, plain._replace(context=spoken))  # type: ignore[arg-type]
    without = answer(learner, plain)  # type: ignore[arg-type]
    assert not torch.allclose(described[:2], without[:2])
    close(described[2], without[2])

    measured = plain.context._replace(description=torch.randn(3, 2, dtype=torch.float64))
    learner = shaken(made(numbers=2)).eval()
    by_numbers = answer(learner, plain._replace(context=measured))  # type: ignore[arg-type]
    assert not torch.allclose(by_numbers, answer(learner, plain))  # type: ignore[arg-type]
    wrong = plain._replace(context=plain.context._replace(description=torch.zeros(3, 5)))
    with pytest.raises(ValueError, match="5 numbers, but this learner takes 2"):
        answer(learner, wrong)  # type: ignore[arg-type]


def test_training_leaves_out_what_is_said_of_some_tasks() -> None:
    learner = shaken(made(names=True, left_out=0.5)).train()
    assert isinstance(learner, MetaTransformer)
    found = named(episode(tasks=60, way=2), ["one", "two"])
    torch.manual_seed(0)
    shown = learner.describe(found.support, found.context).named.all(1)
    assert 15 < int(shown.sum()) < 45
    first_only = found.support._replace(mask=found.support.mask & (found.support.y == 0))
    assert learner.describe(first_only, found.context).named.all()
    learner.eval()
    assert learner.describe(found.support, found.context).named.all()


class Reader(Encoder):
    """Texts, and names, as the mean of the vectors of their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.table = nn.Embedding(257, 8, padding_idx=256)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return bytes_of(texts)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(torch.where(x < 0, 256, x)).sum(1)


def test_an_encoder_that_reads_names_knows_classes_by_them_before_training() -> None:
    torch.manual_seed(0)
    learner = MetaTransformer(Reader(), learner=ProtoNet, shape="none", names=True, **SMALL)  # type: ignore[arg-type]
    learner = learner.double().eval()
    words = ["weather", "banking", "travel"]
    texts = bytes_of([*words, "weathers", "bank"])[None]
    names = bytes_of(words)[None]
    context = Context(torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 0), names)
    support = Examples(texts[:, :3], torch.tensor([[0, 1, 2]]), torch.ones(1, 3, dtype=torch.bool))
    nothing = learner.adapt(without_support(support), context)
    outputs = learner.predict(nothing, texts, context)

    def direction(words: Tensor) -> Tensor:
        found = learner.encoder(words)
        return F.normalize(found - found.mean(-1, keepdim=True), dim=-1)

    cosine = direction(texts[0]) @ direction(names[0]).T
    close(outputs[0], 10 * cosine, rtol=1e-3, atol=1e-3)
    assert outputs[0, :3].argmax(-1).tolist() == [0, 1, 2]
    # The more examples, the less the name alone says.
    once = learner.adapt(support, context)
    assert once["head"].norm() < nothing["head"].norm()


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learner": {"name": "maml", "stps": 1}}, "no option 'stps'"),
        ({"learner": "mamal"}, "no learner named 'mamal'"),
        ({"learner": {"name": "maml", "adapt": "head"}}, "let more of the encoder adapt"),
        ({"learner": 7}, "must be the name of a learner"),
        ({"values": 1}, "ProtoNet tells classes apart"),
        ({"shape": "twist"}, "film or lora or none"),
        ({"slots": 0}, "at least 1"),
        ({"left_out": 2}, "chance"),
    ],
)
def test_what_cannot_be_built_says_why(options: dict, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build_learner({"name": "meta_transformer", **options}, {"name": "vector", "inputs": 3})


def test_nothing_to_shape_is_refused() -> None:
    with pytest.raises(BuildError, match="Nothing can be modulated"):
        build_learner({"name": "meta_transformer"}, {"name": "raw", "inputs": 3})


def test_a_config_builds_the_wrapped_learner_with_its_options(tmp_path: Path) -> None:
    spec = {
        "name": "meta_transformer",
        "learner": {"name": "maml", "steps": "3"},
        "values": 2,
        "width": 8,
        "heads": 2,
    }
    learner = build_learner(spec, {"name": "vector", "inputs": 3, "width": 8})
    assert isinstance(learner, MetaTransformer)
    assert isinstance(learner.base, MAML)
    assert (learner.base.fast.steps, learner.inner_loop, learner.base.encoder) == (
        3,
        True,
        learner.encoder,
    )
    names = [name for name, _ in learner.named_parameters()]
    assert len(names) == len(set(names))
    assert not any(name.startswith("base.encoder") for name in learner.state_dict())


def test_one_task_of_a_batch_is_that_task_alone() -> None:
    learner = shaken(made(names=True)).eval()
    found = named(episode(), ["red", "green", "blue"])
    whole = answer(learner, found)  # type: ignore[arg-type]
    for task in range(3):
        close(answer(learner, take_tasks(found, slice(task, task + 1))), whole[task : task + 1])  # type: ignore[arg-type]


def test_a_state_of_something_else_is_refused_by_a_sentence() -> None:
    learner, other = made(ProtoNet).eval(), made(ProtoNet, slots=3).eval()
    assert isinstance(learner, MetaTransformer)
    given = episode()
    support, query, context = given
    state = learner.adapt(support, context)
    one = take_tasks(given, slice(1))
    plain = ProtoNet(encoder()).double().eval()
    wrong = {
        "of the same tasks": lambda: learner.adapt(one.support, one.context, learner.carry(state)),
        "as many slots": lambda: other.adapt(support, context, state),
        "dictionary with its memory; found PrototypeState": lambda: learner.predict(
            plain.adapt(support, context), query.x, context
        ),
        "what carry left of a task": lambda: learner.predict(
            learner.carry(state), query.x, context
        ),
        "knows 3 classes, but the tasks have 2": lambda: learner.predict(
            state, query.x, context._replace(classes=context.classes[:, :2])
        ),
    }
    for said, do in wrong.items():
        with pytest.raises(ValueError, match=said):
            do()
    with pytest.raises(ValueError, match="dictionary with its memory"):
        learner.carry(plain.adapt(support, context))


@pytest.mark.parametrize("wrapped", [ProtoNet, partial(MAML, steps=1)], ids=["protonet", "maml"])
def test_named_classes_of_another_number_are_refused(wrapped: Callable[..., Learner]) -> None:
    learner, nameless = made(wrapped, names=True).eval(), made(wrapped).eval()
    support, query, context = named(episode(), ["alpha", "beta", ""])
    fewer = context._replace(classes=context.classes[:, :2], names=context.names[:, :2])
    state = learner.adapt(support, context)
    for do in (
        lambda: learner.predict(state, query.x, fewer),
        lambda: learner.adapt(support, fewer, state),
    ):
        with pytest.raises(ValueError, match="knows 3 classes, but the tasks have 2"):
            do()
    with pytest.raises(ValueError, match="reads names, and the state is of one that does not"):
        learner.predict(nameless.adapt(support, context), query.x, context)


def test_a_learner_that_is_built_cannot_be_shaped() -> None:
    with pytest.raises(
        ValueError, match=r"given as a class, such as ProtoNet or functools\.partial"
    ):
        MetaTransformer(encoder(), learner=ProtoNet(encoder()))
    with pytest.raises(ValueError, match="found 'protonet'"):
        MetaTransformer(encoder(), learner="protonet")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"width": 0}, {"width": -4}, {"heads": 0}])
def test_sizes_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        MetaTransformer(encoder(), learner=ProtoNet, **options)  # type: ignore[arg-type]
