"""quickstudy teaches a Transformer to learn.

``import quickstudy`` itself is light; torch and scikit-learn are imported when :func:`load`, :class:`FewShotClassifier`
or :class:`FewShotRegressor` is first used, lightning with :func:`improve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.artifact import load_artifact as load
    from quickstudy.estimator import FewShotClassifier, FewShotRegressor
    from quickstudy.training.improving import improve

__version__ = "0.1.0"
__all__ = ["FewShotClassifier", "FewShotRegressor", "__version__", "improve", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from quickstudy.artifact import load_artifact

        return load_artifact
    if name == "improve":
        from quickstudy.training.improving import improve

        return improve
    if name in ("FewShotClassifier", "FewShotRegressor"):
        from quickstudy import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
