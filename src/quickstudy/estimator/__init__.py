"""Trained artifacts with the faces of scikit-learn estimators."""

from __future__ import annotations

from quickstudy.estimator.classifier import FewShotClassifier

__all__ = ["FewShotClassifier"]
