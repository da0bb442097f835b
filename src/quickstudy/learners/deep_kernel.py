"""Gaussian processes whose covariances are meta-learned and fitted to each task."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Episode, Examples, Inputs, concatenate, tree_map
from quickstudy.functional import full_precision, widened
from quickstudy.learners.base import Learner
from quickstudy.learners.conditional_process import check_values
from quickstudy.learners.covariance_bank import CovarianceBank
from quickstudy.learners.covariances import CIRCLE, NOISE, SCALE, SETTINGS, Pairs
from quickstudy.learners.laplace import Fit, Known, explained, fitted, foretold
from quickstudy.likelihood import Gaussian
from quickstudy.nn.encoders import Encoder

STARTS = (-1.0, 0.0, 1.0)
"""Of the fit of lengths, in standard deviations."""
TRUST = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4)
"""Of log weights, the shares τ from which one is chosen."""
WIDER = (1.0, 1.05, 1.1, 1.2, 1.3)
"""Factors of standard deviations, from which one is chosen."""
SCREENED = 0.2
"""Noise, as a share of the scale, with which covariances are compared before they are fitted: a coarse look, which
those whose fit lies near also pass."""
AT_ONCE = 2**17
"""Pairs of examples, of all tasks and covariances, that are looked at in one piece: what a processor's cache holds."""
FITTED_AT_ONCE = 2**18
"""Likewise, of those that are fitted and asked; a matrix of twice as many bytes would leave the cache at every step."""


class DeepKernelState(NamedTuple):
    """The support as the encoder sees it, and the covariances that explain it."""

    features: Tensor
    """(task, example, width of the encoder)"""
    y: Tensor
    """(task, example, values)"""
    mask: Tensor
    """bool (task, example)"""
    covariances: Tensor
    """Numbers in the bank of those that explain it, int64 (task, covariance)"""
    settings: Tensor
    """As in :class:`quickstudy.learners.laplace.Fit`, in float64, as are the two that follow"""
    doubt: Tensor
    log_weight: Tensor


class _Answers(NamedTuple):
    """What the covariances of a task say of queries, before they are mixed."""

    mean: Tensor
    """(task, covariance, query, value)"""
    variance: Tensor
    log_weight: Tensor
    """(task, covariance)"""
    dtype: torch.dtype
    """Of the outputs."""


