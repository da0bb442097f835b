"""Tables as people have them, learned by the artifact that ships."""

from __future__ import annotations

import datetime
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from quickstudy import FewShotClassifier, FewShotRegressor
from quickstudy.artifact import load_artifact, load_task, save_task
from quickstudy.data.coding import MOST_CATEGORIES, coding_of
from quickstudy.data.source import DataNote
from quickstudy.durable import ArtifactError
from quickstudy.pretrained import SHIPPED, Predicts, shipped

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


def regressor() -> FewShotRegressor:
    return FewShotRegressor.from_pretrained("tables")


def hard_tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to answer that something is wrong with, but nothing that must be refused."""
    rows = np.random.default_rng(0).normal(size=(24, 3))
    gaps = rows.copy()
    gaps[::3, 1] = gaps[:, 2] = NAN
    far = np.array([[1e308, -1e308, NAN]])
    names = np.where(rows > 0, "more", "less").astype(object)
    return {
        "gaps": (gaps, gaps),
        "nothing but gaps": (np.full((24, 2), NAN), np.full((2, 2), NAN)),
        "constant columns": (np.ones((24, 3)), rows),
        "very small, then very large": (1e-300 * rows, far),
        "very large": (1e307 * rows, rows),
        "a category that was never seen": (names, np.array([["none", None, "less"]], dtype=object)),
        "two rows": (rows[:2], rows),
    }


# sklearn's own checks cast NaN and infinity on purpose.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_every_check_of_scikit_learn_passes() -> None:
    results = check_estimator(classifier(), on_fail=None, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] in ("failed", "xfail")] == []
    assert sum(r["status"] == "passed" for r in results) > 50


@pytest.mark.parametrize(
    ("name", "predicts"), [(name, kind) for name, kinds in SHIPPED.items() for kind in kinds]
)
def test_what_ships_is_whole_small_and_documented(name: str, predicts: Predicts) -> None:
    folder = shipped(name, predicts)
    artifact = load_artifact(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 3_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert artifact.id in card
    if name == "tables":
        history = artifact.facts["training"]["history"]
        assert artifact.scores["validation"]["nll"] < history[0]["nll"]
        assert "invented tables" in card
    else:
        licences = {said.rpartition(", ")[2] for said in artifact.facts["data"].values()}
        assert all(licence in card for licence in licences - {"the same"})


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    for kind in (FewShotClassifier, FewShotRegressor):
        with pytest.raises(ArtifactError, match=r"No artifact named 'chairs' .* tables"):
            kind.from_pretrained("chairs")


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


@pytest.mark.parametrize("gap", ["", "  ", "NA", "n/a", "NaN", "null", "None", "?", "-", None])
def test_a_gap_leaves_a_column_of_numbers_one(gap: str | None) -> None:
    numbers = np.linspace(-1, 1, 40)
    y = np.where(numbers > 0, "hi", "lo")
    rows: list[list[object]] = [[str(each)] for each in numbers]
    rows[3] = [gap]
    learned = classifier().fit(rows, y)
    assert learned.coding_.categories == (None,)
    assert learned.score([[str(each + 0.01)] for each in numbers], y) == 1
    missing = learned.predict_proba([[None]])
    np.testing.assert_array_equal(learned.predict_proba([[gap]]), missing)


def test_gaps_among_categories_are_gaps_and_none_of_a_kind_is_a_kind() -> None:
    written = np.array([[each] for each in ["red", "", "N/A", "none", "-", "red", "-"]], object)
    assert coding_of(written).categories == (("-", "red", "none"),)
    coded = coding_of(written)(written)
    assert np.isnan(coded).all(axis=1).tolist() == [False, True, True, False, False, False, False]
    assert coding_of(np.array([["-"], ["none"]], object)).categories == (("-", "none"),)


def test_text_among_numbers_is_told_and_makes_categories() -> None:
    rows = [[1, str(i)] for i in range(9)] + [[1, "12 kg"], [1, "heavy"]]
    with pytest.warns(DataNote, match=r"Column 1 .* 9 numbers .* 2 other .* '12 kg' in row 10"):
        learned = classifier().fit(rows, ["a", "b"] * 5 + ["a"])
    assert learned.coding_.categories[0] is None
    assert len(learned.coding_.categories[1]) == MOST_CATEGORIES
    # Nobody took these for numbers, so nothing is said.
    classifier().fit([["1"], ["2"], ["2a"], ["3"]], list("abab"))
    classifier().fit([["1"], ["2"], ["x"], ["3"], ["y"], ["4"]], list("ababab"))


def test_dates_are_numbers_of_days() -> None:
    days = np.datetime64("2024-01-01") + np.arange(20) * np.timedelta64(3, "D")
    y = np.arange(20) >= 10
    nanoseconds = days.astype("datetime64[ns]")
    nanoseconds[2] = np.datetime64("NaT")
    learned = classifier().fit(nanoseconds[:, None], y)
    assert learned.coding_.categories == (None,)
    assert learned.score(days[:, None], y) > 0.9
    moment = datetime.datetime(2024, 1, 7, 12)
    east = datetime.timezone(datetime.timedelta(hours=2))
    same = [
        [days[2] + np.timedelta64(12, "h")],
        [moment],
        [moment.replace(tzinfo=datetime.UTC)],
        [datetime.datetime(2024, 1, 7, 14, tzinfo=east)],
    ]
    table = np.array(same, dtype=object)
    assert coding_of(table)(table)[:, 0].tolist() == [19729.5] * 4
    mixed = Frame(
        when=[datetime.date(2024, 1, 7), np.datetime64("NaT"), None],
        took=[datetime.timedelta(hours=12), np.timedelta64(12, "h"), np.timedelta64("NaT")],
    )
    entries = np.asarray(mixed)
    found = coding_of(entries)(entries)
    np.testing.assert_array_equal(found, [[19729, 0.5], [NAN, 0.5], [NAN, NAN]])
    lengths = (days - days[0])[:, None]
    assert regressor().fit(lengths, np.arange(20.0)).score(lengths, np.arange(20.0)) > 0.9


def test_columns_of_a_frame_need_no_type_in_common() -> None:
    class Typed(Frame):
        @property
        def dtypes(self) -> np.ndarray:
            return np.array([np.dtype("datetime64[ns]"), np.dtype(np.float64)], dtype=object)

    days = list(np.datetime64("2024-01-01") + np.arange(8))
    learned = classifier().fit(Typed(when=days, weight=[1.0] * 8), list("aaaabbbb"))
    assert learned.coding_.categories == (None, None)
    assert learned.predict(Typed(when=[days[0], days[7]], weight=[1.0] * 2)).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="1 features, but FewShotClassifier is expecting 2"):
        learned.predict(Frame(when=days))


def test_rows_keep_their_entries_whatever_else_stands_in_them() -> None:
    rows = [[1.0, "red", True], [2.0, None, True], [5.0, "blue", False], [6.0, "blue", False]]
    learned = classifier().fit(rows, list("aabb"))
    one = np.array(rows[:1], dtype=object)
    np.testing.assert_array_equal(learned.predict_proba(rows[:1]), learned.predict_proba(one))
    np.testing.assert_array_equal(
        learned.predict_proba([tuple(rows[0])]), learned.predict_proba(one)
    )
    scores = cross_val_score(classifier(), rows * 4, list("aabb") * 4, cv=4)
    assert scores.mean() == 1
    values = cross_val_score(regressor(), rows * 4, [1.0, 2.0, 5.0, 6.0] * 4, cv=4)
    assert values.mean() > 0.8
    with pytest.raises(ValueError, match=r"first has 3 entries, and row 2 has 2"):
        learned.predict([rows[0], [1.0, "red"]])


def test_a_failed_fit_leaves_what_was_learned() -> None:
    rows = [[weight, colour] for weight, colour in np.asarray(fruit())]
    for learned, y in ((classifier(), KINDS), (regressor(), np.arange(18.0))):
        with pytest.raises(ValueError):
            learned.fit(rows[:1] * 2, y[:1])
        with pytest.raises(NotFittedError):
            learned.predict(rows)
        answers = learned.fit(rows, y).predict(rows)
        with pytest.raises(ValueError):
            learned.fit([[each[1]] for each in rows], y[:1])
        np.testing.assert_array_equal(learned.predict(rows), answers)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Frame(weight=[float("inf")], colour=["red"]), "Column 0 holds infinity"),
        (Frame(weight=[10**400], colour=["red"]), "Column 0 holds infinity"),
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
    for learner in (classifier(), regressor()):
        with pytest.raises(ValueError, match=r"101 columns.* at most 100"):
            learner.fit(columns, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="Found one class only"):
        classifier().fit(rows[:4], [1, 1, 1, 1])


def test_constant_and_empty_columns_do_no_harm() -> None:
    X, y = load_iris(return_X_y=True)
    few = np.r_[0:8, 50:58, 100:108]
    wide = np.c_[X, np.full(len(X), 7.0), np.full(len(X), NAN)]
    plain, wider = (classifier().fit(each[few], y[few]).predict_proba(each) for each in (X, wide))
    np.testing.assert_allclose(plain, wider, atol=1e-9)


@pytest.mark.parametrize("name", hard_tables())
def test_answers_to_a_hard_table_are_finite(name: str) -> None:
    X, queries = hard_tables()[name]
    p = classifier().fit(X, np.arange(len(X)) % 2).predict_proba(queries)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p >= 0).all()
    for y in (np.arange(len(X)) ** 2.0, np.full(len(X), 3.0)):
        mean, deviation = regressor().fit(X, y).predict(queries, return_std=True)
        assert np.isfinite(mean).all()
        assert (deviation > 0).all()
        assert np.isfinite(deviation).all()


def test_a_class_without_examples_is_never_the_answer() -> None:
    begun = classifier().partial_fit(fruit(), KINDS, classes=["apple", "berry", "cherry"])
    assert begun.predict_proba(fruit())[:, 2].max() < 1e-9


def test_values_come_with_intervals_that_hold_them() -> None:
    X, y = load_diabetes(return_X_y=True)
    learned = regressor().fit(X[:100], y[:100])
    assert learned.score(X[100:], y[100:]) > 0.4
    low, high = learned.predict_interval(X[100:])
    assert 0.9 < np.mean((low <= y[100:]) & (y[100:] <= high)) < 0.99
    inner, outer = learned.predict_interval(X[100:], level=0.5)
    assert ((low < inner) & (inner < outer) & (outer < high)).all()


@pytest.mark.parametrize(("size", "middle"), [(1e-9, 0.0), (1e200, 0.0), (10.0, -5000.0)])
def test_the_units_of_values_mean_nothing(size: float, middle: float) -> None:
    X, y = load_diabetes(return_X_y=True)
    mean, deviation = regressor().fit(X[:40], y[:40]).predict(X[40:50], return_std=True)
    moved = regressor().fit(X[:40], size * y[:40] + middle)
    found, wide = moved.predict(X[40:50], return_std=True)
    np.testing.assert_allclose(found, size * mean + middle, rtol=1e-6)
    np.testing.assert_allclose(wide, size * deviation, rtol=1e-6)


def test_values_of_numbers_categories_and_gaps() -> None:
    grams = [*np.linspace(140, 160, 9), *np.linspace(8, 12, 9)]
    kinds = ["green", "red", None] * 3 + ["black", "red", None] * 3
    price = 0.01 * np.array(grams) + np.where(np.array(kinds) == "black", 1.0, 0.0)
    learned = regressor().fit(Frame(weight=grams, colour=kinds), price)
    asked = Frame(weight=[150, 150, NAN], colour=["green", "blue", None])
    found, deviation = learned.predict(asked, return_std=True)
    assert found[:2] == pytest.approx([1.5, 1.5], abs=0.25)
    assert deviation[2] > deviation[0]


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
