"""The regressor: scikit-learn's own checks, and a learner whose answers are known in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor

from quickstudy.artifact import Artifact, save_artifact
from quickstudy.config import RunConfig
from quickstudy.estimator import FewShotRegressor
from quickstudy.learners import LEARNERS
from quickstudy.learners.base import Learner
from quickstudy.learners.gradient import MAML
from quickstudy.learners.metric import ProtoNet
from quickstudy.likelihood import Gaussian
from quickstudy.nn.encoders import ImageEncoder, RawEncoder, VectorEncoder
from quickstudy.pretrained import shipped

NOISE = 0.3


class Moments(NamedTuple):
    gram: Tensor
    sums: Tensor


class BayesLinear(Learner):
    """The posterior of ``y = w' x + b + noise``, w and b ~ N(0, 1): all that is claimed can be computed by hand."""

    order_free, additive, inner_loop = True, True, False
    state_type = Moments

    def __init__(self, encoder) -> None:
        super().__init__(encoder, Gaussian(smallest_scale=0.0))
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def adapt(self, support, context, state=None):
        rows = self.rows(support.x) * support.mask[..., None]
        y = support.y * support.mask[..., None]
        found = Moments(rows.mT @ rows / NOISE**2, rows.mT @ y.to(rows) / NOISE**2)
        return found if state is None else Moments(*map(torch.add, found, state))

    def predict(self, state, x, context):
        rows = self.rows(x)
        covariance = torch.linalg.inv(state.gram + torch.eye(rows.shape[-1]).to(rows))
        mean = rows @ covariance @ state.sums
        deviation = ((rows @ covariance * rows).sum(-1, keepdim=True) + NOISE**2).sqrt()
        return torch.cat([mean, torch.log(torch.expm1(deviation))], -1)

    def rows(self, x):
        return torch.cat([x, torch.ones_like(x[..., :1])], -1).to(self.unused.dtype)


def artifact(learner: Learner, data: str = "linear,dims=2", **encoder) -> Artifact:
    config = RunConfig(data=data, learner={"name": "test", "values": 1}, encoder="vector")
    return Artifact(learner.eval(), config, {}, id="untrained", path=None)


@pytest.fixture
def bayes() -> Artifact:
    torch.manual_seed(0)
    return artifact(BayesLinear(VectorEncoder(8, width=4, layers=1)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """The folders of the artifact for tables that ships, and of one for numbers as it is before training."""
    torch.manual_seed(0)
    options = {"adapt": "head", "rate": 0.05, "steps": 50, "values": 1}
    folder = tmp_path_factory.mktemp("maml") / "artifact"
    shape = {"name": "vector", "inputs": 64}
    config = RunConfig(data="numbers", learner={"name": "maml"} | options, encoder=shape)
    save_artifact(folder, LEARNERS["maml"](VectorEncoder(64), **options), config, {})
    return {"tables": str(shipped("tables", "values")), "maml": str(folder)}


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    X, queries = generator.normal(size=(6, 2)), generator.normal(size=(5, 2))
    return X, X @ [1.0, -2.0] + 0.5 + NOISE * generator.normal(size=6), queries


def posterior(X, y, queries):
    """Mean and covariance of the queries' values, by hand."""
    rows, asked = (np.column_stack([each, np.ones(len(each))]) for each in (X, queries))
    covariance = np.linalg.inv(rows.T @ rows / NOISE**2 + np.eye(3))
    mean = asked @ covariance @ rows.T @ y / NOISE**2
    return mean, asked @ covariance @ asked.T + NOISE**2 * np.eye(len(queries))


# sklearn's own checks cast NaN and infinity on purpose.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("learner", ["tables", "maml"])
def test_every_check_of_scikit_learn_passes(learner, folders):
    regressor = FewShotRegressor(folders[learner])
    results = check_estimator(regressor, on_fail=None, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] in ("failed", "xfail")] == []
    assert sum(r["status"] == "passed" for r in results) > 40


def test_answers_are_those_of_the_learner(bayes, points):
    X, y, queries = points
    regressor = FewShotRegressor(bayes).fit(X, y)
    assert regressor.standardise_ is False
    mean, covariance = posterior(X, y, queries)
    found, deviation = regressor.predict(queries, return_std=True)
    np.testing.assert_allclose(found, mean, rtol=1e-9)
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(covariance)), rtol=1e-9)
    np.testing.assert_array_equal(regressor.predict(queries), found)
    for level in (0.5, 0.95):
        low, high = regressor.predict_interval(queries, level)
        expected = norm.interval(level, loc=mean, scale=np.sqrt(np.diag(covariance)))
        np.testing.assert_allclose([low, high], expected, rtol=1e-9)


