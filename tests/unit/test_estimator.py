"""The scikit-learn face: its own checks, and tables, images and texts as people have them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

import quickstudy
from quickstudy.artifact import Artifact, save_artifact
from quickstudy.config import RunConfig
from quickstudy.estimator import FewShotClassifier, FewShotRegressor
from quickstudy.learners import LEARNERS
from quickstudy.learners.metric import ProtoNet
from quickstudy.nn.encoders import Encoder, ImageEncoder, VectorEncoder


@pytest.fixture(scope="module")
def table_artifact(tmp_path_factory):
    """The folder of an artifact for tables."""
    folder = tmp_path_factory.mktemp("table") / "artifact"
    torch.manual_seed(0)
    config = RunConfig(
        data="numbers", learner="ridge", encoder={"name": "vector", "inputs": 64, "width": 64}
    )
    save_artifact(folder, LEARNERS["ridge"](VectorEncoder(64)), config, {})
    return str(folder)


@pytest.fixture
def image_artifact():
    torch.manual_seed(0)
    learner = ProtoNet(ImageEncoder(16, layers=1, heads=2, size=8)).eval()
    return Artifact(learner, RunConfig(encoder={"name": "image"}), {}, id="images", path=None)


@pytest.fixture
def text_artifact():
    class Letters(Encoder):
        """How often each letter occurs."""

        kind, width = "text", 26

        def tokenize(self, texts):
            words = [[ord(c) - ord("a") for c in text.lower() if c.isalpha()] for text in texts]
            longest = max(map(len, words))
            return torch.tensor([word + [-1] * (longest - len(word)) for word in words])

        def forward(self, x):
            counts = torch.zeros(len(x), 27)
            return counts.scatter_add(1, x.clamp(min=-1) % 27, torch.ones(x.shape))[:, :26]

    config = RunConfig(data="text:none.csv", encoder={"name": "text"})
    return Artifact(ProtoNet(Letters()).eval(), config, {}, id="texts", path=None)


@pytest.fixture
def iris():
    """A few examples of each class to learn from, and the rest."""
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    few = np.concatenate([order[y[order] == c][:10] for c in range(3)])
    rest = np.setdiff1d(order, few)
    return X[few], y[few], X[rest], y[rest]


def test_a_running_set_of_classes_gets_another(table_artifact):
    x, y = load_iris(return_X_y=True)
    y = np.array(["a", "c", "b"])[y]
    few = np.concatenate([np.arange(0, 5), np.arange(50, 55)])
    classifier = FewShotClassifier(table_artifact).fit(x[few], y[few])
    assert classifier.classes_.tolist() == ["a", "c"]
    with pytest.raises(ValueError, match="reads no names of classes"):
        classifier.partial_fit(x[:1], y[:1], classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="name all old ones"):
        classifier.partial_fit(x[100:105], y[100:105], classes=["a", "b"])
    assert classifier.classes_.tolist() == ["a", "c"]
    classifier.partial_fit(x[100:105], y[100:105], classes=["a", "b", "c"])
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert classifier.predict_proba(x[:2]).argmax(1).tolist() == [0, 0]
    assert classifier.score(x, y) > 0.75
    assert (classifier.predict(x[100:105]) == "b").mean() >= 0.6


# sklearn's own checks cast NaN and infinity on purpose.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_every_check_of_scikit_learn_passes(table_artifact):
    results = check_estimator(FewShotClassifier(table_artifact), on_fail=None, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] in ("failed", "xfail")] == []
    assert sum(r["status"] == "passed" for r in results) > 50


def test_learns_the_flowers_from_ten_of_each_kind(table_artifact, iris):
    X, y, others, truth = iris
    classifier = FewShotClassifier(table_artifact).fit(X, y)
    assert classifier.score(others, truth) > 0.9
    p = classifier.predict_proba(others)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (classifier.classes_[p.argmax(1)] == classifier.predict(others)).all()


def test_labels_come_back_as_they_were_given(table_artifact, iris):
    X, y, others, _ = iris
    names = np.array(["setosa", "versicolor", "virginica"])
    classifier = FewShotClassifier(table_artifact).fit(X, names[y])
    assert list(classifier.classes_) == list(names)
    numbered = FewShotClassifier(table_artifact).fit(X, y).predict(others)
    assert (classifier.predict(others) == names[numbered]).all()


def test_partial_fit_goes_on_from_what_was_learned(table_artifact, iris):
    X, y, others, truth = iris
    order = np.random.default_rng(1).permutation(len(X))
    X, y = X[order], y[order]
    classifier = FewShotClassifier(table_artifact)
    classifier.partial_fit(X[:6], y[:6], classes=[0, 1, 2])
    early = classifier.task_
    classifier.partial_fit(X[6:], y[6:])
    assert (early.examples, classifier.task_.examples) == (6, 30)
    assert classifier.score(others, truth) > 0.85


def test_partial_fit_adds_up_exactly_on_one_scale(image_artifact):
    # Ridge and prototypes are sums: two parts are one whole, where nothing is standardised.
    generator = np.random.default_rng(0)
    X = generator.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    y = np.array([0, 1, 0, 1, 1, 0])
    once = FewShotClassifier(image_artifact).fit(X, y)
    twice = FewShotClassifier(image_artifact).partial_fit(X[:3], y[:3]).partial_fit(X[3:], y[3:])
    np.testing.assert_allclose(once.predict_proba(X), twice.predict_proba(X), atol=1e-5)


def test_a_class_may_come_later(image_artifact):
    X = np.zeros((3, 8, 8))
    X[1], X[2, ::2] = 0.5, 0.5
    classifier = FewShotClassifier(image_artifact)
    classifier.partial_fit(X[:2], ["dark", "light"], classes=["dark", "light", "striped"])
    assert classifier.predict_proba(X)[:, 2].max() == 0
    classifier.partial_fit(X[2:], ["striped"])
    assert list(classifier.predict(X)) == ["dark", "light", "striped"]


def test_images_may_be_arrays_pictures_or_files(image_artifact, tmp_path):
    X = np.random.default_rng(0).integers(0, 120, (4, 8, 8), dtype=np.uint8)
    y = list("abba")
    pictures = [Image.fromarray(x) for x in X]
    files = []
    for i, each in enumerate(pictures):
        each.save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    expected = FewShotClassifier(image_artifact).fit(X, y).predict_proba(X)
    for same in (X[:, None], X / 255, X.repeat(3, 0).reshape(4, 3, 8, 8), pictures, files):
        found = FewShotClassifier(image_artifact).fit(same, y).predict_proba(same)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_images_of_another_size_are_resized(image_artifact):
    X = np.random.default_rng(0).integers(0, 120, (2, 16, 16), dtype=np.uint8)
    assert FewShotClassifier(image_artifact).fit(X, [0, 1]).predict_proba(X).shape == (2, 2)


def test_texts_are_lists_of_strings(text_artifact):
    classifier = FewShotClassifier(text_artifact)
    classifier.fit(["aaa ab", "zzz zy"], ["first", "last"])
    assert list(classifier.predict(["a a b", "y z z"])) == ["first", "last"]
    with pytest.raises(ValueError, match="list of strings"):
        classifier.predict([[1.0, 2.0]])
    with pytest.raises(ValueError, match="list of strings"):
        classifier.predict("one text")


def test_paths_and_pictures_may_stand_in_an_array(image_artifact, tmp_path):
    X = np.random.default_rng(0).integers(0, 120, (4, 8, 8), dtype=np.uint8)
    pictures = np.empty(4, dtype=object)
    for i, each in enumerate(X):
        pictures[i] = Image.fromarray(each)
        pictures[i].save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(4)]
    classifier = FewShotClassifier(image_artifact).fit(files, list("abba"))
    expected = classifier.predict_proba(files)
    for same in (np.array([str(each) for each in files]), np.array(files), pictures):
        np.testing.assert_allclose(classifier.predict_proba(same), expected, atol=1e-6)
    for one in (files[0], str(files[0])):
        with pytest.raises(ValueError, match=r"Found one path, '.*0.png'.* list of paths"):
            classifier.predict(one)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        classifier.predict(np.array([0.5, 1.0]))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 64)), "shape \\(2, 64\\)"),
        (np.linspace(0, 200, 128).reshape(2, 8, 8), "from 0 to 200"),
        (np.zeros((2, 2, 8, 8)), "1 or 3 channels"),
        (["there/is/no/such.png", "nor/this.png"], "no image"),
    ],
)
def test_bad_images_are_explained(image_artifact, X, message):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(image_artifact).fit(X, [0, 1])


def test_bad_tables_are_explained(table_artifact, iris):
    X, y, *_ = iris
    classifier = FewShotClassifier(table_artifact)
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    with pytest.raises(ValueError, match="one class only"):
        classifier.fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="at most 64"):
        classifier.fit(np.zeros((2, 65)), [0, 1])
    with pytest.raises(ValueError, match="30 examples and 3 labels"):
        classifier.fit(X, y[:3])
    classifier.fit(X, y)
    with pytest.raises(ValueError, match="label 7 is not among"):
        classifier.partial_fit(X[:1], [7])
    with pytest.raises(ValueError, match="begun with the classes"):
        classifier.partial_fit(X[:1], [0], classes=[0, 1])
    with pytest.raises(ValueError, match="name an artifact"):
        FewShotClassifier().fit(X, y)


def test_a_failed_fit_leaves_what_was_learned(table_artifact, text_artifact, iris):
    X, y, others, _ = iris
    texts, words = ["aaa ab", "zzz zy"], FewShotClassifier(text_artifact)
    with pytest.raises(ValueError, match="one class only"):
        words.fit(texts, ["x", "x"])
    with pytest.raises(NotFittedError):
        words.predict(texts)
    words.fit(texts, ["first", "last"])
    with pytest.raises(ValueError, match="one class only"):
        words.fit(texts, ["x", "x"])
    assert list(words.predict(["a a b", "y z z"])) == ["first", "last"]
    table = FewShotClassifier(table_artifact).fit(X, y)
    before = table.predict_proba(others)
    for columns, labels in ((X[:, :1], y[:3]), (X[:, :1], np.zeros(len(X))), (X[:, :0], y)):
        with pytest.raises(ValueError):
            table.fit(columns, labels)
        np.testing.assert_array_equal(table.predict_proba(others), before)
    with pytest.raises(ValueError, match="not among"):
        table.partial_fit(X[:1], [7], classes=[0, 1, 2])
    table.set_params(artifact=None)
    with pytest.raises(ValueError, match="name an artifact"):
        table.fit(X, y)
    np.testing.assert_array_equal(table.predict_proba(others), before)


def test_no_text_is_told_in_a_sentence(text_artifact):
    with pytest.raises(ValueError, match="empty list, where texts are expected"):
        FewShotClassifier(text_artifact).fit([], [])


def test_a_device_that_is_not_there_is_told(table_artifact, iris):
    X, y, *_ = iris
    for device in ("cuda:99", "nonsense"):
        for start in (FewShotClassifier, FewShotRegressor):
            with pytest.raises(ValueError, match=f"device='{device}'.* give device='cpu'"):
                start(table_artifact, device=device).fit(X, y)
        with pytest.raises(ValueError, match="give device='cpu'"):
            FewShotClassifier.from_pretrained("text", learner="linear_head", device=device)


@pytest.mark.parametrize("unknown", ["yes", 1.5, -0.1, [0.9]])
def test_what_unknown_may_be_is_told(table_artifact, iris, unknown):
    X, y, *_ = iris
    with pytest.raises(ValueError, match="unknown is True, False, or the share"):
        FewShotClassifier(table_artifact).fit(X, y, unknown=unknown)


def test_labels_of_two_types_with_one_name_are_told(table_artifact, iris):
    X = iris[0][:6]
    mixed = ["1"] * 3 + [1] * 3
    classifier = FewShotClassifier(table_artifact)
    for labels in (mixed, np.array(mixed, dtype=object)):
        with pytest.raises(ValueError, match="labels '1' and 1 are of two types"):
            classifier.fit(X, labels)
    with pytest.raises(ValueError, match="two types"):
        classifier.fit(X, [1, 1, 1, 2, 2, 2], classes=[1, "1", 2])
    with pytest.raises(ValueError, match="label number 2 is None"):
        classifier.fit(X, ["a", None, "b", "a", "a", "b"])
    assert classifier.fit(X, [1, np.int64(1), 1, 2, 2, 2]).classes_.tolist() == [1, 2]


def test_a_constant_column_does_no_harm(table_artifact):
    X = np.array([[0.0, 1e9], [1.0, 1e9], [5.0, 1e9], [6.0, 1e9]])
    classifier = FewShotClassifier(table_artifact).fit(X, [0, 0, 1, 1])
    assert list(classifier.predict([[0.5, 1e9], [5.5, 1e9]])) == [0, 1]


def test_the_artifact_is_left_as_it_was(table_artifact, iris):
    X, y, *_ = iris
    artifact = quickstudy.load(table_artifact)
    before = {name: weight.clone() for name, weight in artifact.learner.state_dict().items()}
    classifier = clone(FewShotClassifier(artifact))
    classifier.fit(X, y).predict(X)
    for name, weight in artifact.learner.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_import_is_light_and_names_are_there():
    code = "import sys, quickstudy; print('torch' in sys.modules, *dir(quickstudy))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", *quickstudy.__all__]
    assert set(quickstudy.__all__) == {
        "FewShotClassifier", "FewShotRegressor", "__version__", "improve", "load",
    }  # fmt: skip
    assert quickstudy.FewShotClassifier is FewShotClassifier
    assert quickstudy.FewShotRegressor is FewShotRegressor
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quickstudy.nothing
