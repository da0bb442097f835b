"""What a class may look like by those with names like its own: by hand, from a memory, and in the whole."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.episode import Context, Episode, Examples
from quickstudy.learners import similar_names
from quickstudy.learners.memory import MetaTransformer
from quickstudy.learners.similar_names import (
    LEAST,
    LOOK_SHARPNESS,
    NAME_SHARPNESS,
    Called,
    SimilarNames,
    kept,
    remembered,
)
from quickstudy.nn.encoders import Encoder, RawEncoder
from quickstudy.nn.words import bytes_of

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
NAMES = ["lao ko", "lao kho", "thai ko", "thai kho", "lao ngo"]


def guessing() -> SimilarNames:
    return SimilarNames(buckets=2**20).double()


def classes(names: list[str], *, unseen: tuple[int, ...] = (), seed: int = 0) -> Called:
    looks = torch.randn(1, len(names), 3, generator=torch.Generator().manual_seed(seed))
    looks = F.normalize(F.layer_norm(looks.double(), (3,)), dim=-1)
    looks[:, list(unseen)] = 0
    return Called(bytes_of(names)[None], looks)


def state_of(called: Called, earlier: Called | None = None) -> dict[str, Tensor]:
    """The state of a task, and its guesses."""
    state = {"names": called.names, "looks": called.looks, "counts": counts_of(called)}
    if earlier is not None:
        state |= {"earlier.names": earlier.names, "earlier.looks": earlier.looks}
    return state | {"shares": guessing().shares(state)}


def left(earlier: Called | None, called: Called) -> Called | None:
    """What the next task finds of a task and those before it."""
    return remembered(kept(state_of(called, earlier)))


def guesses(called: Called, x: Tensor, earlier: Called | None = None) -> Tensor:
    return guessing()(x, state_of(called, earlier))


def counts_of(called: Called) -> Tensor:
    return called.looks.any(-1).long()


def queries(seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 4, 3, generator=generator, dtype=torch.float64)


def runs_of(name: str) -> set[str]:
    text = f"<{name}>"
    return {
        text[first : first + length]
        for length in range(1, 5)
        for first in range(len(text) - length + 1)
    }


def by_hand(called: Called, names: list[str], x: Tensor) -> Tensor:
    """The guesses of one task, query by query and class by class, with sets of runs in place of hashed tables."""
    runs = [runs_of(name) if name else set() for name in names]
    named = sum(map(bool, runs))
    weight = {
        run: math.log((1 + named) / sum(run in each for each in runs)) for run in set().union(*runs)
    }

    def cosine(one: set[str], two: set[str]) -> float:
        size = [math.sqrt(sum(weight[run] ** 2 for run in each)) for each in (one, two)]
        return sum(weight[run] ** 2 for run in one & two) / (size[0] * size[1])

    def softmax(values: list[float]) -> list[float]:
        total = sum(map(math.exp, values))
        return [math.exp(value) / total for value in values]

    looks = called.looks[0]
    seen = [j for j in range(len(names)) if names[j] and looks[j].any()]
    found = torch.zeros(len(x[0]), len(names), dtype=torch.float64)
    for c in range(len(names)):
        if not names[c] or looks[c].any():
            continue
        alike = softmax([NAME_SHARPNESS * cosine(runs[c], runs[j]) for j in seen])
        for q, query in enumerate(x[0]):
            centred = query - query.mean()
            centred = centred / centred.norm()
            likely = softmax([LOOK_SHARPNESS * float(centred @ looks[j]) for j in seen])
            both = sum(p * a for p, a in zip(likely, alike, strict=True))
            found[q, c] = math.log(LEAST + len(seen) * both)
    return found


@pytest.mark.parametrize("unseen", [(1,), (0, 3), (1, 2, 4)])
def test_the_guess_is_the_formula(unseen: tuple[int, ...]) -> None:
    called, x = classes(NAMES, unseen=unseen), queries()
    close(guesses(called, x)[0], by_hand(called, NAMES, x))


def test_classes_without_a_name_or_an_example_say_nothing() -> None:
    names, x = [*NAMES, "", "lao bo"], queries()
    called = classes(names, unseen=(1, 6))
    found = guesses(called, x)
    assert found[0, :, [1, 6]].all()
    assert not found[0, :, [0, 2, 3, 4, 5]].any()
    # Without the class that has no name, its looks count for nothing either.
    fewer = [0, 1, 2, 3, 4, 6]
    less = Called(called.names[:, fewer], called.looks[:, fewer])
    close(guesses(less, x), found[..., fewer])


def test_a_class_with_an_example_is_not_guessed() -> None:
    assert not guesses(classes(NAMES), queries()).any()


@pytest.mark.parametrize("floating", [False, True])
def test_what_an_earlier_task_showed_counts_as_what_this_one_shows(floating: bool) -> None:
    called, x = classes(NAMES, unseen=(3, 4)), queries()
    if floating:
        spoken = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1))
        called = called._replace(names=spoken.double())
    whole = guesses(called, x)
    first, second = (
        Called(called.names[:, part], called.looks[:, part]) for part in (slice(3), slice(3, 5))
    )
    assert whole[..., 3:].all()
    close(guesses(second, x, left(None, first)), whole[..., 3:])


def test_read_by_an_encoder_names_are_as_near_as_their_cosines() -> None:
    called, x = classes(NAMES, unseen=(2,)), queries()
    spoken = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1)).double()
    found = guesses(called._replace(names=spoken), x)
    seen = [0, 1, 3, 4]
    normed = F.normalize(F.layer_norm(spoken[0], (6,)), dim=-1)
    alike = (NAME_SHARPNESS * normed[2] @ normed[seen].T).softmax(0)
    asked = F.normalize(F.layer_norm(x[0], (3,)), dim=-1)
    likely = (LOOK_SHARPNESS * asked @ called.looks[0, seen].T).softmax(1)
    close(found[0, :, 2], torch.log(LEAST + 4 * likely @ alike))


def test_of_tasks_side_by_side_each_is_as_alone() -> None:
    one, two = classes(NAMES, unseen=(1,)), classes(NAMES[::-1], unseen=(0, 2), seed=1)
    both = Called(*(torch.cat(parts) for parts in zip(one, two, strict=True)))
    x = torch.cat([queries(3), queries(4)])
    found = guesses(both, x)
    for which, each in enumerate((one, two)):
        close(guesses(each, x[which : which + 1])[0], found[which])


def test_the_gradient_is_exact_and_finite_where_nothing_is_known() -> None:
    called, x = classes(NAMES, unseen=(1, 3)), queries().requires_grad_()
    looks, fixed = called.looks.requires_grad_(), called.looks.detach().any(-1)[..., None]
    counts = counts_of(called)

    def found(looks: Tensor, x: Tensor) -> Tensor:
        state = {"names": called.names, "looks": looks * fixed, "counts": counts}
        answers: Tensor = guessing()(x, state | {"shares": guessing().shares(state)})
        return answers

    assert torch.autograd.gradcheck(found, (looks, x))
    nothing = torch.zeros_like(looks).requires_grad_()
    answers = guesses(Called(called.names, nothing), x)
    assert not answers.any()
    for slope in torch.autograd.grad(answers.sum(), (nothing, x)):
        assert slope.isfinite().all()


def test_the_newest_known_classes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_names, "KEPT", 3)
    earlier = None
    for first, unseen in ((0, ()), (2, (0,))):
        part = classes(NAMES[first : first + 2], unseen=unseen, seed=first)
        earlier = left(earlier, part)
    assert earlier is not None
    assert earlier.names.tolist() == bytes_of([NAMES[0], NAMES[1], NAMES[3]])[None].tolist()
    last = classes(NAMES[4:])
    earlier = left(earlier, last)
    assert earlier is not None
    words = [
        bytes(word for word in name if word >= 0).decode() for name in earlier.names[0].tolist()
    ]
    assert words == [NAMES[1], NAMES[3], NAMES[4]]
    close(earlier.looks[:, 2:], last.looks)


def test_where_nothing_is_known_nothing_is_kept() -> None:
    assert left(None, classes(NAMES, unseen=(0, 1, 2, 3, 4))) is None
    assert left(None, classes(["", ""])) is None
    nameless = Called(torch.zeros(1, 2, 0).long(), torch.ones(1, 2, 3))
    assert left(None, nameless) is None
    assert remembered({"memory": torch.zeros(1, 2, 3)}) is None


# In the whole


def scripts(names: list[str], shot: int, *, seed: int = 0) -> Episode:
    """A task of classes whose looks lie near the corner of the first word of their names."""
    corner = {"lao": 0, "thai": 1, "khmer": 2}
    generator = torch.Generator().manual_seed(seed)

    def examples(each: int) -> Examples:
        y = torch.arange(len(names)).repeat_interleave(each)
        where = torch.tensor([corner[names[label].split()[0]] for label in y.tolist()])
        noise = 0.1 * torch.randn(len(y), 6, generator=generator, dtype=torch.float64)
        x = F.one_hot(where.long(), 6) * 3.0 + noise
        return Examples(x[None], y[None], torch.ones(1, len(y), dtype=torch.bool))

    context = Context(
        torch.ones(1, len(names), dtype=torch.bool), torch.zeros(1, 0), bytes_of(names)[None]
    )
    support = examples(max(shot, 1))
    if not shot:
        support = support._replace(mask=torch.zeros_like(support.mask))
    return Episode(support, examples(4), context)


def learner() -> MetaTransformer:
    torch.manual_seed(0)
    encoder: Encoder = RawEncoder(6)
    return MetaTransformer(encoder, names=True, shape="none", width=8, heads=2).double().eval()


MET = [
    f"{script} letter {letter}"
    for script, letter in itertools.product(("lao", "thai", "khmer"), ("ko", "bo"))
]
NEW = ["lao letter so", "thai letter so", "khmer letter so"]


def accuracy(found: MetaTransformer, task: Episode, state: object) -> float:
    answers = found.predict(state, task.query.x, task.context)  # type: ignore[arg-type]
    return (answers.argmax(-1) == task.query.y).double().mean().item()


def test_letters_without_an_example_are_told_by_those_of_the_task_before() -> None:
    found = learner()
    before = scripts(MET, 2)
    new = scripts(NEW, 0, seed=1)
    carried = found.carry(found.adapt(before.support, before.context))
    assert accuracy(found, new, found.adapt(new.support, new.context, carried)) == 1
    assert accuracy(found, new, found.adapt(new.support, new.context)) < 0.5
    for switch in ("remembers", "describes"):
        setattr(found, switch, False)
        assert accuracy(found, new, found.adapt(new.support, new.context, carried)) < 0.5
        setattr(found, switch, True)


def test_letters_without_an_example_are_told_by_the_others_of_their_task() -> None:
    found = learner()
    task = scripts(MET + NEW, 2)
    asked = task.query.y[0] >= len(MET)
    seen = task.support.mask & (task.support.y < len(MET))
    support = task.support._replace(mask=seen)
    some = Examples(task.query.x[:, asked], task.query.y[:, asked], task.query.mask[:, asked])
    state = found.adapt(support, task.context)
    answers = found.predict(state, some.x, task.context)[..., len(MET) :].argmax(-1) + len(MET)
    assert (answers == some.y).all()
    close(
        found.outputs(Episode(support, some, task.context)),
        found.predict(state, some.x, task.context),
    )
    # Examples that come later count as if they had been there.
    halves = [
        support._replace(mask=support.mask & half)
        for half in (torch.arange(support.mask.shape[1]) % 2 == which for which in (0, 1))
    ]
    later = found.adapt(halves[1], task.context, found.adapt(halves[0], task.context))
    assert isinstance(later, dict)
    close(later["looks"], state["looks"])  # type: ignore[index]
    close(later["head"], state["head"])  # type: ignore[index]


def test_how_far_likeness_is_believed_is_chosen_on_validation_tasks() -> None:
    found = learner()
    assert found.similar is not None
    task = scripts(MET + NEW, 2)
    seen = task.support.mask & (task.support.y < len(MET))
    true = task._replace(support=task.support._replace(mask=seen))
    order = [*range(len(MET)), *(len(MET) + which for which in (1, 2, 0))]
    false = true._replace(context=true.context._replace(names=true.context.names[:, order]))

    def loss(episode: Episode) -> float:
        state = found.adapt(episode.support, episode.context)
        answers = found.predict(state, episode.query.x, episode.context)
        return float(found.likelihood.nll(answers, episode.query, episode.context))

    with torch.no_grad():
        for episode, strongest in ((true, True), (false, False)):
            found.settle([episode])
            chosen, best = float(found.similar.strength), loss(episode)
            assert (chosen >= 1) if strongest else (chosen == 0)
            for other in similar_names.STRENGTHS:
                found.similar.strength.fill_(other)
                assert loss(episode) >= best - 1e-9
            found.similar.strength.fill_(chosen)


def test_how_far_classes_known_by_name_are_ahead_is_chosen_too() -> None:
    found = learner()
    found.base.log_temperature.data.fill_(math.log(6))
    task = scripts(MET + NEW, 2)
    seen = task.support.mask & (task.support.y < len(MET))
    task = task._replace(support=task.support._replace(mask=seen))
    new = task.query.y >= len(MET)

    def right() -> float:
        state = found.adapt(task.support, task.context)
        answers = found.predict(state, task.query.x, task.context).argmax(-1)
        return float((answers == task.query.y)[new].double().mean())

    with torch.no_grad():
        before = right()
        assert found.settle([task])
        assert found.named_head.offset > 0
        assert right() > before
        # Of tasks where no example is known it says nothing.
        alone = scripts(NEW, 0, seed=1)
        state = found.adapt(alone.support, alone.context)
        answers = found.predict(state, alone.query.x, alone.context)
        found.named_head.offset.fill_(0)
        plain = found.predict(state, alone.query.x, alone.context)
        close(answers.softmax(-1), plain.softmax(-1))
