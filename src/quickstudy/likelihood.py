"""What a learner's outputs mean: the loss, the metrics and the width that they imply.

All masking of outputs and all averaging over queries is done here, and only here. A mean is taken over the
queries of a task first and over tasks second, so a task with many queries counts no more than one with few.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.episode import Context, EpisodeError, Examples, tree_map

Labels = Literal["one", "many"]
"""Whether an example is of one class, or may have any number of labels."""


def per_task_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the examples that exist.

    ``m_t = Σ_i mask_ti · v_ti / max(1, Σ_i mask_ti)``

    Args:
        values: (task, example).
        mask: bool (task, example).

    Returns:
        (task,); zero for a task without examples.

    >>> per_task_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).item()
    2.0
    """
    return torch.where(mask, values, 0).sum(1) / mask.sum(1).clamp(min=1)


def in_parts(examples: Examples, size: int) -> list[tuple[Examples, Tensor]]:
    """Examples a few at a time, each part with its share, float64 (task,), of the examples that its tasks have.

    The mean of a task over all examples is the sum of its means over the parts, each times its share.

    >>> examples = Examples(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))
    >>> [share.item() for _, share in in_parts(examples, 2)]
    [0.6666666666666666, 0.3333333333333333]
    """
    count = examples.mask.sum(1).clamp(min=1)
    parts = []
    for start in range(0, examples.mask.shape[1], size):
        part = tree_map(lambda leaf, start=start: leaf[:, start : start + size], examples)
        parts.append((part, part.mask.sum(1).double() / count))
    return parts


