"""A trained artifact with the face of a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from quickstudy.answering import Judged, judge
from quickstudy.artifact import AdaptedTask, Artifact, answer, extend, load_artifact
from quickstudy.data.coding import Array
from quickstudy.derive import derive
from quickstudy.episode import Inputs
from quickstudy.estimator.examples import read_examples
from quickstudy.estimator.inputs import check_device, note_texts, previous_task, reads_tables
from quickstudy.estimator.keeping import Lasting
from quickstudy.estimator.labels import check_names, classes_among, named, names_of, share_kept
from quickstudy.evaluation.held_out import held_out
from quickstudy.learning import and_unlabelled, begin_by_name, grow_by_name
from quickstudy.likelihood import Bernoulli
from quickstudy.naming import Description
from quickstudy.pretrained import shipped


class FewShotClassifier(ClassifierMixin, Lasting):  # type: ignore[misc]
    """Learns a new task from a few labelled examples, with what an artifact learned from many tasks.

    ``fit`` adapts the artifact to the examples, ``partial_fit`` goes on from there, and ``predict_proba`` answers.
    What ``X`` is depends on the artifact: for numbers a 2-D array (example, column), whose columns are standardised
    with the mean and standard deviation of the first examples seen and may be fewer than the artifact's; for images an
    array (example, height, width) or (example, channel, height, width) of uint8 or of floats in 0 … 1, or a list of
    file paths or Pillow images; for texts a list of strings, none of them empty; for tables an array, a list of rows or
    a data frame, in which columns that cannot be read as numbers are categories, and None, NaN and what people write
    for them, such as an empty string or NA, are gaps.

    Args:
        artifact: the folder of an artifact, or a loaded one. A pickle holds it only where it lies in no folder; else it
            is read again from there.
        device: where an artifact that is given as a folder computes.

    Attributes:
        artifact_: what it computes with.
        classes_: the classes, sorted.
        n_features_in_: the number of columns; numbers only.
        task_: what was learned, an :class:`quickstudy.artifact.AdaptedTask`.

    >>> from quickstudy.artifact import Artifact
    >>> from quickstudy.config import RunConfig
    >>> from quickstudy.learners.metric import ProtoNet
    >>> from quickstudy.nn.encoders import VectorEncoder
    >>> learner = ProtoNet(VectorEncoder(8)).eval()
    >>> config = RunConfig(data="numbers", encoder={"name": "vector", "inputs": 8})
    >>> classifier = FewShotClassifier(Artifact(learner, config, {}, id="untrained", path=None))
    >>> classifier.fit([[0.0, 1.0], [5.0, 6.0]], ["low", "high"]).predict([[4.0, 6.0]]).tolist()
    ['high']
    """

    classes_: Array

    def __init__(
        self, artifact: str | Path | Artifact | None = None, *, device: str = "cpu"
    ) -> None:
        self.artifact = artifact
        self.device = device

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        learner: str | Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> Self:
        """A classifier that starts from an artifact which ships with the package: ``tables`` or ``text``.

        Args:
            name: of the artifact.
            learner: another one for its encoder (:func:`quickstudy.derive.derive`), such as ``fine_tune``.
            device: where it computes.

        Raises:
            ArtifactError: there is none of that name, or it does not take that learner.
        """
        folder = shipped(name)
        if learner is None:
            return cls(folder, device=device)
        check_device(device)
        return cls(derive(load_artifact(folder, device), learner), device=device)

    def fit(
        self,
        X: Any = None,
        y: Any = None,
        *,
        classes: Any = None,
        description: Description = "",
        after: FewShotClassifier | None = None,
        unlabelled: Any = None,
        unknown: bool | float = False,
    ) -> Self:
        """Learn a task from its examples and forget any earlier one.

        Args:
            X: the examples; None to begin with the names of the classes alone, if the artifact reads names.
            y: (example,), the class of each; at least two classes.
            classes: all classes of the task, where ``y`` does not hold them all.
            description: what the task says of itself, in words or numbers, if the artifact reads it.
            after: a classifier that has learned the task before in a stream, whose memory this one starts from.
            unlabelled: examples whose class nobody has said, to learn from too; a few hundred tell already.
            unknown: learn from the examples, too, when another is of none of the classes, for ``predict(reject=True)``
                (:meth:`quickstudy.evaluation.held_out.HeldOut.rejection`). A number is the share of those of a class
                that are to be answered, True is 0.95.

        Raises:
            ValueError: the examples are not of the artifact's kind, or of one class only; there are none, but a task
                came before; ``unknown`` without examples or after another task, or no share; labels of two types with
                one name. What was learned before stays.
            ArtifactError: the artifact reads no names, or no such description; ``after`` has another artifact, or one
                without memory; the artifact learns nothing from examples without a label; ``unknown`` where no class
                has two examples.
        """
        share = share_kept(unknown)
        if share is not None and (X is None or after is not None):
            raise ValueError(
                "What is of no class is learned from the examples of a task that begins by itself; give examples, and "
                "leave after out."
            )
        return self._begin(X, y, classes, description, after, unlabelled, share=share)

    def partial_fit(
        self, X: Any = None, y: Any = None, classes: Any = None, *, unlabelled: Any = None
    ) -> Self:
        """Learn from more examples of the task; the first call begins it.

        Args:
            X: the examples; None where there are only such without a label, or only names of new classes.
            y: (example,), the class of each.
            classes: all classes of the task; needed in the first call where ``y`` does not hold them all. Later they
                may be more than before, and nothing is learned anew for them; of new ones without an example, the
                artifact must read the names.
            unlabelled: as in :meth:`fit`.

        Raises:
            ValueError: a label that is not among the classes, classes that leave an old one out, or examples of
                another kind.
            ArtifactError: new classes for a learner whose tasks keep those that they began with, or without an example
                for one that reads no names; the artifact learns nothing from examples without a label.
        """
        if not hasattr(self, "task_"):
            return self._begin(X, y, classes, "", None, unlabelled)
        before, task = self.classes_, self.task_
        wanted = before if classes is None else classes_among(classes)
        if len(np.setdiff1d(before, wanted)):
            raise ValueError(
                f"The task was begun with the classes {before.tolist()}, and now classes are {wanted.tolist()}; name "
                "all old ones, or fit anew."
            )
        unshown = np.setdiff1d(np.setdiff1d(wanted, before), [] if y is None else y)
        with self._or_as_before():
            if len(unshown):
                self.task_ = grow_by_name(self.artifact_, task, names_of(unshown))
            self.classes_ = wanted
            if X is None and unlabelled is not None:
                self._learn_unlabelled(unlabelled)
            if X is None and (unlabelled is not None or len(unshown)):
                return self
            x = read_examples(self, X, begin=not (task.examples or hasattr(self, "mean_")))
            labels = named(y, self.classes_, len(x))
            note_texts(self.artifact_.learner.encoder, X, labels)
            self.task_ = extend(
                self.artifact_, self.task_, *self._and(x, labels, unlabelled), new_classes=True
            )
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (example, class), in the order of ``classes_``."""
        check_is_fitted(self, "task_")
        found = answer(self.artifact_, self.task_, read_examples(self, X, begin=False))
        p = found[:, self._columns()].double().cpu().numpy()
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any, *, reject: bool = False) -> Array:
        """The most probable class of each example.

        Args:
            X: the examples.
            reject: answer ``None`` where an example is like no class; the array is then one of objects.

        Raises:
            ArtifactError: examples are to be refused, but neither ``fit`` nor the artifact has learned when.
        """
        if not reject:
            p = self.predict_proba(X)
            return self.classes_[p.argmax(axis=1)]
        found = self._judged(X)
        chances = found.probabilities[:, self._columns()]
        answers = self.classes_[chances.argmax(1).cpu().numpy()].astype(object)
        answers[found.unknown.cpu().numpy()] = None
        return answers

    def unknown_score(self, X: Any) -> Array:
        """How little each example is like any class, (example,); ``predict`` may refuse what is above a threshold.

        Score and threshold were learned from the examples by ``fit(unknown=True)``, or from classes that the artifact
        was not trained on, by ``quickstudy evaluate ARTIFACT --unknown`` or
        :func:`quickstudy.evaluation.unknown.fit_rejection`.

        Raises:
            ArtifactError: neither was.
        """
        return self._judged(X).scores.cpu().numpy()

    def _judged(self, X: Any) -> Judged:
        check_is_fitted(self, "task_")
        return judge(self.artifact_, self.task_, read_examples(self, X, begin=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tables = reads_tables(self.artifact)
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = tables
        return tags

    def _begin(
        self,
        X: Any,
        y: Any,
        classes: Any,
        description: Description,
        after: FewShotClassifier | None,
        unlabelled: Any,
        *,
        share: float | None = None,
    ) -> Self:
        previous = previous_task(after)
        with self._or_as_before():
            if isinstance(self._start_from_artifact().learner.likelihood, Bernoulli):
                raise ValueError(
                    "This artifact gives an example any number of labels, and a FewShotClassifier one class; use "
                    "quickstudy.artifact.extend and answer, or an artifact of one class."
                )
            if X is None and classes is not None:
                self._begin_by_name(classes, description, after, previous, unlabelled)
            else:
                self._begin_by_examples(
                    X, y, classes, description, previous, unlabelled, share=share
                )
        return self

    def _begin_by_name(
        self,
        classes: Any,
        description: Description,
        after: FewShotClassifier | None,
        previous: AdaptedTask | None,
        unlabelled: Any,
    ) -> None:
        # Columns are measured as the task before has measured them, or else as they are.
        for scale in ("mean_", "scale_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(scale, None)
            if hasattr(after, scale):
                setattr(self, scale, getattr(after, scale))
        self.classes_ = classes_among(classes)
        names = names_of(self.classes_)
        self.task_ = begin_by_name(self.artifact_, names, description, after=previous)
        if unlabelled is not None:
            self._learn_unlabelled(unlabelled)

    def _begin_by_examples(
        self,
        X: Any,
        y: Any,
        classes: Any,
        description: Description,
        previous: AdaptedTask | None,
        unlabelled: Any,
        *,
        share: float | None,
    ) -> None:
        x = read_examples(self, X, begin=True)
        check_names(y)
        check_classification_targets(y)
        self.classes_ = classes_among(y if classes is None else classes)
        labels = named(y, self.classes_, len(x))
        if len(self.classes_) < 2:
            raise ValueError(
                f"Found one class only, {self.classes_.tolist()[0]!r}; a task needs at least 2. Add examples of "
                "another class."
            )
        note_texts(self.artifact_.learner.encoder, X, labels)
        examples, names = self._and(x, labels, unlabelled), names_of(self.classes_)
        self.task_ = extend(
            self.artifact_,
            None,
            *examples,
            class_names=names,
            description=description,
            after=previous,
        )
        if share is not None:
            left = held_out(self.artifact_, *examples, class_names=names, description=description)
            self.task_.rejection = left.rejection(share)

    def _and(
        self, x: Inputs, labels: list[str], unlabelled: Any
    ) -> tuple[Inputs, Sequence[str | None]]:
        """Examples and labels, and behind them the examples that have none."""
        if unlabelled is None:
            return x, labels
        return and_unlabelled(x, labels, read_examples(self, unlabelled, begin=False))

    def _learn_unlabelled(self, unlabelled: Any) -> None:
        bare = read_examples(self, unlabelled, begin=False)
        self.task_ = extend(self.artifact_, self.task_, *and_unlabelled(None, [], bare))

    def _columns(self) -> list[int]:
        """Where each class is in the answers of the task, in which new classes come last."""
        return [self.task_.class_names.index(name) for name in names_of(self.classes_)]
