"""Tasks that begin by the names of their classes or by a description, at the estimator and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.adapted import load_task, save_task
from quickstudy.answering import answer
from quickstudy.artifact import Artifact
from quickstudy.build import build_learner
from quickstudy.config import RunConfig
from quickstudy.durable import ArtifactError
from quickstudy.estimator import FewShotClassifier
from quickstudy.learners.base import Learner
from quickstudy.learners.gradient import MAML
from quickstudy.learners.memory import MetaTransformer
from quickstudy.learners.metric import ProtoNet
from quickstudy.learning import begin_by_name, extend, grow_by_name
from quickstudy.nn.encoders import ImageEncoder, RawEncoder, VectorEncoder

NAMES = ["alpha", "beta", "gamma"]


def made(learner: Learner | None = None, **options: object) -> Artifact:
    torch.manual_seed(0)
    if learner is None:
        small = {"width": 8, "heads": 2, "slots": 2, "names": True}
        learner = MetaTransformer(VectorEncoder(4, width=8, layers=1), **{**small, **options})  # type: ignore[arg-type]
        if learner.heads_from_names:
            nn.init.normal_(learner.named_head.head[-1].weight)
            learner.named_head.trust.fill_(1)
        if learner.modulation is not None:
            nn.init.normal_(learner.modulation.produce.weight)
    config = RunConfig(data="numbers", encoder={"name": "vector", "inputs": 4})
    return Artifact(learner.eval(), config, {}, "0123456789abcdef", None)


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def test_a_task_without_examples_answers_by_the_names_and_learns_on(tmp_path: Path) -> None:
    artifact = made()
    task = begin_by_name(artifact, NAMES)
    assert task.examples == 0
    chances = answer(artifact, task, X)
    assert float(chances.std(1).min()) > 0.01
    other = answer(artifact, begin_by_name(artifact, ["gamma", "beta", "alpha"]), X)
    torch.testing.assert_close(other.flip(1), chances)
    save_task(tmp_path / "a.task", task)
    again = load_task(tmp_path / "a.task", artifact)
    torch.testing.assert_close(answer(artifact, again, X), chances)
    more = extend(artifact, again, X[:3], NAMES)
    assert (more.examples, more.class_names) == (3, NAMES)
    assert not torch.allclose(answer(artifact, more, X), chances)


def test_a_description_counts_in_any_language_and_an_empty_one_is_none() -> None:
    artifact = made()
    plain = answer(artifact, begin_by_name(artifact, NAMES), X)
    for text in ("animals of the forest", "動物と植物", "Žluťoučký kůň"):
        found = answer(artifact, begin_by_name(artifact, NAMES, text), X)
        assert found.isfinite().all()
        assert not torch.allclose(found, plain)
    torch.testing.assert_close(answer(artifact, begin_by_name(artifact, NAMES, ""), X), plain)
    learned = extend(artifact, None, X[:3], NAMES)
    told = extend(artifact, None, X[:3], NAMES, description="animals")
    assert not torch.allclose(answer(artifact, learned, X), answer(artifact, told, X))
    with pytest.raises(ArtifactError, match="when it begins"):
        extend(artifact, told, X[:3], NAMES, description="animals")


def test_a_description_in_numbers() -> None:
    artifact = made(numbers=2)
    found = [
        answer(artifact, begin_by_name(artifact, NAMES, said), X)
        for said in ([0.5, 2.0], [1.0, -3.0])
    ]
    assert not torch.allclose(*found)
    for wrong in ([1.0], [1.0, float("nan")]):
        with pytest.raises(ArtifactError, match="by 2 finite numbers"):
            begin_by_name(artifact, NAMES, wrong)


def test_what_reads_no_names_says_so() -> None:
    plain = made(ProtoNet(VectorEncoder(4, width=8, layers=1)))
    with pytest.raises(ArtifactError, match="reads no names of classes, so without examples"):
        begin_by_name(plain, NAMES)
    with pytest.raises(ArtifactError, match="reads no descriptions in words"):
        extend(plain, None, X[:3], NAMES, description="animals")
    with pytest.raises(ArtifactError, match="by 0 finite numbers"):
        extend(plain, None, X[:3], NAMES, description=[1.0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a", "b"], "'a' twice"),
        (["a", " "], "an empty name"),
        (["a"], "1 names of classes"),
    ],
)
def test_names_that_cannot_be_used(names: list[str], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        begin_by_name(made(), names)


def test_classes_that_are_named_and_not_shown_are_answered_as_well() -> None:
    artifact = made()
    task = extend(artifact, None, X[:2], ["alpha", "beta"], class_names=NAMES)
    assert answer(artifact, task, X).shape == (6, 3)
    with pytest.raises(ArtifactError, match="'beta' twice"):
        extend(artifact, None, X[:2], ["alpha", "beta"], class_names=["alpha", "beta", "beta"])


def test_the_estimator_begins_by_name_and_goes_on_with_examples() -> None:
    classifier = FewShotClassifier(made())
    rows = np.asarray(X.double()) * 10 + 5
    classifier.fit(classes=NAMES, description="animals")
    assert classifier.classes_.tolist() == NAMES
    before = classifier.predict_proba(rows)
    assert before.shape == (6, 3)
    classifier.partial_fit(rows[:3], NAMES)
    np.testing.assert_allclose(classifier.mean_, rows[:3].mean(0))
    assert not np.allclose(classifier.predict_proba(rows), before)
    classifier.fit(classes=NAMES, description="animals")
    np.testing.assert_array_equal(classifier.predict_proba(rows), before)
    told = classifier.fit(rows[:3], NAMES, description="animals").predict_proba(rows)
    assert not np.allclose(told, classifier.fit(rows[:3], NAMES).predict_proba(rows))
    some = classifier.fit(rows[:2], NAMES[:2], classes=NAMES)
    assert some.predict_proba(rows).shape == (6, 3)


def test_images_need_no_example_either() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(8, layers=1, heads=2, size=8)
    learner = MetaTransformer(encoder, width=8, heads=2, slots=2, names=True)
    config = RunConfig(data="glyphs", encoder={"name": "image", "width": 8, "size": 8})
    artifact = Artifact(learner.eval(), config, {}, "0123456789abcdef", None)
    task = begin_by_name(artifact, NAMES)
    images = torch.randint(0, 255, (5, 1, 8, 8), dtype=torch.uint8)
    assert answer(artifact, task, images).shape == (5, 3)


def test_classes_known_by_name_alone_are_guessed_by_what_the_task_before_showed(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    learner = MetaTransformer(RawEncoder(4), names=True, shape="none", width=8, heads=2)
    artifact = made(learner)
    x = 3 * torch.eye(4)[:2].repeat_interleave(3, dim=0) + 0.1 * X
    before = extend(artifact, None, x, ["lao ko"] * 3 + ["thai ko"] * 3)
    save_task(tmp_path / "before.task", before)
    names = ["lao kho", "thai kho"]
    task = begin_by_name(artifact, names, after=load_task(tmp_path / "before.task", artifact))
    assert (task.examples, task.before) == (0, 1)
    save_task(tmp_path / "next.task", task)
    again = load_task(tmp_path / "next.task", artifact)
    assert again.before == 1
    chances = answer(artifact, again, x)
    assert chances.argmax(1).tolist() == [0] * 3 + [1] * 3
    assert float(chances.max(1).values.min()) > 0.9
    alone = answer(artifact, begin_by_name(artifact, names), x)
    torch.testing.assert_close(alone, torch.full_like(alone, 0.5))
    # What was met two tasks ago is not forgotten, and a class with an example of its own needs no guess.
    later = begin_by_name(artifact, names, after=again)
    torch.testing.assert_close(answer(artifact, later, x), chances)
    shown = extend(artifact, later, x[[0, 3]], ["thai kho", "lao kho"])
    assert answer(artifact, shown, x).argmax(1).tolist() == [1] * 3 + [0] * 3


def test_the_estimator_begins_by_names_after_another() -> None:
    torch.manual_seed(0)
    encoder = VectorEncoder(4, width=8, layers=1)
    learner = MetaTransformer(encoder, names=True, shape="none", width=8, heads=2)
    artifact = made(learner)
    x = (3 * torch.eye(4)[:2].repeat_interleave(3, dim=0) + 0.1 * X).numpy()
    first = FewShotClassifier(artifact).fit(x, np.array(["lao ko"] * 3 + ["thai ko"] * 3))
    second = FewShotClassifier(artifact).fit(classes=["lao kho", "thai kho"], after=first)
    assert second.predict(x).tolist() == ["lao kho"] * 3 + ["thai kho"] * 3
    assert second.task_.before == 1
    # What columns are measured by is what the memory was measured by.
    second.partial_fit(x[:1] + 1, ["lao kho"])
    np.testing.assert_array_equal(second.mean_, first.mean_)


def test_names_alone_follow_nothing_where_there_is_no_memory() -> None:
    artifact = made()
    task = begin_by_name(artifact, NAMES)
    task.base_id = "another"
    with pytest.raises(ArtifactError, match="was adapted with the artifact another"):
        begin_by_name(artifact, NAMES, after=task)


def test_a_running_task_gets_classes_by_their_names(tmp_path: Path) -> None:
    artifact = made(shape="none")
    # What the memory says of a task stays as it was when the task began.
    nn.init.zeros_(artifact.learner.named_head.remembered.weight)  # type: ignore[union-attr, arg-type]
    names = ["lao ko", "thai ko", "lao kho", "thai kho"]
    x = 3 * torch.eye(4)[:2].repeat_interleave(3, dim=0) + 0.1 * X
    labels = ["lao ko"] * 3 + ["thai ko"] * 3
    task = extend(artifact, None, x, labels)
    grown = grow_by_name(artifact, task, names[2:])
    assert (grown.class_names, grown.examples, task.class_names) == (names, 6, names[:2])
    whole = extend(artifact, None, x, labels, class_names=names)
    torch.testing.assert_close(answer(artifact, grown, x), answer(artifact, whole, x))
    save_task(tmp_path / "a.task", grown)
    again = load_task(tmp_path / "a.task", artifact)
    more = extend(artifact, again, x[:1] + 1, ["lao kho"])
    learned = extend(artifact, whole, x[:1] + 1, ["lao kho"])
    torch.testing.assert_close(answer(artifact, more, x), answer(artifact, learned, x))


def test_a_shaped_task_gets_classes_by_their_names_and_keeps_its_shape() -> None:
    artifact = made()
    task = extend(artifact, None, X, NAMES * 2)
    grown = grow_by_name(artifact, task, ["delta"])
    assert isinstance(grown.state, dict)
    assert torch.equal(grown.state["shape"], task.state["shape"])  # type: ignore[call-overload]
    before, after = answer(artifact, task, X), answer(artifact, grown, X)
    assert after.shape == (6, 4)
    kept = after[:, :3] / after[:, :3].sum(1, keepdim=True)
    torch.testing.assert_close(kept, before)


def test_what_cannot_be_added_by_name_is_refused() -> None:
    artifact = made()
    task = extend(artifact, None, X, NAMES * 2)
    for names, said in ((["beta"], "'beta' twice"), ([" "], "empty name")):
        with pytest.raises(ArtifactError, match=said):
            grow_by_name(artifact, task, names)
    keeping = made(learner=MetaTransformer(VectorEncoder(4, width=8), learner=MAML, names=True))
    task = extend(keeping, None, X, NAMES * 2)
    with pytest.raises(ArtifactError, match="'delta' is new, but tasks of the learner"):
        grow_by_name(keeping, task, ["delta"])
    nameless = made(learner=ProtoNet(VectorEncoder(4, width=8)))
    task = extend(nameless, None, X, NAMES * 2)
    with pytest.raises(ArtifactError, match="reads no names"):
        grow_by_name(nameless, task, ["delta"])


def test_the_estimator_gets_classes_by_their_names() -> None:
    artifact = made(shape="none")
    classifier = FewShotClassifier(artifact).fit(X.numpy(), np.array(NAMES * 2))
    classifier.partial_fit(classes=[*NAMES, "aleph"])
    assert classifier.classes_.tolist() == ["aleph", *NAMES]
    assert classifier.predict_proba(X.numpy()).shape == (6, 4)
    # Some by name, some by example.
    classifier.partial_fit(X[:1].numpy() + 1, ["delta"], classes=[*NAMES, "aleph", "delta", "zeta"])
    assert classifier.task_.class_names == [*NAMES, "aleph", "zeta", "delta"]
    kept = classifier.predict_proba(X.numpy())
    with pytest.raises(ValueError, match="name all old ones"):
        classifier.partial_fit(classes=["other"])
    with pytest.raises(ValueError, match="an empty name"):
        classifier.partial_fit(classes=[*classifier.classes_.tolist(), ""])
    np.testing.assert_array_equal(classifier.predict_proba(X.numpy()), kept)


def test_a_task_of_many_labels_gets_one_by_its_name() -> None:
    config = RunConfig(
        data="text:a.csv",
        learner={"name": "protonet", "names": True, "labels": "many"},
        encoder={"name": "words", "width": 16},
    )
    torch.manual_seed(0)
    learner = build_learner(config.learner, config.encoder).eval()
    artifact = Artifact(learner, config, {}, "many", None)
    x = learner.encoder.tokenize(["aaa bbb", "zzz yyy", "kkk"])  # type: ignore[operator]
    labels, names = [["a"], ["b"], []], ["a", "b", "kkk mmm"]
    grown = grow_by_name(artifact, extend(artifact, None, x, labels), names[2:])
    whole = extend(artifact, None, x, labels, class_names=names)
    chances = answer(artifact, grown, x)
    torch.testing.assert_close(chances, answer(artifact, whole, x))
    assert float(chances.std(1).min()) > 0.01
