"""Trained artifacts with the faces of scikit-learn estimators."""

from __future__ import annotations

from quickstudy.estimator.classifier import FewShotClassifier
from quickstudy.estimator.regressor import FewShotRegressor

__all__ = ["FewShotClassifier", "FewShotRegressor"]
