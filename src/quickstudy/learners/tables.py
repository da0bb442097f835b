"""A learner for tables: classical answers in closed form, and a Transformer over the cells that corrects them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Context, Examples, Inputs, concatenate
from quickstudy.functional import full_precision, widened
from quickstudy.learners import classical, table_rules
from quickstudy.learners.base import Learner
from quickstudy.learners.metric import UNSEEN
from quickstudy.learners.table_rules import Rules, Seen
from quickstudy.likelihood import Categorical, Gaussian, inverse_softplus
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.tables import Cells, TableTransformer, cells_of

CELL, TARGET = 7, 5
"""Numbers that a cell and the target's cell are embedded from, without the answers of the rules."""
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
    doubt: Tensor
    """Root mean square of the mixture's left-out errors, in deviations of the values, (task, way); 1 for classes"""
    keys: Tensor
    """(task, way, layer, column + 1, head, example, width / heads)"""
    values: Tensor
    """(task, way, layer, column + 1, head, example, width / heads)"""


def _support(state: TableState) -> Examples:
    """The support that a state was made of."""
    return Examples(state.x.masked_fill(state.missing, math.nan), state.y, state.mask)


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
        noises: variances of the noise in the kernel rules, in units of the kernel's diagonal.
        label_smoothing: of the training loss of classes.

    Raises:
        ValueError: an option is out of range; at adaptation, more rows or columns than these; later, another number of
            columns.

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
        noises: tuple[float, ...] = classical.NOISES,
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
            encoder,
            Gaussian(smallest_scale=0.0)
            if values
            else Categorical(label_smoothing=label_smoothing),
        )
        self.rows, self.columns, self.of_values = rows, columns, values > 0
        if not noises or min(noises) <= 0:
            raise ValueError(f"The noises must be positive numbers; found {list(noises)}.")
        self.noises = noises
        rules = table_rules.count_of(of_values=values > 0, noises=noises)
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
        examples = support._replace(x=self._rows(support.x, state))
        if state is not None:
            examples = concatenate(_support(state), examples)
        if examples.x.shape[1] > self.rows:
            raise ValueError(
                f"Found {examples.x.shape[1]} examples to learn from, but this learner takes at most {self.rows}; "
                "choose so many of them."
            )
        with full_precision(examples.x.device):
            seen = table_rules.seen_of(examples, context, of_values=self.of_values)
            rules, left_out = table_rules.fit(seen, self.noises)
            loss = table_rules.left_out_loss(left_out, seen)
            mixture = (self.prior_belief - self.log_belief.exp() * loss).softmax(-1)
            doubt = table_rules.doubt(left_out, mixture, seen)
        keys, values = self._read_support(seen, left_out, mixture)
        x, y, mask = examples
        missing = x.isnan()
        x = x.masked_fill(missing, 0)
        return TableState(x, missing, y, mask, *rules, mixture, doubt, keys, values)

    def predict(self, state: TableState, x: Inputs, context: Context) -> Tensor:
        x = self._rows(x, state)
        with full_precision(x.device):
            seen = table_rules.seen_of(_support(state), context, of_values=self.of_values)
            cells = cells_of(x, seen.columns)
            fitted = Rules(state.linear, state.dual, state.lines)
            evidence = table_rules.evidence_of(fitted, seen, cells)
        tokens = self._tokens(seen, cells, evidence, state.mixture, answered=False)
        way = tokens.shape[1]
        out = self.transformer(
            *(each.flatten(0, 1) for each in (tokens, state.keys, state.values)),
            **self._masks(seen, way),
        )
        out = self.read(out.unflatten(0, (-1, way)))
        rules = evidence.shape[2]
        weights = state.mixture[:, None, None] + out[..., :rules]
        answer = (weights * evidence.transpose(2, 3)).sum(-1) + out[..., rules]
        if self.of_values:
            return self._values(answer, out[..., -1], state)
        logits = F.logsigmoid(answer).transpose(1, 2)
        return logits.masked_fill(seen.counts[:, None] == 0, UNSEEN)

    def _rows(self, x: Inputs, state: TableState | None) -> Tensor:
        """The columns of examples (task, example, …), as the encoder gives them; as many as the task has."""
        dtype = self.log_belief.dtype
        if widened(self.log_belief).dtype != dtype:
            raise ValueError(
                "The digits of a table count, and this learner was moved to "
                f"{str(dtype).removeprefix('torch.')}; move it to float32 or float64."
            )
        rows = self.encode(x).to(dtype)
        if rows.shape[-1] > self.columns:
            raise ValueError(
                f"Found {rows.shape[-1]} columns, each category counted as one, but this learner takes at most "
                f"{self.columns}; choose so many of them."
            )
        if state is not None and rows.shape[-1] != state.x.shape[-1]:
            raise ValueError(
                f"Found {rows.shape[-1]} columns, but the task was begun with {state.x.shape[-1]}; give the same ones."
            )
        return rows

    def _masks(self, seen: Seen, way: int) -> dict[str, Tensor]:
        """Which examples and which columns the Transformer looks at, for each class in turn."""
        # A softmax over nothing is no number; what a task without examples is told of them is never used.
        known = seen.mask | ~seen.mask.any(1, keepdim=True)
        useful = F.pad(seen.columns.useful, (0, 1), value=True)
        return {
            "known": known.repeat_interleave(way, 0),
            "useful": useful.repeat_interleave(way, 0),
        }

    def _tokens(
        self, seen: Seen, cells: Cells, evidence: Tensor, mixture: Tensor, *, answered: bool
    ) -> Tensor:
        """Tokens (task, way, column + 1, example, width), the target's last; queries are not answered."""
        tasks, way, _, examples = evidence.shape
        asked = float(not answered)
        t = evidence.new_zeros(tasks, way, examples)
        if answered:
            t = seen.targets.transpose(1, 2)
            t = t if self.of_values else (2 * t - 1) * seen.mask[:, None]
        parts = (cells.plain, cells.ranked, cells.missing.to(t.dtype))
        plain, ranked, missing = (each.transpose(1, 2)[:, None] for each in parts)
        label = t[:, :, None]
        shape = (tasks, way, plain.shape[2], examples)
        features = (plain, ranked, missing, label, plain * label, ranked * label)
        constant = t.new_full(shape, asked)
        cell = torch.stack([*(each.expand(shape) for each in features), constant], -1)
        p = table_rules.frequency(seen)
        prior = torch.zeros_like(p) if self.of_values else p.logit()
        size = (seen.mask.sum(1)[:, None] + 1.0).to(p.dtype).log().expand_as(p)
        of_task = torch.stack([prior, size], -1) / SQUASH
        mixed = (mixture[:, None, :, None] * evidence).sum(2, keepdim=True)
        # Smooth and odd, and a bound for evidence without one.
        said = torch.cat([mixed, evidence], 2) / SQUASH
        said = (said / (1 + said * said).sqrt()).transpose(2, 3)
        own = torch.stack([t, torch.full_like(t, asked)], -1)
        target = torch.cat([own, of_task[:, :, None].expand(-1, -1, examples, -1), said], -1)
        return torch.cat([self.embed_cell(cell), self.embed_target(target)[:, :, None]], 2)

    def _read_support(self, seen: Seen, left_out: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the support in every layer, as the state holds them."""
        tokens = self._tokens(seen, seen.cells, left_out, mixture, answered=True)
        way = tokens.shape[1]
        keys, values = self.transformer.memorise(tokens.flatten(0, 1), **self._masks(seen, way))
        return keys.unflatten(0, (-1, way)), values.unflatten(0, (-1, way))

    @staticmethod
    def _values(answer: Tensor, spread: Tensor, state: TableState) -> Tensor:
        """Mean and raw scale in the units of y, (task, query, 2 · way)."""
        mean, scale = table_rules.measure_of(state.y.to(answer.dtype), state.mask)
        wide = state.doubt[:, None] * spread.transpose(1, 2).clamp(-5, 5).exp()
        wide = scale * wide.clamp(min=1e-6)
        return torch.cat([mean + scale * answer.transpose(1, 2), inverse_softplus(wide)], -1)