class DeepKernel(Learner):
    """Gaussian processes on the encoder's features, under covariances that training has taught to expect.

    Training learns a prior of covariances, a bank of them: ``p(θ) = Σ_c π_c N(θ; m_c, diag(v_c))``, where θ are the
    logarithms of the settings of :func:`quickstudy.learners.covariances.covariance` and of the noise. On a task, those
    of the bank that explain the support best are kept, and each is fitted to it by Fisher scoring,

        θ ← θ + (F + V⁻¹)⁻¹ ∇ [log p(y | θ) + log N(θ; m_c, V)],   F_ij = ½ tr(K⁻¹ ∂_i K K⁻¹ ∂_j K),

    and weighs in with its part of the evidence by Laplace's method, ``[π_c p(y | θ) N(θ; m_c, V) |F + V⁻¹|^-½]^τ``.
    A query is answered by the mean and ω times the deviation of that mixture of posteriors, each of which is made wider
    by what is not known of its θ. τ and ω are chosen on validation tasks when training is over: few of many covariances
    are kept, and these few seem surer than all would be. Nothing of it is a Transformer but the encoder, if it is one.

    Patacchiola et al. 2020, Bayesian Meta-Learning for the Few-Shot Setting via Deep Kernels, where all tasks have one
    covariance; Chen et al. 2023, Meta-learning Adaptive Deep Kernel Gaussian Processes, which fits it to each task;
    MacKay 1992, Bayesian Interpolation, for Laplace's method. Differs from the papers: a task chooses among many
    covariances, which are integrated over rather than set to the best, weights are tempered by τ and deviations widened
    by ω. The gradient of the queries' loss goes through the fit itself. That of the evidence stops there, where θ no
    longer matters, which leaves out how θ moves ``|F + V⁻¹|``: it takes half the time and has a tenth of the noise.

    The work grows with the cube of the examples of a task, and with ``kept``. Values are best brought to a scale of
    about one, and features, where functions may repeat themselves, to one or a few numbers.

    Args:
        encoder: maps an example to a vector; ``raw`` leaves functions of few numbers as they are.
        values: numbers that a task predicts; they share the covariance and are otherwise independent.
        rates: how many covariances turn; 0 for functions that never repeat themselves.
        slowest: of their rates, in turns for each unit of a feature.
        fastest: of the rates; those between are equally far apart.
        kept: covariances that are fitted to a task.
        kept_in_training: the same for a task of training, where fewer do.
        steps: of the fit.
        objective: what training descends: the loss of the ``queries``, as Chen et al. do; or ``evidence``, minus the
            log density of all examples of a task, support and queries alike, for each of them, as Patacchiola et al.
            do: better where the encoder is given and covariances are all there is to learn, for it says more of the
            noise.

    Raises:
        ValueError: an option is out of range; at adaptation, tasks with another number of values.

    >>> from quickstudy.nn.encoders import RawEncoder
    >>> x = torch.linspace(0, 1, 6)[None, :, None]
    >>> support = Examples(x, (6 * x).sin(), torch.ones(1, 6, dtype=torch.bool))
    >>> one = torch.ones(1, 1, dtype=torch.bool)
    >>> context = Context(one, torch.zeros(1, 0), torch.zeros(1, 1, 0))
    >>> learner = DeepKernel(RawEncoder(1), values=1, rates=0)
    >>> state = learner.adapt(support, context)
    >>> answer = learner.predict(state, torch.tensor([[[0.25]]]), context)[0, 0, 0].item()
    >>> abs(answer - math.sin(1.5)) < 0.05
    True
    """

    order_free = True
    additive = True
    inner_loop = True
    state_type = DeepKernelState
    likelihood: Gaussian
    trust: Tensor
    width: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        values: int = 0,
        rates: int = 0,
        slowest: float = 0.5,
        fastest: float = 12.0,
        kept: int = 64,
        kept_in_training: int = 16,
        steps: int = 4,
        objective: Literal["queries", "evidence"] = "queries",
    ) -> None:
        check_values(values)
        for name, found, least in (
            ("rates", rates, 0),
            ("kept", kept, 1),
            ("kept_in_training", kept_in_training, 1),
            ("steps", steps, 0),
        ):
            if found < least:
                raise ValueError(f"{name} must be at least {least}; found {found}.")
        if not 0 < slowest < fastest:
            raise ValueError(
                f"The rates must rise from a positive number; found slowest={slowest} and fastest={fastest}."
            )
        super().__init__(encoder, Gaussian())
        self.values, self.steps = values, steps
        self.kept, self.kept_in_training = kept, kept_in_training
        self.objective = objective
        self.covariances = CovarianceBank(rates, slowest, fastest)
        self.register_buffer("trust", torch.ones(()))
        self.register_buffer("width", torch.ones(()))
        self.level = nn.Parameter(torch.zeros(values))
        self.log_metric = nn.Parameter(torch.full((encoder.width,), -0.5 * math.log(encoder.width)))
        directions = F.normalize(torch.randn(len(self.covariances), encoder.width), dim=-1)
        self.directions = nn.Parameter(directions) if encoder.width > 1 else None

    def adapt(
        self, support: Examples, context: Context, state: DeepKernelState | None = None
    ) -> DeepKernelState:
        check_values(self.values, context)
        examples = self._encoded(support)
        if state is not None:
            examples = concatenate(Examples(*state[:3]), examples)
        return self._explained(examples, context, self.kept)

    def predict(self, state: DeepKernelState, x: Inputs, context: Context) -> Tensor:
        return self._mixed(self._foretold(state, x, context))

    def outer_loss(self, episode: Episode) -> Tensor:
        support, query, context = episode
        few = self.kept_in_training
        if self.objective == "queries":
            state = self._explained(self._encoded(support), context, few)
            return self.likelihood.nll(self.predict(state, query.x, context), query, context)
        examples = self._encoded(concatenate(support, query))
        state = self._explained(examples, context, few, through=False)
        evidence = state.log_weight.logsumexp(1) / examples.mask.sum(1).clamp(min=1)
        return -evidence.mean().to(examples.x.dtype)

    def settle(self, episodes: Iterable[Episode]) -> bool:
        """Choose τ from :data:`TRUST` and ω from :data:`WIDER` by the loss of validation tasks."""
        told = [
            (self._foretold(self.adapt(support, context), query.x, context), query, context)
            for support, query, context in episodes
        ]

        def loss(choice: tuple[float, float]) -> float:
            self.trust.fill_(choice[0])
            self.width.fill_(choice[1])
            return sum(
                float(self.likelihood.nll(self._mixed(answers), query, context))
                for answers, query, context in told
            )

        best = min(itertools.product(TRUST, WIDER), key=loss)
        self.trust.fill_(best[0])
        self.width.fill_(best[1])
        return best != (1.0, 1.0)

    def _encoded(self, examples: Examples) -> Examples:
        return examples._replace(x=widened(self.encode(examples.x)), y=widened(examples.y))

    def _explained(
        self, examples: Examples, context: Context, kept: int, *, through: bool = True
    ) -> DeepKernelState:
        """The state of tasks whose encoded examples these are, with so many covariances at most."""
        kept = min(kept, len(self.covariances))
        with full_precision(examples.x.device):
            parts = []
            for which in self._pieces(examples.mask, kept):
                few = _without_padding(tree_map(lambda leaf, which=which: leaf[which], examples))
                classes = context.classes[which]
                chosen, start = self._screened(few, classes, kept)
                prior = self.covariances.prior(chosen)
                start = prior.center + start[..., None] * _lengths(prior.log_spread.exp())
                known = self._known(few, classes, chosen)
                fit = fitted(prior, known, start, steps=self.steps, through=through)
                parts.append((chosen, *fit))
            fits = (torch.cat(each) for each in zip(*parts, strict=True))
            return DeepKernelState(*examples, *fits)

    @staticmethod
    def _pieces(mask: Tensor, kept: int) -> Iterator[slice]:
        """Tasks that are worked on together."""
        size = max(1, FITTED_AT_ONCE // max(1, kept * mask.shape[1] ** 2))
        return (slice(start, start + size) for start in range(0, len(mask), size))

    def _foretold(self, state: DeepKernelState, x: Inputs, context: Context) -> _Answers:
        """What each covariance says of queries."""
        asked = self.encode(x)
        with full_precision(asked.device):
            parts = []
            for which in self._pieces(state.mask, state.covariances.shape[1]):
                few = tree_map(lambda leaf, which=which: leaf[which], state)
                parts.append(self._said(few, asked[which], context.classes[which]))
            mean, variance = (torch.cat(each) for each in zip(*parts, strict=True))
        return _Answers(mean, variance, state.log_weight, asked.dtype)

    def _said(
        self, state: DeepKernelState, asked: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means and variances for encoded queries (task, query, width)."""
        chosen, fit = state.covariances, Fit(*state[4:])
        examples = _without_padding(Examples(*state[:3]))
        known = self._known(examples, classes, chosen)
        everywhere = torch.ones(asked.shape[:2], dtype=torch.bool, device=asked.device)
        towards = self._pairs(examples, asked, everywhere, chosen)
        return foretold(fit, self.covariances.prior(chosen).rough, known, towards)

    def _mixed(self, answers: _Answers) -> Tensor:
        """Outputs: the mean of the mixture, and its deviation ω times."""
        mean, variance, log_weight, dtype = answers
        with full_precision(mean.device):
            share = (self.trust * log_weight).softmax(1)[..., None, None]
            center = (share * mean).sum(1)
            spread = (share * (variance + (mean - center[:, None]).square())).sum(1)
            outputs = self.likelihood.outputs(center + self.level, self.width * spread.sqrt())
        return outputs.to(dtype)

    @torch.no_grad()
    def _screened(self, examples: Examples, classes: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """The covariances that explain the examples best, with the start of their fit, each (task, covariance).

        A start is how many standard deviations the lengths lie from what is expected of them.
        """
        tasks, count = examples.mask.shape
        dtype = widened(self.covariances.center).dtype
        starts = torch.tensor(STARTS, dtype=dtype, device=self.covariances.center.device)
        at_once = max(1, AT_ONCE // max(1, tasks * count * count))
        found = []
        for some in torch.arange(len(self.covariances), device=starts.device).split(at_once):
            known = self._known(examples, classes, some[None], dtype)
            center, log_spread, log_share, rough = self.covariances.prior(some[None], dtype)
            center = _coarse(center).expand(tasks, -1, -1)
            tried = (center + start * _lengths(log_spread.exp()) for start in starts)
            evidence = [explained(settings, rough, known).log_evidence for settings in tried]
            likely = log_share[..., None] - 0.5 * starts.square()
            found.append(likely + torch.stack(evidence, 2))
        likely, best = torch.cat(found, 1).max(2)
        chosen = likely.topk(kept, 1).indices
        return chosen, starts[best.gather(1, chosen)].double()

    def _known(
        self,
        examples: Examples,
        classes: Tensor,
        chosen: Tensor,
        dtype: torch.dtype = torch.float64,
    ) -> Known:
        features, y, mask = examples
        exists = mask[..., None] & classes[:, None]
        y = torch.where(exists, (y - self.level).to(dtype), 0)
        pairs = self._pairs(examples, features, mask, chosen, dtype)
        return Known(pairs, y, mask, classes.sum(1).to(dtype))

    def _pairs(
        self,
        examples: Examples,
        others: Tensor,
        exist: Tensor,
        chosen: Tensor,
        dtype: torch.dtype = torch.float64,
    ) -> Pairs:
        """Of examples and others, as the covariances with these numbers, (task or 1, covariance), see them."""
        metric = self.log_metric.to(dtype).exp()
        one, two = examples.x.to(dtype) * metric, others.to(dtype) * metric
        square = _square_distances(one, two)[:, None]
        if self.directions is not None:
            unit = F.normalize(self.directions.to(dtype), dim=1)[chosen]
            one, two = (each[:, None] @ unit[..., None] for each in (one, two))
        else:
            one, two = one[:, None], two[:, None]
        both = examples.mask[:, None, :, None] & exist[:, None, None]
        return Pairs(square, one - two.mT, both)


def _without_padding(examples: Examples) -> Examples:
    """The same up to the last example that any of the tasks has; one, where none has any."""
    has = examples.mask.any(0).nonzero()
    count = int(has.max()) + 1 if len(has) else min(1, examples.mask.shape[1])
    return Examples(*(each[:, :count] for each in examples))


def _square_distances(one: Tensor, two: Tensor) -> Tensor:
    """(task, example, other), of vectors (task, example, width) and (task, other, width)."""
    if one.shape[2] == 1:
        return (one - two.mT).square()
    lengths = one.square().sum(2, keepdim=True) + two.square().sum(2)[:, None]
    return (lengths - 2 * one @ two.mT).clamp(min=0)


def _lengths(settings: Tensor) -> Tensor:
    """Settings of trend and circle, zero for the others."""
    return F.pad(settings[..., : CIRCLE + 1], (0, len(SETTINGS) - CIRCLE - 1))


def _coarse(settings: Tensor) -> Tensor:
    """The same with noise enough for a coarse look."""
    least = settings[..., SCALE : SCALE + 1] + math.log(SCREENED)
    return torch.cat([settings[..., :NOISE], settings[..., NOISE:].maximum(least)], -1)
