"""Closed-form learners: a convex problem on the support's embeddings, solved inside the model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.functional import full_precision, widened
from quickstudy.learners.any_labels import likelihood_of
from quickstudy.learners.base import Learner
from quickstudy.learners.class_names import and_names, check_reads_names
from quickstudy.learners.logistic import fit_labels
from quickstudy.learners.metric import UNSEEN, class_sums
from quickstudy.learners.semi_supervised import fit_semi_supervised
from quickstudy.likelihood import Categorical, Labels
from quickstudy.nn.encoders import Encoder


class RidgeState(NamedTuple):
    """The embedded support while it is small, and the sums that say all of it to least squares once it is large."""

    rows: Tensor
    """z, (task, example, width + 1); no examples once they would be more than the numbers in one"""
    labels: Tensor
    """int64 (task, example)"""
    gram: Tensor
    """Σ z zᵀ, (task, width + 1, width + 1); empty, (task, 0, 0), as long as ``rows`` are not"""
    moments: Tensor
    """Σ z yᵀ, (task, width + 1, way); the last row counts the examples of each class"""


class Ridge(Learner):
    """Ridge regression from embeddings to one-hot classes, differentiated through its solution.

    ``logit(x) = α z(x)ᵀ (Zᵀ Z + λ I)⁻¹ Zᵀ Y = α z(x)ᵀ Zᵀ (Z Zᵀ + λ I)⁻¹ Y`` with the rows ``z = (f(x) / √width, 1)``
    of Z and y, one-hot, of Y; λ and α are learned.

    The second form, the dual, solves as many equations as there are examples, the first, the primal, as many as there
    are numbers in one. The smaller is solved, and they are equal. The state of the dual is the embedded support; when
    more is learned and the support outgrows the width, it becomes the sums ``Zᵀ Z`` and ``Zᵀ Y``, to which learning
    more is an addition, and so it never holds more than (width + 1)² + (width + 1) way numbers, of which the
    dual form of 25 examples of 384 features needs a fifteenth.

    Bertinetto et al. 2019, Meta-learning with differentiable closed-form solvers (R2D2). Differs from the
    paper: embeddings are divided by √width, so that one λ suits every width; the paper's shift β of all logits is left
    out, because softmax cancels it; a class without examples is never the answer.

    Args:
        encoder: maps an example to a vector.
        penalty: initial λ.
        scale: initial α.
        label_smoothing: of the training loss.

    Raises:
        ValueError: penalty or scale is not positive.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 2, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = Ridge(RawEncoder(1), penalty=1e-6, scale=1.0)
    >>> state = learner.adapt(support, context)
    >>> learner.predict(state, torch.tensor([[[0.75]]]), context).detach().round(decimals=3)
    tensor([[[0.2500, 0.7500]]])
    """

    order_free = True
    additive = True
    inner_loop = False
    grows = True
    state_type = RidgeState

    def __init__(
        self,
        encoder: Encoder,
        *,
        penalty: float = 0.1,
        scale: float = 10.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(encoder, Categorical(label_smoothing=label_smoothing))
        for name, value in (("penalty", penalty), ("scale", scale)):
            if value <= 0:
                raise ValueError(f"The {name} must be positive; found {value}.")
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings with a one behind them, (task, example, width + 1)."""
        features = self.encode(x)
        features = features.to(widened(self.log_scale).dtype) / math.sqrt(features.shape[-1])
        return F.pad(features, (0, 1), value=1.0)

    def adapt(
        self, support: Examples, context: Context, state: RidgeState | None = None
    ) -> RidgeState:
        way = context.classes.shape[1]
        rows = self.embed(support.x)
        with full_precision(rows.device):
            rows = torch.where(support.mask[..., None], rows, 0)
            labels, empty = support.y, rows.new_zeros(len(rows), 0, 0)
            gram, moments = empty, class_sums(rows, support, way)[0].transpose(1, 2)
            if state is not None:
                rows, labels = (
                    torch.cat(both, 1) for both in ((state.rows, rows), (state.labels, labels))
                )
                new = way - state.moments.shape[2]
                gram, moments = state.gram, F.pad(state.moments, (0, new)) + moments
            if rows.shape[1] > rows.shape[2] or gram.shape[1]:
                more = rows.transpose(1, 2) @ rows
                gram = gram + more if gram.shape[1] else more
                rows, labels = rows[:, :0], labels[:, :0]
            return RidgeState(rows, labels, gram, moments)

    def predict(self, state: RidgeState, x: Inputs, context: Context) -> Tensor:
        rows = self.embed(x)
        with full_precision(rows.device):
            if state.gram.shape[1]:
                matrix, right = state.gram, state.moments
            else:
                matrix = state.rows @ state.rows.transpose(1, 2)
                right = F.one_hot(state.labels, context.classes.shape[1]).to(rows.dtype)
                rows = rows @ state.rows.transpose(1, 2)
            factor = torch.linalg.cholesky(penalised(matrix, self.log_penalty.exp()))
            logits = rows @ torch.cholesky_solve(right, factor) * self.log_scale.exp()
        return logits.masked_fill(state.moments[:, -1:] == 0, UNSEEN)


