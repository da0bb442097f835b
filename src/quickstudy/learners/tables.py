"""A learner for tables: classical answers in closed form, and a Transformer over the cells that corrects them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.functional import full_precision
from quickstudy.learners import classical
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN
from quickstudy.likelihood import Categorical, Gaussian
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.tables import Cells, Columns, TableTransformer, cells_of, columns_of

CELL, TARGET = 7, 5
"""Numbers that a cell and the target's cell are embedded from, without the answers of the rules."""
TRUST = 4.0
"""How firmly the calibration of a rule holds to where it begins, in examples."""
SQUASH = 4.0
"""Evidence beyond which a token hardly tells more from less."""


class TableState(NamedTuple):
    """The support, the rules fitted to it, and the Transformer's reading of it."""

    x: Tensor
    """(task, example, column), 0 where an entry is missing"""
    missing: Tensor
    """bool (task, example, column)"""
    y: Tensor
    """Classes, int64 (task, example), or values, (task, example, way)"""
    mask: Tensor
    """bool (task, example)"""
    linear: Tensor
    """Weights of the logistic rules, (task, way, rule, column + 1); no rules where values are predicted"""
    dual: Tensor
    """Weights of the support in the kernel rules, (task, way, rule, example)"""
    lines: Tensor
    """What makes evidence of a rule's answer, ``a + b f``, (task, way, rule, 2)"""
    mixture: Tensor
    """How far each rule is believed, (task, rule)"""
    keys: Tensor
    """(task, way, layer, column + 1, head, example, width / heads)"""
    values: Tensor
    """(task, way, layer, column + 1, head, example, width / heads)"""


def _support(state: TableState) -> Examples:
    """The support that a state was made of."""
    return Examples(state.x.masked_fill(state.missing, math.nan), state.y, state.mask)


class Seen(NamedTuple):
    """What every step of reading a support set needs of it."""

    columns: Columns
    cells: Cells
    targets: Tensor
    """(task, example, way): 0 or 1 for classes, values about their mean in deviations; 0 where masked."""
    counts: Tensor
    """Examples of each class, or of the task, (task, way)"""