class Likelihood(ABC):
    """p(y | output): how outputs are scored and turned into answers."""

    metric: ClassVar[str]
    of_values: ClassVar[bool] = True
    """It is of numbers; or else of classes or labels, which have names."""
    whole: ClassVar[bool] = False
    """y is the number of a class, counted from 0; or else floats."""

    def check(self, examples: Examples) -> None:
        """Refuse examples whose y is of another kind.

        Raises:
            EpisodeError: it is.
        """
        if examples.y.is_floating_point() != self.whole:
            return
        kind = str(examples.y.dtype).removeprefix("torch.")
        if self.whole:
            raise EpisodeError(
                f"The labels are {kind}, which are numbers to predict, but this learner tells classes apart; give "
                "int64 numbers of classes, or choose a learner that predicts numbers, such as neural_process, or maml "
                "with values=1."
            )
        raise EpisodeError(
            f"The labels are {kind}, which are numbers of classes, but this learner predicts floats; give floats, or "
            "choose a learner that tells classes apart."
        )

    @abstractmethod
    def width(self, way: int) -> int:
        """How many numbers a learner puts out for each query of a task with ``way`` classes or dimensions."""

    @abstractmethod
    def task_nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        """Mean negative log-likelihood of each task, (task,), in nats."""

    @abstractmethod
    def task_score(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        """The metric of each task, (task,)."""

    def nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        """Mean over tasks of the negative log-likelihood, a scalar in nats."""
        return self.task_nll(outputs, examples, context).mean()


class Categorical(Likelihood):
    """One of the task's classes: p(y = c) = softmax(logits)_c over the classes that exist.

    >>> likelihood = Categorical()
    >>> classes = torch.tensor([[True, True, False]])
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 3, 0))
    >>> likelihood.probabilities(torch.zeros(1, 1, 3), context).tolist()
    [[[0.5, 0.5, 0.0]]]
    """

    metric = "accuracy"
    of_values = False
    whole = True

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def width(self, way: int) -> int:
        return way

    @staticmethod
    def mask(logits: Tensor, context: Context) -> Tensor:
        """Logits (task, query, way) with minus infinity where a class does not exist."""
        return logits.masked_fill(~context.classes[:, None, :], -math.inf)

    def probabilities(self, logits: Tensor, context: Context) -> Tensor:
        """Class probabilities, (task, query, way); zero for classes that do not exist."""
        return self.mask(logits, context).softmax(-1)

    def task_nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        log_p = self.mask(outputs, context).log_softmax(-1)
        chosen = -log_p.gather(-1, examples.y[..., None])[..., 0]
        if self.label_smoothing:
            exists = context.classes[:, None, :]
            spread = -torch.where(exists, log_p, 0).sum(-1) / exists.sum(-1).clamp(min=1)
            chosen = (1 - self.label_smoothing) * chosen + self.label_smoothing * spread
        return per_task_mean(chosen, examples.mask)

    def task_score(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        right = self.mask(outputs, context).argmax(-1) == examples.y
        return per_task_mean(right.to(outputs.dtype), examples.mask)


class Bernoulli(Likelihood):
    """Any number of the task's labels, each by itself: p(y_l = 1) = σ(logit_l), y float (task, example, label) 0 or 1.

    The loss is that of all labels of a query together, ``-Σ_l log p(y_l)``. The score is micro F1,
    ``2 TP / (2 TP + FP + FN)`` over all queries and labels of a task, where a label is answered if it is likelier than
    not; 1 where there is nothing to find and nothing was found.

    >>> context = Context(torch.tensor([[True, True, False]]), torch.zeros(1, 0), torch.zeros(1, 3, 0))
    >>> Bernoulli().probabilities(torch.zeros(1, 1, 3), context).tolist()
    [[[0.5, 0.5, 0.0]]]
    """

    metric = "micro_f1"
    of_values = False

    def width(self, way: int) -> int:
        return way

    def probabilities(self, logits: Tensor, context: Context) -> Tensor:
        """Of each label by itself, (task, query, label); zero for labels that do not exist."""
        return logits.sigmoid() * context.classes[:, None, :]

    def task_nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        each = F.binary_cross_entropy_with_logits(
            outputs, examples.y.to(outputs.dtype), reduction="none"
        )
        each = torch.where(context.classes[:, None, :], each, 0)
        return per_task_mean(each.sum(-1), examples.mask)

    def task_score(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        exists = examples.mask[..., None] & context.classes[:, None, :]
        answered, wanted = (outputs > 0) & exists, (examples.y > 0) & exists
        right = 2 * (answered & wanted).sum((1, 2)).to(outputs.dtype)
        total = answered.sum((1, 2)) + wanted.sum((1, 2))
        return torch.where(total > 0, right / total.clamp(min=1), 1)


SHARES = (Categorical.metric, Bernoulli.metric)
"""Metrics that are shares of 1, of which more is better; of all others less is."""


def _squares(mean: Tensor, examples: Examples, context: Context) -> Tensor:
    """Squared errors (task, query, dim); zero for a dimension that does not exist."""
    error = (examples.y - mean) * context.classes[:, None, :]
    return error * error


def _mean_squared_error(mean: Tensor, examples: Examples, context: Context) -> Tensor:
    dims = context.classes.sum(-1)[:, None].clamp(min=1)
    return per_task_mean(_squares(mean, examples, context).sum(-1) / dims, examples.mask)


class SquaredError(Likelihood):
    """A value alone: outputs are μ, and the loss is ``½ Σ_dim (y - μ)²``.

    It is N(y; μ, 1) without its constant, ``½ log 2π`` for each dimension: a scale that is known, so values are best
    brought to a scale of about one.

    >>> likelihood = SquaredError()
    >>> one = torch.ones(1, 1, dtype=torch.bool)
    >>> context = Context(one, torch.zeros(1, 0), torch.zeros(1, 1, 0))
    >>> examples = Examples(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 3.0), one)
    >>> likelihood.nll(torch.ones(1, 1, 1), examples, context).item()
    2.0
    """

    metric = "mean_squared_error"

    def width(self, way: int) -> int:
        return way

    def task_nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        return per_task_mean(0.5 * _squares(outputs, examples, context).sum(-1), examples.mask)

    def task_score(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        return _mean_squared_error(outputs, examples, context)


def inverse_softplus(values: Tensor) -> Tensor:
    """``log(exp(v) - 1)`` of positive values, without overflow.

    >>> round(inverse_softplus(torch.tensor(2.0).exp().log1p()).item(), 4)
    2.0
    """
    return values + torch.log(-torch.expm1(-values))


NARROW = 1e-6
"""The least softplus(s) of a Gaussian whose outputs are made of its deviation, above which s is finite."""


class Gaussian(Likelihood):
    """A value with its own uncertainty: N(y; μ, σ²) with σ = σ_min + (1 - σ_min) softplus(s), outputs (μ, s).

    The floor on σ keeps the density bounded (Nguyen & Grover 2022, Transformer Neural Processes, section 4).

    >>> Gaussian().width(3)
    6
    """

    metric = "mean_squared_error"

    def __init__(self, *, smallest_scale: float = 0.01) -> None:
        self.smallest_scale = smallest_scale

    def width(self, way: int) -> int:
        return 2 * way

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (task, query, dim), in the units of y."""
        mean, raw = outputs.chunk(2, dim=-1)
        return mean, self.smallest_scale + (1 - self.smallest_scale) * F.softplus(raw)

    def outputs(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """What :meth:`distribution` makes these of, with deviations that are too small for it a little above σ_min."""
        wide = (deviation - self.smallest_scale) / (1 - self.smallest_scale)
        return torch.cat([mean, inverse_softplus(wide.clamp(min=NARROW))], -1)

    def task_nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        mean, scale = self.distribution(outputs)
        z = (examples.y - mean) / scale
        nll = 0.5 * z * z + scale.log() + 0.5 * math.log(2 * math.pi)
        return per_task_mean((nll * context.classes[:, None, :]).sum(-1), examples.mask)

    def task_score(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        return _mean_squared_error(self.distribution(outputs)[0], examples, context)


class JointGaussian(Likelihood):
    """The values of all queries of a task together: N(y; μ, diag(σ²) + F Fᵀ), for each value by itself.

    The outputs of a query are (μ, s, f): σ is made of s as in :class:`Gaussian`, f is its row of F. The loss is that of
    the whole query set divided by the number of its queries, so that it can be compared with a Gaussian's.

    Args:
        rank: columns of F, which is how many ways the values of all queries may vary together.
        smallest_scale: σ_min.

    Raises:
        ValueError: the rank is not positive.

    >>> JointGaussian(rank=4).width(3)
    18
    """

    metric = "mean_squared_error"

    def __init__(self, *, rank: int, smallest_scale: float = 0.01) -> None:
        if rank < 1:
            raise ValueError(f"The rank of a joint Gaussian must be at least 1; found {rank}.")
        self.rank, self.smallest_scale = rank, smallest_scale

    def width(self, way: int) -> int:
        return way * (2 + self.rank)

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """μ and σ, each (task, query, dim), and F (task, query, dim, rank)."""
        way = outputs.shape[-1] // (2 + self.rank)
        mean, raw, factor = outputs.split([way, way, way * self.rank], dim=-1)
        scale = self.smallest_scale + (1 - self.smallest_scale) * F.softplus(raw)
        return mean, scale, factor.unflatten(-1, (way, self.rank))

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each query by itself, each (task, query, dim), in the units of y."""
        mean, scale, factor = self.parts(outputs)
        return mean, (scale * scale + (factor * factor).sum(-1)).sqrt()

    def covariance(self, outputs: Tensor) -> Tensor:
        """Between the queries of a task, (task, dim, query, query)."""
        _, scale, factor = self.parts(outputs)
        rows = factor.transpose(1, 2)
        return rows @ rows.transpose(-1, -2) + torch.diag_embed((scale * scale).transpose(1, 2))

    def task_nll(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        # σ² may be a ten-thousandth of F Fᵀ: single precision would lose it in the factorisation.
        mean, scale, factor = self.parts(outputs.double())
        exists = examples.mask[..., None] & context.classes[:, None]
        error = torch.where(exists, examples.y - mean, 0).transpose(1, 2)[..., None]
        scale = torch.where(exists, scale, 1)
        rows = torch.where(exists[..., None], factor, 0).transpose(1, 2)
        covariance = rows @ rows.transpose(-1, -2)
        covariance = covariance + torch.diag_embed((scale * scale).transpose(1, 2))
        root = torch.linalg.cholesky(covariance)
        z = torch.linalg.solve_triangular(root, error, upper=False)[..., 0]
        logs = root.diagonal(dim1=-2, dim2=-1).log()
        constant = 0.5 * math.log(2 * math.pi) * exists.sum((1, 2)).double()
        nll = (0.5 * z * z + logs).sum((1, 2)) + constant
        return (nll / examples.mask.sum(1).clamp(min=1)).to(outputs.dtype)

    def task_score(self, outputs: Tensor, examples: Examples, context: Context) -> Tensor:
        return _mean_squared_error(self.parts(outputs)[0], examples, context)


def drawn(
    likelihood: Gaussian | JointGaussian, outputs: Tensor, *, count: int, generator: torch.Generator
) -> Tensor:
    """Values as the likelihood of ``outputs`` has them, (count, task, query, dim), in the units of y.

    The queries of a :class:`JointGaussian` vary together, those of a :class:`Gaussian` each by itself.

    >>> outputs = torch.tensor([[[3.0, -99.0]]])
    >>> generator = torch.Generator().manual_seed(0)
    >>> drawn(Gaussian(), outputs, count=2, generator=generator).shape
    torch.Size([2, 1, 1, 1])
    """
    rank = 0
    if isinstance(likelihood, JointGaussian):
        mean, scale, factor = likelihood.parts(outputs)
        rank = likelihood.rank
    else:
        mean, scale = likelihood.distribution(outputs)

    def noise(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=mean.dtype)
        return drawn.to(mean.device)

    values = mean + scale * noise(count, *mean.shape)
    if rank:
        tasks, _, way = mean.shape
        values = values + torch.einsum("tqdr,ctdr->ctqd", factor, noise(count, tasks, way, rank))
    return values


def predicted_values(likelihood: Likelihood, outputs: Tensor) -> Tensor:
    """The numbers that outputs say, (task, query, values), in the units of y.

    Raises:
        TypeError: the likelihood is of classes or labels.
    """
    if isinstance(likelihood, SquaredError):
        return outputs
    if isinstance(likelihood, Gaussian | JointGaussian):
        return likelihood.distribution(outputs)[0]
    raise TypeError(f"A {type(likelihood).__name__} likelihood has no values.")