def penalised(matrix: Tensor, penalty: Tensor) -> Tensor:
    """``A + λ I``, with λ no smaller than the rounding of A needs for it to stay positive definite.

    Args:
        matrix: A, positive semidefinite, (task, n, n).
        penalty: λ, a scalar.

    >>> penalised(torch.zeros(1, 1, 1), torch.tensor(0.5)).item()
    0.5
    """
    size = matrix.shape[1]
    trace = matrix.detach().diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    least = 4 * torch.finfo(matrix.dtype).eps * trace
    return matrix + torch.maximum(penalty, least) * torch.eye(
        size, dtype=matrix.dtype, device=matrix.device
    )


class LinearState(NamedTuple):
    """The embedded support and the linear head that was fitted to it."""

    features: Tensor
    """(task, example, width)"""
    labels: Tensor
    """int64 (task, example), which may be :data:`NO_LABEL`; of many labels float (task, example, label)"""
    counted: Tensor
    """For how many an example counts, (task, example); 0 for padding"""
    weights: Tensor
    """(task, width, way)"""
    bias: Tensor
    """(task, 1, way)"""


class LinearHead(Learner):
    """A linear head fitted to the support's embeddings: multinomial logistic regression with an L2 penalty.

    ``min_{W, b} Σ_i -log softmax(Wᵀ f(x_i) + b)_{y_i} + λ/2 ‖W‖²``

    The usual baseline of fine-tuning the head, as in Chen et al. 2019, A Closer Look at Few-shot
    Classification, and Tian et al. 2020, Rethinking Few-shot Image Classification. Differs from the papers: it is
    fitted by Newton's method, all tasks of a batch at once, and differentiated where that comes to rest
    (:func:`quickstudy.learners.logistic.fit_logistic`), so that the encoder can be trained through the fit as
    MetaOptNet does (Lee et al. 2019, Meta-Learning with Differentiable Convex Optimization, whose best head is a
    support vector machine). A class without examples is never the answer. Examples without a label are learned from
    too (:func:`quickstudy.learners.semi_supervised.fit_semi_supervised`). With many labels, each is a logistic
    regression by itself (:func:`quickstudy.learners.logistic.fit_labels`), and all examples have theirs.

    Args:
        encoder: maps an example to a vector.
        penalty: λ.
        steps: most Newton steps; few tasks need ten.
        unit_length: scale embeddings to length one first.
        label_smoothing: of the training loss.
        names: the name of a class that has one counts for w examples of it, w learned, 1 at first; the encoder must
            read texts.
        labels: whether an example has ``one`` class or ``many`` labels, any number of them.

    Raises:
        ValueError: penalty or steps is not positive; names for an encoder that does not read any.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x, y = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> support = Examples(x, y, torch.ones(1, 2, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = LinearHead(RawEncoder(1))
    >>> learner.predict(learner.adapt(support, context), x, context).argmax(-1)
    tensor([[0, 1]])
    """

    order_free = True
    additive = True
    inner_loop = False
    grows = True
    semi_supervised = True
    state_type = LinearState

    def __init__(
        self,
        encoder: Encoder,
        *,
        penalty: float = 0.1,
        steps: int = 32,
        unit_length: bool = True,
        label_smoothing: float = 0.0,
        names: bool = False,
        labels: Labels = "one",
    ) -> None:
        super().__init__(encoder, likelihood_of(labels, label_smoothing))
        if penalty <= 0:
            raise ValueError(f"The penalty must be positive; found {penalty}.")
        if steps < 1:
            raise ValueError(f"The number of steps must be at least 1; found {steps}.")
        self.penalty, self.steps, self.unit_length = penalty, steps, unit_length
        self.names, self.labels = names, labels
        if names:
            check_reads_names(encoder)
            self.log_name_weight = nn.Parameter(torch.zeros(()))

    def embed(self, x: Inputs) -> Tensor:
        """Embeddings (task, example, width), of unit length if asked for."""
        features = widened(self.encode(x))
        return F.normalize(features, dim=-1) if self.unit_length else features

    def adapt(
        self, support: Examples, context: Context, state: LinearState | None = None
    ) -> LinearState:
        features = self.embed(support.x)
        examples = Examples(features, support.y, support.mask.to(features.dtype))
        known = 0 if state is None else state.weights.shape[2]
        weight, many = self.log_name_weight.exp() if self.names else None, self.labels == "many"
        examples = and_names(examples, context, self.embed, weight, known=known, many=many)
        if state is not None:
            earlier = Examples(*state[:3])
            if many:
                # What came before a label was known has it not.
                new = context.classes.shape[1] - known
                earlier = earlier._replace(y=F.pad(earlier.y, (0, new)))
            examples = concatenate(earlier, examples)
        with full_precision(features.device):
            if many:
                weights, bias = fit_labels(
                    examples, context, penalty=self.penalty, steps=self.steps
                )
            else:
                weights, bias = fit_semi_supervised(
                    examples, context, penalty=self.penalty, steps=self.steps
                )
        return LinearState(*examples, weights, bias)

    def predict(self, state: LinearState, x: Inputs, context: Context) -> Tensor:
        rows = self.embed(x)
        with full_precision(rows.device):
            return rows @ state.weights + state.bias
