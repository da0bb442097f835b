"""Tables as people have them, learned by the artifact that ships."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from quickstudy import FewShotClassifier
from quickstudy.artifact import load_artifact, load_task, save_task
from quickstudy.durable import ArtifactError
from quickstudy.estimator.tables import MOST_CATEGORIES, coding_of
from quickstudy.pretrained import SHIPPED, shipped

NAN = float("nan")


class Frame:
    """What a data frame has in common with others of its kind: columns by name, and an array of its entries."""

    def __init__(self, **columns: list[object]) -> None:
        self.content = columns

    @property
    def columns(self) -> list[str]:
        return list(self.content)

    @property
    def shape(self) -> tuple[int, int]:
        return len(next(iter(self.content.values()))), len(self.content)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        rows = np.array(list(zip(*self.content.values(), strict=True)), dtype=object)
        return rows if dtype is None else rows.astype(dtype)


def fruit(**more: list[object]) -> Frame:
    return Frame(
        weight=[150, 160, 155, 9, 8, 11] * 3,
        colour=["green", "red", None, "red", "red", "black"] * 3,
        **more,
    )


KINDS = ["apple", "apple", "apple", "berry", "berry", "berry"] * 3


def classifier() -> FewShotClassifier:
    return FewShotClassifier.from_pretrained("tables")


# sklearn's own checks cast NaN and infinity on purpose.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_every_check_of_scikit_learn_passes() -> None:
    results = check_estimator(classifier(), on_fail=None, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] in ("failed", "xfail")] == []
    assert sum(r["status"] == "passed" for r in results) > 50


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_whole_small_and_documented(name: str) -> None:
    folder = shipped(name)
    artifact = load_artifact(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 2_000_000
    assert artifact.scores["validation"]["nll"] < artifact.facts["training"]["history"][0]["nll"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert artifact.id in card
    assert "invented tables" in card


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ArtifactError, match=r"No artifact named 'chairs' .* tables"):
        FewShotClassifier.from_pretrained("chairs")


def test_numbers_categories_and_gaps_side_by_side() -> None:
    learned = classifier().fit(fruit(), KINDS)
    assert learned.coding_.categories == (None, ("red", "black", "green"))
    asked = Frame(weight=[152, 10, NAN, None], colour=["green", "black", "black", None])
    assert learned.predict(asked).tolist()[:3] == ["apple", "berry", "berry"]
    p = learned.predict_proba(asked)
    np.testing.assert_allclose(p.sum(1), 1)


def test_a_list_of_rows_is_a_table_too() -> None:
    rows = [[weight, colour] for weight, colour in np.asarray(fruit())]
    learned = classifier().fit(rows, KINDS)
    np.testing.assert_allclose(
        learned.predict_proba(rows), classifier().fit(fruit(), KINDS).predict_proba(fruit())
    )
    text = [[str(weight), colour or "none"] for weight, colour in rows]
    assert classifier().fit(text, KINDS).coding_.categories[0] is None


def test_a_category_that_was_never_seen_is_a_missing_entry() -> None:
    learned = classifier().fit(fruit(), KINDS)
    seen, new = (
        learned.predict_proba(Frame(weight=[150, 9], colour=[colour, colour]))
        for colour in (None, "blue")
    )
    np.testing.assert_array_equal(seen, new)


def test_many_categories_share_what_is_left() -> None:
    names = [f"c{i % 12}" for i in range(30)]
    coding = coding_of(np.array([[name] for name in names], dtype=object))
    assert len(coding.categories[0]) == MOST_CATEGORIES
    rare = coding(np.array([["c9"]], dtype=object))
    assert rare.tolist() == [[0.0] * MOST_CATEGORIES]


def test_yes_and_no_are_one_column() -> None:
    coding = coding_of(np.array([["yes"], ["no"], ["yes"]], dtype=object))
    assert coding(np.array([["no"], ["yes"], [None]], dtype=object)).tolist()[:2] == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Frame(weight=[float("inf")], colour=["red"]), "Column 0 holds infinity"),
        (Frame(weight=["heavy"], colour=["red"]), "Column 0 holds numbers .* 'heavy'"),
        (Frame(weight=[1]), "1 features, but FewShotClassifier is expecting 2"),
    ],
)
def test_a_bad_query_is_told_in_a_sentence(bad: Frame, message: str) -> None:
    learned = classifier().fit(fruit(), KINDS)
    with pytest.raises(ValueError, match=message):
        learned.predict(bad)


def test_too_much_is_told_in_a_sentence() -> None:
    rows, columns = np.random.default_rng(0).normal(size=(1001, 2)), np.ones((4, 101))
    with pytest.raises(ValueError, match=r"1001 examples .* at most 1000"):
        classifier().fit(rows, np.arange(1001) % 2)
    with pytest.raises(ValueError, match=r"101 columns.* at most 100"):
        classifier().fit(columns, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="Found one class only"):
        classifier().fit(rows[:4], [1, 1, 1, 1])


def test_constant_and_empty_columns_do_no_harm() -> None:
    X, y = load_iris(return_X_y=True)
    few = np.r_[0:8, 50:58, 100:108]
    wide = np.c_[X, np.full(len(X), 7.0), np.full(len(X), NAN)]
    plain, wider = (classifier().fit(each[few], y[few]).predict_proba(each) for each in (X, wide))
    np.testing.assert_allclose(plain, wider, atol=1e-9)


def test_learning_in_parts_is_learning_at_once() -> None:
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))[:40]
    X, y = X[order], y[order]
    whole = classifier().fit(X, y)
    parts = classifier().partial_fit(X[:25], y[:25], classes=[0, 1, 2]).partial_fit(X[25:], y[25:])
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-9)


def test_pipelines_cross_validation_clones_and_pickles() -> None:
    X, y = make_classification(60, 5, random_state=0)
    X[::7, 2] = NAN
    pipeline = make_pipeline(StandardScaler(), classifier())
    assert cross_val_score(pipeline, X, y, cv=3, scoring="roc_auc").mean() > 0.7
    learned = clone(classifier()).fit(X, y)
    again = pickle.loads(pickle.dumps(learned))
    np.testing.assert_array_equal(again.predict_proba(X), learned.predict_proba(X))


def test_a_learned_table_is_one_file(tmp_path) -> None:
    X, y = load_iris(return_X_y=True)
    learned = classifier().fit(X[::10], y[::10])
    save_task(tmp_path / "iris.safetensors", learned.task_)
    task = load_task(tmp_path / "iris.safetensors", learned.artifact_)
    again = classifier().fit(X[::10], y[::10])
    again.task_ = task
    np.testing.assert_array_equal(again.predict_proba(X), learned.predict_proba(X))