def test_points_may_come_one_after_the_other(bayes, points):
    X, y, queries = points
    whole = FewShotRegressor(bayes).fit(X, y).predict(queries)
    parts = FewShotRegressor(bayes).partial_fit(X[:2], y[:2]).partial_fit(X[2:], y[2:])
    np.testing.assert_allclose(parts.predict(queries), whole, rtol=1e-9)
    assert parts.task_.examples == 6
    from_nothing = FewShotRegressor(bayes).begin(columns=2).partial_fit(X, y)
    np.testing.assert_allclose(from_nothing.predict(queries), whole, rtol=1e-9)


def test_no_point_at_all_gives_the_prior(bayes, points):
    queries = points[2]
    mean, deviation = FewShotRegressor(bayes).begin(columns=2).predict(queries, return_std=True)
    np.testing.assert_array_equal(mean, np.zeros(5))
    expected = np.sqrt(1 + (queries**2).sum(1) + NOISE**2)
    np.testing.assert_allclose(deviation, expected, rtol=1e-9)
    with pytest.raises(ValueError, match="Without an example there is no scale"):
        FewShotRegressor(bayes, standardise=True).begin(columns=2)
    with pytest.raises(ValueError, match="0 sample"):
        FewShotRegressor(bayes).fit(np.zeros((0, 2)), [])


def test_functions_are_drawn_as_a_whole(bayes, points):
    """Means and covariances of many draws are those of the joint posterior."""
    X, y, queries = points
    regressor = FewShotRegressor(bayes).fit(X[:2], y[:2])
    drawn = regressor.sample(queries, n=4000, seed=3)
    assert drawn.shape == (4000, 5)
    mean, covariance = posterior(X[:2], y[:2], queries)
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(abs(drawn.mean(0) - mean), 4.5 * spread / math.sqrt(4000))
    found = np.cov(drawn.T)
    np.testing.assert_array_less(abs(found - covariance), 0.12 * np.outer(spread, spread))
    assert abs(covariance[0, 1]) > 0.2 * spread[0] * spread[1]
    # The log density of the draws is what it is for draws of that distribution.
    nats = multivariate_normal(mean, covariance).logpdf(drawn).mean()
    entropy = multivariate_normal(mean, covariance).entropy()
    assert nats == pytest.approx(-entropy, abs=0.15)
    np.testing.assert_array_equal(regressor.sample(queries, n=4000, seed=3), drawn)
    assert (regressor.sample(queries, n=2, seed=4) != drawn[:2]).all()


def test_standardised_numbers_come_back_in_their_own_units(bayes, points):
    X, y, queries = points
    regressor = FewShotRegressor(bayes, standardise=True)
    plain = regressor.fit(X, y)
    mean, deviation = plain.predict(queries, return_std=True)
    low, _ = plain.predict_interval(queries)
    drawn = plain.sample(queries, n=3, seed=1)
    scaled = clone(regressor).fit(1000 * X - 7, 50 * y + 9)
    found, wide = scaled.predict(1000 * queries - 7, return_std=True)
    np.testing.assert_allclose(found, 50 * mean + 9, rtol=1e-9)
    np.testing.assert_allclose(wide, 50 * deviation, rtol=1e-9)
    np.testing.assert_allclose(scaled.predict_interval(1000 * queries - 7)[0], 50 * low + 9)
    np.testing.assert_allclose(scaled.sample(1000 * queries - 7, n=3, seed=1), 50 * drawn + 9)


@pytest.mark.parametrize(
    ("data", "expected"),
    [("gaussian_process", False), ("linear,dims=2", False), ("numbers", True)],
)
def test_whoever_knows_the_scale_of_its_world_takes_numbers_as_they_are(data, expected, points):
    X, y, _ = points
    learner = BayesLinear(VectorEncoder(8, width=4, layers=1))
    assert FewShotRegressor(artifact(learner, data)).fit(X, y).standardise_ is expected


def test_constant_values_and_columns_do_no_harm(bayes):
    X = np.column_stack([np.arange(4.0), np.full(4, 1e9)])
    for y in (np.arange(4.0), np.full(4, 5.0)):
        found = FewShotRegressor(bayes, standardise=True).fit(X, y).predict(X)
        np.testing.assert_allclose(found, y, atol=0.2)


