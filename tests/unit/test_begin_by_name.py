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
from quickstudy.config import RunConfig
from quickstudy.durable import ArtifactError
from quickstudy.estimator import FewShotClassifier
from quickstudy.learners.base import Learner
from quickstudy.learners.memory import MetaTransformer
from quickstudy.learners.metric import ProtoNet
from quickstudy.learning import begin_by_name, extend
from quickstudy.nn.encoders import ImageEncoder, VectorEncoder

NAMES = ["alpha", "beta", "gamma"]


def made(learner: Learner | None = None, **options: object) -> Artifact:
    torch.manual_seed(0)
    if learner is None:
        small = {"width": 8, "heads": 2, "slots": 2, "names": True}
        learner = MetaTransformer(VectorEncoder(4, width=8, layers=1), **{**small, **options})  # type: ignore[arg-type]
        if learner.heads_from_names:
            nn.init.normal_(learner.named_head.head[-1].weight)
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
