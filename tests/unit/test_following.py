"""A task that starts from what the one before it left: in Python, in files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.adapted import AdaptedTask
from quickstudy.artifact import Artifact, load_task, save_task
from quickstudy.config import parse_config
from quickstudy.durable import ArtifactError
from quickstudy.estimator import FewShotClassifier, FewShotRegressor
from quickstudy.following import check_place
from quickstudy.learners import MetaTransformer, ProtoNet
from quickstudy.learning import extend
from quickstudy.nn.encoders import VectorEncoder
from recollecting import Recollecting

CONFIG = parse_config({"data": "levels", "learner": "recollecting", "encoder": "raw"})


@pytest.fixture
def model() -> Artifact:
    return Artifact(Recollecting().eval(), CONFIG, {}, "remembering", None)


def learned(model: Artifact, value: float, after: AdaptedTask | None = None) -> AdaptedTask:
    return extend(model, None, torch.zeros(2, 1), torch.full((2, 1), value), after=after)


def test_a_task_starts_from_what_the_one_before_left(model: Artifact, tmp_path: Path) -> None:
    first = learned(model, 5.0)
    save_task(tmp_path / "first.task", first)
    second = learned(model, 1.0, load_task(tmp_path / "first.task", model))
    assert second.state["memory"].tolist() == [[10.0, 2.0]]
    assert (first.before, second.before) == (0, 1)
    more = extend(model, second, torch.zeros(1, 1), torch.ones(1, 1))
    assert more.before == 1
    save_task(tmp_path / "second.task", second)
    third = learned(model, 0.0, load_task(tmp_path / "second.task", model))
    assert third.before == 2
    assert third.state["memory"].tolist() == [[12.0, 4.0]]


def test_what_cannot_come_before_is_refused(model: Artifact) -> None:
    first = learned(model, 5.0)
    other = Artifact(model.learner, CONFIG, {}, "another", None)
    with pytest.raises(ArtifactError, match="previous task was adapted with the artifact remember"):
        learned(other, 1.0, first)
    with pytest.raises(ArtifactError, match="leave the previous task out, or begin anew"):
        extend(model, first, torch.zeros(1, 1), torch.ones(1, 1), after=first)
    forgetful = Artifact(
        ProtoNet(VectorEncoder(1, width=8)).eval(), parse_config({}), {}, "none", None
    )
    task = extend(forgetful, None, torch.randn(2, 1), ["a", "b"])
    with pytest.raises(ArtifactError, match="The learner protonet has no memory"):
        extend(forgetful, None, torch.randn(2, 1), ["a", "b"], after=task)


def test_a_stream_cut_off_or_out_of_order_is_named(model: Artifact) -> None:
    second = learned(model, 1.0, learned(model, 5.0))
    check_place(second, 3)
    check_place(second, None)
    check_place(None, 1)
    with pytest.raises(
        ArtifactError, match=r"is number 2 .* number 6: the stream is cut off\. Learn tasks 3 to 5"
    ):
        check_place(second, 6)
    with pytest.raises(
        ArtifactError, match=r"number 4: the stream is cut off\. Learn task 3 first"
    ):
        check_place(second, 4)
    with pytest.raises(ArtifactError, match="number 2: the stream is out of order"):
        check_place(second, 2)
    with pytest.raises(ArtifactError, match=r"No previous task was given.* is cut off"):
        check_place(None, 2)


def test_a_regressor_fits_after_another(model: Artifact) -> None:
    first = FewShotRegressor(model, standardise=False).fit([[0.0], [1.0]], [5.0, 5.0])
    second = FewShotRegressor(model, standardise=False).fit([[0.0], [1.0]], [1.0, 1.0], after=first)
    trust = 0.3
    expected = (2 + trust * 10) / (2 + trust * 2 + 1)
    np.testing.assert_allclose(second.predict([[0.5]]), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="not fitted"):
        FewShotRegressor(model).fit([[0.0]], [1.0], after=FewShotRegressor(model))


def test_a_classifier_fits_after_another() -> None:
    learner = MetaTransformer(VectorEncoder(2, width=8, layers=1), width=8, heads=2).eval()
    for value in learner.parameters():  # else what shapes is zero, and memory changes nothing
        torch.nn.init.normal_(value, std=0.3)
    config = parse_config({"data": "numbers", "encoder": {"name": "vector", "inputs": 2}})
    artifact = Artifact(learner, config, {}, "meta", None)
    x, y = torch.randn(2, 6, 2).numpy(), ["low", "high"] * 3
    first = FewShotClassifier(artifact).fit(x[0], y)
    alone, later = (FewShotClassifier(artifact).fit(x[1], y, after=each) for each in (None, first))
    assert later.task_.before == 1
    assert not np.allclose(alone.predict_proba(x[0]), later.predict_proba(x[0]))
    with pytest.raises(ValueError, match="reads no names"):
        FewShotClassifier(artifact).fit(classes=["low", "high"], after=first)
