"""Examples as people give them to a classifier, as its artifact's encoder takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.data.calling import Tokenizes, tokens_of
from quickstudy.data.coding import coding_of
from quickstudy.estimator.inputs import images_of, mean_and_deviation, table_of, texts_of
from quickstudy.estimator.keeping import Lasting
from quickstudy.estimator.tables import entries_of
from quickstudy.nn.encoders import VectorEncoder
from quickstudy.nn.tables import TableEncoder


def read_examples(estimator: Lasting, X: Any, *, begin: bool) -> Tensor:
    """The examples as the encoder of an estimator's artifact takes them.

    Args:
        estimator: that is given them.
        X: numbers, images, texts or a table.
        begin: whether these examples say from now on how many columns there are, and how they are measured or coded.

    Raises:
        ValueError: they are not of the artifact's kind.
    """
    artifact = estimator.artifact_
    encoder = artifact.learner.encoder
    if isinstance(encoder, VectorEncoder):
        return _numbers(estimator, X, encoder, begin=begin)
    if isinstance(encoder, TableEncoder):
        entries = entries_of(estimator, X, begin=begin)
        if begin:
            estimator.coding_ = coding_of(entries)
        return torch.from_numpy(estimator.coding_(entries))
    if isinstance(encoder, Tokenizes):
        return tokens_of(texts_of(X), encoder)
    shape = {name: artifact.inputs[name] for name in ("size", "channels", "invert")}
    return images_of(X, shape)


def _numbers(estimator: Lasting, X: Any, encoder: VectorEncoder, *, begin: bool) -> Tensor:
    """Columns standardised with the mean and deviation of the first examples, once there are any."""
    table = table_of(estimator, X, most=encoder.inputs, begin=begin)
    if not begin and not hasattr(estimator, "mean_"):
        return torch.from_numpy(table)
    if begin:
        estimator.mean_, estimator.scale_ = mean_and_deviation(table)
    return torch.from_numpy((table - estimator.mean_) / estimator.scale_)
