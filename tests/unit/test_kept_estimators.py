"""Fitted estimators that are pickled, kept with joblib or copied answer as before, and find their artifact again."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from quickstudy import FewShotClassifier, FewShotRegressor
from quickstudy.artifact import Artifact, load_artifact, save_artifact
from quickstudy.build import build_learner
from quickstudy.config import RunConfig
from quickstudy.derive import derive
from quickstudy.durable import ArtifactError
from quickstudy.pretrained import shipped
from tiny_models import save_model

TEXTS, LABELS = ["my parcel is late", "it never came", "billed twice"], ["post", "post", "money"]
ROWS = [[1.0, "red"], [2.0, None], [5.0, "blue"], [6.0, "blue"]]
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
VECTOR = {"name": "vector", "inputs": 3, "width": 8, "layers": 1}
IMAGE = {"name": "image", "width": 16, "layers": 1, "heads": 2, "size": 8}


def through_joblib(estimator, folder: Path):
    joblib.dump(estimator, folder / "kept.joblib")
    return joblib.load(folder / "kept.joblib")


def untrained(encoder: dict[str, object], data: str, learner: str = "protonet") -> Artifact:
    config = RunConfig(data=data, learner={"name": learner}, encoder=encoder)
    torch.manual_seed(0)
    made = build_learner(config.learner, config.encoder).eval()
    return Artifact(made, config, {}, id="untrained", path=None)


def on_disk(folder: Path, learner: str = "protonet") -> Path:
    made = untrained(VECTOR, "numbers", learner)
    save_artifact(folder, made.learner, made.config, {})
    return folder


@pytest.fixture
def numbers():
    X = np.random.default_rng(0).normal(size=(6, 3))
    return X, np.array([0, 1, 0, 1, 0, 1])


def test_a_classifier_of_texts_is_kept_without_its_artifact(tmp_path: Path) -> None:
    learned = FewShotClassifier.from_pretrained("text").fit(TEXTS, LABELS)
    again = through_joblib(learned, tmp_path)
    assert (tmp_path / "kept.joblib").stat().st_size < 100_000
    np.testing.assert_array_equal(again.predict_proba(TEXTS), learned.predict_proba(TEXTS))
    copied = copy.deepcopy(learned)
    np.testing.assert_array_equal(copied.predict_proba(TEXTS), learned.predict_proba(TEXTS))
    more = ["charged for nothing"], ["money"]
    again.partial_fit(*more)
    learned.partial_fit(*more)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), learned.predict_proba(TEXTS))


def test_a_derived_artifact_of_texts_is_kept_without_what_is_published(tmp_path: Path) -> None:
    start = FewShotClassifier.from_pretrained("text", learner="linear_head")
    learned = start.fit(TEXTS, LABELS)
    again = through_joblib(learned, tmp_path)
    assert (tmp_path / "kept.joblib").stat().st_size < 5_000_000
    np.testing.assert_array_equal(again.predict_proba(TEXTS), learned.predict_proba(TEXTS))
    assert again.artifact.id == learned.artifact.id
    assert again.artifact.facts["derived_from"] == learned.artifact.facts["derived_from"]


def test_an_artifact_of_texts_in_memory_is_kept_whole(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    made = untrained({"name": "text", "model": str(model), "words": 8}, "text:none.csv")
    texts = ["my card", "food order", "hello again"]
    learned = FewShotClassifier(made).fit(texts, ["a", "b", "a"])
    # Asked for its layers, the model gets hooks that cannot be pickled.
    learned.artifact_.learner.encoder.model(torch.tensor([[2, 4, 3]]), output_hidden_states=True)
    kept = pickle.dumps(learned)
    shutil.rmtree(model)
    again = pickle.loads(kept)
    np.testing.assert_array_equal(again.predict_proba(texts), learned.predict_proba(texts))


@pytest.mark.parametrize("kind", [FewShotClassifier, FewShotRegressor])
def test_estimators_of_tables_are_kept(kind: type, tmp_path: Path) -> None:
    learned = kind.from_pretrained("tables").fit(ROWS, [0, 0, 1, 1])
    answers = learned.predict(ROWS)
    again = through_joblib(learned, tmp_path)
    assert (tmp_path / "kept.joblib").stat().st_size < 200_000
    for each in (again, copy.deepcopy(learned), copy.deepcopy(again)):
        np.testing.assert_array_equal(each.predict(ROWS), answers)


def test_what_ships_is_found_wherever_the_package_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = FewShotRegressor.from_pretrained("tables").fit(ROWS, [0, 0, 1, 1])
    kept = pickle.dumps(learned)
    elsewhere = Path(shutil.copytree(shipped("tables", "values"), tmp_path / "values"))
    monkeypatch.setattr("quickstudy.estimator.keeping.shipped", lambda *_: elsewhere)
    again = pickle.loads(kept)
    assert again.artifact == elsewhere
    np.testing.assert_array_equal(again.predict(ROWS), learned.predict(ROWS))


def test_images_are_kept_with_an_artifact_that_lies_nowhere(tmp_path: Path) -> None:
    learned = FewShotClassifier(untrained(IMAGE, "glyphs")).fit(PICTURES, list("abab"))
    again = through_joblib(learned, tmp_path)
    assert isinstance(again.artifact, Artifact)
    for each in (again, copy.deepcopy(learned)):
        np.testing.assert_array_equal(each.predict_proba(PICTURES), learned.predict_proba(PICTURES))


def test_a_folder_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers
) -> None:
    X, y = numbers
    on_disk(tmp_path / "artifact")
    monkeypatch.chdir(tmp_path)
    learned = FewShotClassifier("artifact").fit(X, y)
    kept = pickle.dumps(learned)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(kept)
    np.testing.assert_array_equal(again.predict_proba(X), learned.predict_proba(X))


def test_a_loaded_artifact_is_left_where_it_lies(tmp_path: Path, numbers) -> None:
    X, y = numbers
    artifact = load_artifact(on_disk(tmp_path / "artifact"))
    learned = FewShotClassifier(artifact).fit(X, y)
    again = pickle.loads(pickle.dumps(learned))
    assert again.artifact == tmp_path / "artifact"
    np.testing.assert_array_equal(again.predict_proba(X), learned.predict_proba(X))
    # Where another one has taken its place since, it goes into the pickle.
    on_disk(tmp_path / "artifact", learner="ridge")
    again = pickle.loads(pickle.dumps(learned))
    np.testing.assert_array_equal(again.predict_proba(X), learned.predict_proba(X))


def test_a_missing_or_another_artifact_is_told(tmp_path: Path, numbers) -> None:
    X, y = numbers
    folder = on_disk(tmp_path / "artifact")
    learned = FewShotClassifier(folder).fit(X, y)
    kept = pickle.dumps(learned)
    folder.rename(tmp_path / "moved")
    again = pickle.loads(kept)
    with pytest.raises(ArtifactError, match=r"fitted with the artifact \w+, which cannot be read"):
        again.predict(X)
    copied = copy.deepcopy(learned)
    np.testing.assert_array_equal(copied.predict_proba(X), learned.predict_proba(X))
    again.set_params(artifact=tmp_path / "moved")
    np.testing.assert_array_equal(again.predict_proba(X), learned.predict_proba(X))
    on_disk(folder, learner="ridge")
    with pytest.raises(ArtifactError, match="is another one"):
        pickle.loads(kept).predict(X)


def test_what_has_learned_nothing_is_kept_too(tmp_path: Path) -> None:
    artifact = load_artifact(on_disk(tmp_path / "artifact"))
    for start in (
        FewShotClassifier(),
        FewShotClassifier(tmp_path / "artifact"),
        FewShotClassifier(derive(artifact, "linear_head")),
    ):
        again = pickle.loads(pickle.dumps(start))
        assert not hasattr(again, "artifact_")
        with pytest.raises(NotFittedError):
            again.predict([[0.0, 1.0, 2.0]])