class Tables(Learner):
    """Learns a table from its rows in one forward pass: numbers and categories, any of them missing.

    For each class c against the rest, classical rules k (:mod:`quickstudy.learners.classical`: logistic and kernel
    ridge regressions) give evidence η_k(x), calibrated on their left-out answers to the support, and are mixed by
    ``softmax_k(-β n ℓ_k + β_k)`` with ℓ_k their left-out loss. A Transformer that attends along columns and rows reads
    cells, labels and left-out evidence of the support and gives, for a query, ``Δ = r·h + Σ_k g_k·h η_k``:

    ``p(c | x) ∝ σ(Σ_k w_k η_k(x) + Δ(x))``; for values ``N(y; m + s (Σ_k w_k η_k + Δ), σ²)``.

    Its read-out begins at zero, so training begins at the mixture and learns a correction. Every class is asked in
    turn by the same weights, and there are no positions: renumbering classes, or moving rows or columns, permutes the
    answers and changes nothing else, and there may be any number of classes. A query attends to the support alone.

    Hollmann et al. 2025, Accurate predictions on small data with a tabular foundation model (TabPFN v2). Differs from
    the paper: the rules and the correction, which let minutes of training do; a class at a time in place of codes for
    classes; no ensembling, since there is no order to average over.

    Args:
        encoder: maps an example to its columns; :class:`quickstudy.nn.tables.TableEncoder` leaves them as they are.
        values: numbers that a task predicts; 0: it tells classes apart.
        width: features of a cell's token.
        layers: Transformer layers.
        heads: attention heads.
        rows: most support examples.
        columns: most columns.
        label_smoothing: of the training loss of classes.

    Raises:
        ValueError: an option is out of range; at adaptation, more rows or columns than these.

    >>> from quickstudy.nn.tables import TableEncoder
    >>> x, y = torch.tensor([[[0.0], [1.0], [4.0], [5.0]]]), torch.tensor([[0, 0, 1, 1]])
    >>> support = Examples(x, y, torch.ones(1, 4, dtype=torch.bool))
    >>> classes = torch.ones(1, 2, dtype=torch.bool)
    >>> context = Context(classes, torch.zeros(1, 0), torch.zeros(1, 2, 0))
    >>> learner = Tables(TableEncoder(), width=8, layers=1, heads=2)
    >>> state = learner.adapt(support, context)
    >>> learner.predict(state, torch.tensor([[[0.5], [4.5]]]), context).argmax(-1)
    tensor([[0, 1]])
    """

    order_free = True
    additive = True
    inner_loop = False
    state_type = TableState

    def __init__(
        self,
        encoder: Encoder,
        *,
        values: int = 0,
        width: int = 64,
        layers: int = 3,
        heads: int = 4,
        rows: int = 1000,
        columns: int = 100,
        label_smoothing: float = 0.0,
    ) -> None:
        for name, value, least in (
            ("values", values, 0),
            ("rows", rows, 1),
            ("columns", columns, 1),
        ):
            if value < least:
                raise ValueError(f"The number of {name} must be at least {least}; found {value}.")
        if layers < 1:
            raise ValueError(f"The number of layers must be at least 1; found {layers}.")
        super().__init__(
            encoder, Gaussian() if values else Categorical(label_smoothing=label_smoothing)
        )
        self.rows, self.columns, self.of_values = rows, columns, values
        rules = classical.KERNELS * len(classical.NOISES)
        rules += 0 if values else 2 * len(classical.PENALTIES)
        self.embed_cell = nn.Linear(CELL, width)
        self.embed_target = nn.Linear(TARGET + rules, width)
        self.transformer = TableTransformer(width, layers=layers, heads=heads)
        self.read = nn.Linear(width, rules + (2 if values else 1))
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)
        self.log_belief = nn.Parameter(torch.tensor(math.log(0.5)))
        self.prior_belief = nn.Parameter(torch.zeros(rules))

    def adapt(
        self, support: Examples, context: Context, state: TableState | None = None
    ) -> TableState:
        examples = support._replace(x=self._rows(support.x))
        if state is not None:
            examples = concatenate(_support(state), examples)
        if examples.x.shape[1] > self.rows:
            raise ValueError(
                f"Found {examples.x.shape[1]} examples to learn from, but this learner takes at most {self.rows}; "
                "choose so many of them."
            )
        with full_precision(examples.x.device):
            seen = self._seen(examples, context)
            linear, dual, lines, left_out = self._fit(seen, examples.mask)
            mixture = self._mix(left_out, seen, examples.mask)
        keys, values = self._read_support(seen, left_out, mixture, examples.mask)
        x, y, mask = examples
        missing = x.isnan()
        x = x.masked_fill(missing, 0)
        return TableState(x, missing, y, mask, linear, dual, lines, mixture, keys, values)

    def predict(self, state: TableState, x: Inputs, context: Context) -> Tensor:
        x = self._rows(x)
        with full_precision(x.device):
            seen = self._seen(_support(state), context)
            cells = cells_of(x, seen.columns)
            evidence = self._evidence(state, seen, cells)
        tokens = self._tokens(seen, cells, None, evidence, state.mixture, state.mask)
        way = tokens.shape[1]
        out = self.transformer(
            *(each.flatten(0, 1) for each in (tokens, state.keys, state.values)),
            **self._masks(seen.columns, state.mask, way),
        )
        out = self.read(out.unflatten(0, (-1, way)))
        rules = evidence.shape[2]
        weights = state.mixture[:, None, None] + out[..., :rules]
        answer = (weights * evidence.transpose(2, 3)).sum(-1) + out[..., rules]
        if self.of_values:
            return self._values(answer, out[..., -1], state, seen)
        logits = F.logsigmoid(answer).transpose(1, 2)
        return logits.masked_fill(seen.counts[:, None] == 0, UNSEEN)

    def _rows(self, x: Inputs) -> Tensor:
        """The columns of examples (task, example, …), as the encoder gives them."""
        rows = self.encode(x).to(self.log_belief.dtype)
        if rows.shape[-1] > self.columns:
            raise ValueError(
                f"Found {rows.shape[-1]} columns, but this learner takes at most {self.columns}; choose so many of "
                "them."
            )
        return rows

    def _seen(self, examples: Examples, context: Context) -> Seen:
        x, y, mask = examples
        columns = columns_of(x, mask)
        way = context.classes.shape[1]
        exists = mask[..., None].to(x.dtype)
        if self.of_values:
            mean, scale = self._measure(y.to(x.dtype), mask)
            targets = (y.to(x.dtype) - mean) / scale * exists
            counts = exists.sum(1).expand(-1, way)
        else:
            targets = F.one_hot(y, way).to(x.dtype) * exists
            counts = targets.sum(1)
        return Seen(columns, cells_of(x, columns), targets, counts)

    @staticmethod
    def _measure(y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the support's values, each (task, 1, way); 0 and 1 where there are none."""
        exists = mask[..., None]
        count = exists.sum(1, keepdim=True).clamp(min=1)
        mean = torch.where(exists, y, 0).sum(1, keepdim=True) / count
        variance = (torch.where(exists, y - mean, 0) ** 2).sum(1, keepdim=True) / count
        return mean, torch.where(variance > 0, variance, 1).sqrt()

    def _fit(self, seen: Seen, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rules: logistic weights, dual weights, lines, and left-out evidence (task, way, rule, example)."""
        cells, targets = seen.cells, seen.targets
        kernel = classical.kernels(cells, cells, seen.columns.useful)
        share = targets.sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)
        about = torch.zeros_like(share) if self.of_values else share
        centred = (targets - about) * mask[..., None]
        dual, shift, left_out = classical.kernel_ridge(kernel, centred, mask)
        if self.of_values:
            lines = torch.stack([-shift, torch.ones_like(shift)], -1)
            return (
                dual.new_zeros(*dual.shape[:2], 0, cells.plain.shape[2] + 1),
                dual,
                lines,
                left_out,
            )
        fits = [classical.logistic(each, targets, mask) for each in (cells.plain, cells.ranked)]
        linear, evidence = (torch.cat(parts, 2) for parts in zip(*fits, strict=True))
        # A probability moves by p (1 - p) where log-odds move by one.
        count = mask.sum(1)[:, None]
        p = ((seen.counts + 0.5) / (count + 1))[..., None]
        offset = torch.cat([torch.zeros_like(evidence[..., 0]), p.logit().expand_as(shift)], 2)
        slope = torch.cat(
            [torch.ones_like(evidence[..., 0]), (1 / (p * (1 - p))).expand_as(shift)], 2
        )
        evidence = torch.cat([evidence, left_out], 2)
        lines = classical.calibrated(evidence, targets, mask, offset, slope, trust=TRUST)
        a, b = lines.unbind(-1)
        evidence = a[..., None] + b[..., None] * evidence
        # Queries are answered without subtracting the shift of a kernel rule.
        a = a - F.pad(shift, (linear.shape[2], 0)) * b
        return linear, dual, torch.stack([a, b], -1), evidence

    def _mix(self, left_out: Tensor, seen: Seen, mask: Tensor) -> Tensor:
        """How far each rule is believed, (task, rule), by its left-out loss."""
        targets, exists = seen.targets.transpose(1, 2)[:, :, None], mask[:, None, None]
        count = mask.sum(1, keepdim=True)
        if self.of_values:
            error = torch.where(exists, (left_out - targets) ** 2, 0).sum((1, 3))
            mean = (error + 1e-3) / (count * left_out.shape[1] + 1)
            loss = count * mean.log() / 2
        else:
            wrong = F.softplus((1 - 2 * targets) * left_out)
            asked = exists & (seen.counts > 0)[..., None, None]
            # With two classes the second says again what the first said.
            loss = torch.where(asked, wrong, 0).sum((1, 3)) / 2
        return (self.prior_belief - self.log_belief.exp() * loss).softmax(-1)

    def _evidence(self, state: TableState, seen: Seen, cells: Cells) -> Tensor:
        """What each rule says of queries, (task, way, rule, query)."""
        kernel = classical.kernels(cells, seen.cells, seen.columns.useful)
        kernel = kernel.masked_fill(~state.mask[:, None, None], 0)
        noises = len(classical.NOISES)
        dual = state.dual.unflatten(2, (-1, noises)).permute(0, 2, 4, 1, 3).flatten(3)
        answers = (kernel @ dual).unflatten(3, (-1, noises)).permute(0, 3, 1, 4, 2).flatten(2, 3)
        if not self.of_values:
            logistic = [
                weights[..., :-1] @ each.transpose(1, 2)[:, None] + weights[..., -1:]
                for weights, each in zip(
                    state.linear.chunk(2, 2), (cells.plain, cells.ranked), strict=True
                )
            ]
            answers = torch.cat([*logistic, answers], 2)
        a, b = state.lines.unbind(-1)
        return a[..., None] + b[..., None] * answers

    def _masks(self, columns: Columns, mask: Tensor, way: int) -> dict[str, Tensor]:
        """Which examples and which columns the Transformer looks at, for each class in turn."""
        # A softmax over nothing is no number; what a task without examples is told of them is never used.
        known = mask | ~mask.any(1, keepdim=True)
        useful = F.pad(columns.useful, (0, 1), value=True)
        return {
            "known": known.repeat_interleave(way, 0),
            "useful": useful.repeat_interleave(way, 0),
        }

    def _tokens(
        self,
        seen: Seen,
        cells: Cells,
        targets: Tensor | None,
        evidence: Tensor,
        mixture: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Tokens (task, way, column + 1, example, width), the target's last; queries have no targets."""
        tasks, way, _, examples = evidence.shape
        query = float(targets is None)
        t = evidence.new_zeros(tasks, way, examples)
        if targets is not None:
            t = targets.transpose(1, 2)
            t = t if self.of_values else (2 * t - 1) * mask[:, None]
        parts = (cells.plain, cells.ranked, cells.missing.to(t.dtype))
        plain, ranked, missing = (each.transpose(1, 2)[:, None] for each in parts)
        label = t[:, :, None]
        shape = (tasks, way, plain.shape[2], examples)
        features = (plain, ranked, missing, label, plain * label, ranked * label)
        constant = t.new_full(shape, query)
        cell = torch.stack([*(each.expand(shape) for each in features), constant], -1)
        count = mask.sum(1)[:, None]
        p = (seen.counts + 0.5) / (count + 1)
        prior = torch.zeros_like(p) if self.of_values else p.logit()
        of_task = torch.stack([prior / SQUASH, (count + 1.0).log().expand_as(p) / SQUASH], -1)
        mixed = (mixture[:, None, :, None] * evidence).sum(2, keepdim=True)
        # Smooth and odd, and a bound for evidence without one.
        said = torch.cat([mixed, evidence], 2) / SQUASH
        said = (said / (1 + said * said).sqrt()).transpose(2, 3)
        own = torch.stack([t, torch.full_like(t, query)], -1)
        target = torch.cat([own, of_task[:, :, None].expand(-1, -1, examples, -1), said], -1)
        return torch.cat([self.embed_cell(cell), self.embed_target(target)[:, :, None]], 2)

    def _read_support(
        self, seen: Seen, left_out: Tensor, mixture: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens = self._tokens(seen, seen.cells, seen.targets, left_out, mixture, mask)
        way = tokens.shape[1]
        keys, values = self.transformer.memorise(
            tokens.flatten(0, 1), **self._masks(seen.columns, mask, way)
        )
        return keys.unflatten(0, (-1, way)), values.unflatten(0, (-1, way))

    def _values(self, answer: Tensor, spread: Tensor, state: TableState, seen: Seen) -> Tensor:
        """Mean and raw scale in the units of y, (task, query, 2 · way)."""
        mean, scale = self._measure(state.y.to(answer.dtype), state.mask)
        raw = (spread + math.log(math.expm1(0.5))).transpose(1, 2)
        return torch.cat([mean + scale * answer.transpose(1, 2), raw], -1)
