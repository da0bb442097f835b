"""A trained artifact with the face of a scikit-learn regressor."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d
from torch import Tensor

from quickstudy.answering import draws, values_and_doubt
from quickstudy.artifact import Artifact, extend
from quickstudy.build import one_source, parse_spec
from quickstudy.data import SOURCES
from quickstudy.data.coding import Array, coding_of
from quickstudy.data.source import TaskSource, World
from quickstudy.estimator.inputs import mean_and_deviation, previous_task, reads_tables, table_of
from quickstudy.estimator.keeping import Lasting
from quickstudy.estimator.tables import entries_of
from quickstudy.learning import begin
from quickstudy.nn.encoders import RawEncoder, VectorEncoder
from quickstudy.nn.tables import TableEncoder
from quickstudy.pretrained import shipped

WITHOUT_DOUBT = (
    "This artifact's learner says values without their uncertainty; use one that is trained for both, such as "
    "neural_process."
)


class FewShotRegressor(RegressorMixin, Lasting):  # type: ignore[misc]
    """Learns a function from a few of its points, with what an artifact learned from many functions.

    ``fit`` adapts the artifact to the points, ``partial_fit`` goes on from there, and ``predict`` answers; ``begin``
    starts from no point at all. ``X`` is a 2-D array (example, column) of numbers; of an artifact for tables also a
    list of rows or a data frame, with categories and gaps.

    A function of a world (:class:`quickstudy.data.source.World`: sinusoid, linear, gaussian_process) has a scale that
    the artifact knows, so numbers are taken as they are: bring yours to it, or set ``standardise``. With other
    artifacts, columns and values are standardised by the mean and standard deviation of the first examples; one for
    tables does so by itself.

    Args:
        artifact: the folder of an artifact, or a loaded one, whose learner predicts numbers. A pickle holds it only
            where it lies in no folder; else it is read again from there.
        standardise: whether to standardise columns and values; ``None`` as is right for the artifact's training data.
        device: where an artifact that is given as a folder computes.

    Attributes:
        artifact_: what it computes with.
        n_features_in_: the number of columns.
        standardise_: whether columns and values are standardised.
        task_: what was learned, an :class:`quickstudy.artifact.AdaptedTask`.

    >>> regressor = FewShotRegressor.from_pretrained("tables")
    >>> X = np.arange(12.0)[:, None]
    >>> mean, deviation = regressor.fit(X, 3 * X[:, 0] + 1).predict([[5.5]], return_std=True)
    >>> bool(abs(mean - 17.5) < 1), bool(deviation > 0)
    (True, True)
    """

    def __init__(
        self,
        artifact: str | Path | Artifact | None = None,
        *,
        standardise: bool | None = None,
        device: str = "cpu",
    ) -> None:
        self.artifact = artifact
        self.standardise = standardise
        self.device = device

    @classmethod
    def from_pretrained(cls, name: str, *, device: str = "cpu") -> Self:
        """A regressor that starts from an artifact which ships with the package, such as ``tables``.

        Raises:
            ArtifactError: there is none of that name.
        """
        return cls(shipped(name, "values"), device=device)

    def fit(self, X: Any, y: Any, *, after: FewShotRegressor | None = None) -> Self:
        """Learn a function from its points and forget any earlier one.

        Args:
            X: (example, column).
            y: (example,) or (example, values), as many as the artifact predicts.
            after: a regressor that has learned the function before in a stream, whose memory this one starts from.

        Raises:
            ValueError: the artifact tells classes apart, a number is not finite, or there are more columns than the
                artifact takes.
            ArtifactError: ``after`` has another artifact, or one without memory.
        """
        previous = previous_task(after)
        with self._or_as_before():
            self._start()
            x = self._inputs(X, begin=True)
            y = self._values(y, len(x))
            self.centre_, self.spread_ = np.zeros(y.shape[1]), np.ones(y.shape[1])
            if self.standardise_:
                self.centre_, self.spread_ = mean_and_deviation(y)
            self.task_ = extend(self.artifact_, None, x, self._as_learned(y), after=previous)
        return self

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Learn from more points of the function; the first call begins it.

        Raises:
            ValueError: as :meth:`fit`, or another number of columns than before.
        """
        if not hasattr(self, "task_"):
            return self.fit(X, y)
        x = self._inputs(X, begin=False)
        y = self._values(y, len(x))
        self.task_ = extend(self.artifact_, self.task_, x, self._as_learned(y))
        return self

    def begin(self, columns: int = 1) -> Self:
        """Know no point yet, so that answers are those of the prior: what the artifact expects of any function.

        Args:
            columns: of the points to come.

        Raises:
            ValueError: columns and values are to be standardised, for which there are no examples yet.
        """
        with self._or_as_before():
            self._start()
            if self.standardise_ or isinstance(self.artifact_.learner.encoder, TableEncoder):
                raise ValueError(
                    "Without an example there is no scale to bring numbers to; fit some first, or use an artifact that "
                    "was trained on a world, with standardise=False."
                )
            x = self._inputs(np.zeros((1, columns)), begin=True)
            values = self._outputs()
            self.centre_, self.spread_ = np.zeros(values), np.ones(values)
            self.task_ = begin(self.artifact_, x, [f"value {i + 1}" for i in range(values)])
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The value of each example, (example,) or (example, values), and on request its standard deviation.

        Raises:
            ValueError: a deviation is asked of a learner that says none.
        """
        mean, deviation = self._said(X)
        if not return_std:
            return self._shaped(mean)
        return self._shaped(mean), self._shaped(self._sure(deviation))

    def predict_interval(self, X: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper ends of the interval that holds each value with probability ``level``: ``μ ± z σ``.

        Raises:
            ValueError: the level is not between 0 and 1, or the learner says no deviation.
        """
        if not 0 < level < 1:
            raise ValueError(f"The level must be between 0 and 1; found {level}.")
        mean, deviation = self._said(X)
        reach = NormalDist().inv_cdf(0.5 + level / 2) * self._sure(deviation)
        return self._shaped(mean - reach), self._shaped(mean + reach)

    def sample(self, X: Any, n: int = 1, seed: int = 0) -> Array:
        """Functions as they may be, (n, example) or (n, example, values): each is drawn as a whole.

        The examples are drawn one after the other, each given those before it, so what is drawn hangs together.

        Raises:
            ValueError: the learner says no deviation, or n is below 1.
        """
        if n < 1:
            raise ValueError(f"At least 1 function must be drawn; found n={n}.")
        check_is_fitted(self, "task_")
        x = self._inputs(X, begin=False)
        generator = torch.Generator().manual_seed(seed)
        found = draws(self.artifact_, self.task_, x, n, generator=generator)
        if found is None:
            raise ValueError(WITHOUT_DOUBT)
        values = found.double().cpu().numpy() * self.spread_ + self.centre_
        return values[..., 0] if values.shape[2] == 1 else values

    def _start(self) -> None:
        learner = self._start_from_artifact().learner
        if not learner.likelihood.of_values:
            raise ValueError("This artifact tells classes apart; use FewShotClassifier.")
        if not isinstance(learner.encoder, VectorEncoder | RawEncoder | TableEncoder):
            raise ValueError(
                f"This artifact reads {self.artifact_.inputs['kind']}s; a regressor takes one that reads numbers."
            )
        name, _, _ = parse_spec(one_source(self.artifact_.config.data))
        source = SOURCES.get(name, TaskSource)
        by_itself = isinstance(learner.encoder, TableEncoder) or issubclass(source, World)
        self.standardise_ = not by_itself if self.standardise is None else self.standardise

    def _inputs(self, X: Any, *, begin: bool) -> Tensor:
        """The examples as the artifact's encoder takes them."""
        encoder = self.artifact_.learner.encoder
        if isinstance(encoder, TableEncoder):
            entries = entries_of(self, X, begin=begin)
            if begin:
                self.coding_ = coding_of(entries)
            return torch.from_numpy(self.coding_(entries))
        assert isinstance(encoder, RawEncoder | VectorEncoder)
        most = encoder.width if isinstance(encoder, RawEncoder) else encoder.inputs
        table = table_of(self, X, most=most, begin=begin)
        if isinstance(encoder, RawEncoder) and table.shape[1] < most:
            raise ValueError(
                f"Found {table.shape[1]} columns, but this artifact takes {most}, neither more nor fewer."
            )
        if begin:
            self.mean_, self.scale_ = np.zeros(table.shape[1]), np.ones(table.shape[1])
            if self.standardise_:
                self.mean_, self.scale_ = mean_and_deviation(table)
        return torch.from_numpy((table - self.mean_) / self.scale_)

    def _outputs(self) -> int:
        return int(getattr(self.artifact_.learner, "values", 0)) or int(
            self.artifact_.config.learner.get("values", 1)
        )

    def _values(self, y: Any, examples: int) -> Array:
        """(example, values), float64."""
        if y is None:
            raise ValueError(
                "This FewShotRegressor estimator requires y to be passed, but the target y is None."
            )
        if self._outputs() == 1:
            y = column_or_1d(y, warn=True)[:, None]
        y = check_array(y, dtype=np.float64, input_name="y")
        if len(y) != examples:
            raise ValueError(
                f"Found {examples} examples and {len(y)} values; give one value to each example."
            )
        return y

    def _as_learned(self, y: Array) -> Tensor:
        return torch.from_numpy((y - self.centre_) / self.spread_)

    def _said(self, X: Any) -> tuple[Array, Array | None]:
        """Mean and deviation, each (example, values), in the units of y; no deviation of who says none."""
        check_is_fitted(self, "task_")
        x = self._inputs(X, begin=False)
        mean, deviation = values_and_doubt(self.artifact_, self.task_, x)
        centre = mean.double().cpu().numpy() * self.spread_ + self.centre_
        if deviation is None:
            return centre, None
        return centre, deviation.double().cpu().numpy() * self.spread_

    @staticmethod
    def _sure(deviation: Array | None) -> Array:
        if deviation is None:
            raise ValueError(WITHOUT_DOUBT)
        return deviation

    @staticmethod
    def _shaped(values: Array) -> Array:
        return values[:, 0] if values.shape[1] == 1 else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tables = reads_tables(self.artifact)
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = tables
        return tags