def test_a_neural_process_is_a_regressor():
    torch.manual_seed(0)
    learner = LEARNERS["neural_process"](RawEncoder(1), values=1, width=8, layers=1, heads=2)
    regressor = FewShotRegressor(artifact(learner, "gaussian_process"))
    X = np.linspace(-2, 2, 7)[:, None]
    regressor.fit(X, np.sin(X[:, 0]))
    mean, deviation = regressor.predict(X, return_std=True)
    low, high = regressor.predict_interval(X)
    assert (low < mean).all()
    assert (mean < high).all()
    assert (deviation > 0).all()
    assert regressor.sample(X, n=3).shape == (3, 7)
    with pytest.raises(ValueError, match="2 columns, but this artifact takes at most 1"):
        regressor.fit(np.zeros((3, 2)), np.zeros(3))
    pair = LEARNERS["neural_process"](RawEncoder(2), values=2, width=8, layers=1, heads=2)
    several = FewShotRegressor(artifact(pair, "gaussian_process"))
    several.fit(np.zeros((3, 2)), np.zeros((3, 2)))
    assert several.predict(np.zeros((4, 2))).shape == (4, 2)
    assert several.sample(np.zeros((4, 2)), n=3).shape == (3, 4, 2)
    with pytest.raises(ValueError, match="takes 2, neither more nor fewer"):
        several.fit(np.zeros((3, 1)), np.zeros((3, 2)))


def test_tables_are_learned_with_their_gaps(folders):
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=60)
    colours = generator.choice(["red", "blue"], 60)
    X = np.array([[a, b] for a, b in zip(numbers, colours, strict=True)], dtype=object)
    y = 3 * numbers + np.where(colours == "red", 5.0, 0.0)
    X[3, 0], X[5, 1] = None, None
    scores = cross_val_score(FewShotRegressor(folders["tables"]), X, y, cv=3)
    assert scores.mean() > 0.8


def test_what_cannot_be_learned_is_explained(bayes, points):
    X, y, queries = points
    with pytest.raises(ValueError, match="name an artifact's folder"):
        FewShotRegressor().fit(X, y)
    with pytest.raises(NotFittedError):
        FewShotRegressor(bayes).predict(queries)
    classes = artifact(ProtoNet(VectorEncoder(4, width=4)))
    with pytest.raises(ValueError, match="tells classes apart; use FewShotClassifier"):
        FewShotRegressor(classes).fit(X, y)
    pictures = artifact(BayesLinear(ImageEncoder(8, layers=1, heads=2, size=8)), data="glyphs")
    with pytest.raises(ValueError, match="reads images"):
        FewShotRegressor(pictures).fit(X, y)
    regressor = FewShotRegressor(bayes).fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        regressor.fit([[math.nan, 1.0]], [1.0])
    with pytest.raises(ValueError, match="infinity"):
        regressor.fit([[math.inf, 1.0]], [1.0])
    with pytest.raises(ValueError, match="y contains NaN"):
        regressor.fit([[0.0, 1.0]], [math.nan])
    with pytest.raises(ValueError, match="at most 8"):
        regressor.fit(np.zeros((2, 9)), [0, 1])
    with pytest.raises(ValueError, match="6 examples and 2 values"):
        regressor.fit(X, y[:2])
    regressor.fit(X, y)
    with pytest.raises(ValueError, match="3 features"):
        regressor.predict(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="between 0 and 1; found 95"):
        regressor.predict_interval(X, level=95)
    with pytest.raises(ValueError, match="found n=0"):
        regressor.sample(X, n=0)


def test_a_failed_fit_leaves_what_was_learned(bayes, points):
    X, y, queries = points
    regressor = FewShotRegressor(bayes)
    with pytest.raises(ValueError, match="y contains NaN"):
        regressor.fit(X[:, :1], np.full(len(X), math.nan))
    with pytest.raises(NotFittedError):
        regressor.predict(queries)
    before = regressor.fit(X, y).predict(queries)
    with pytest.raises(ValueError, match="6 examples and 2 values"):
        regressor.fit(X[:, :1], y[:2])
    np.testing.assert_array_equal(regressor.predict(queries), before)
    regressor.set_params(standardise=True)
    with pytest.raises(ValueError, match="Without an example there is no scale"):
        regressor.begin(columns=1)
    np.testing.assert_array_equal(regressor.predict(queries), before)


def test_who_says_no_deviation_says_so(points):
    X, y, queries = points
    torch.manual_seed(0)
    regressor = FewShotRegressor(artifact(MAML(VectorEncoder(2, width=4), values=1, steps=1)))
    assert regressor.fit(X, y).predict(queries).shape == (5,)
    for asked in (
        lambda: regressor.predict(queries, return_std=True),
        lambda: regressor.predict_interval(queries),
        lambda: regressor.sample(queries),
    ):
        with pytest.raises(ValueError, match="without their uncertainty"):
            asked()
