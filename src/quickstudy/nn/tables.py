"""Tables inside a model: what the support says of each column, and layers that look along columns and along rows."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Inputs
from quickstudy.nn.encoders import Encoder
from quickstudy.nn.layers import Attention, Norm

FAR = 5.0
"""Deviations to which the distance of an outlier from the mean is drawn in."""
MOST = 1e9
"""Deviations beyond which nothing is farther."""


class Columns(NamedTuple):
    """What the support says of each column; no query has a part in it."""

    ordered: Tensor
    """(task, column, example), ascending; infinite where nothing is known."""
    known: Tensor
    """(task, column, 1), known values."""
    size: Tensor
    """(task, 1, column), largest magnitude, by which values are divided first so that no square overflows."""
    mean: Tensor
    """(task, 1, column), of the divided values."""
    scale: Tensor
    """(task, 1, column), their standard deviation; 1 for a column without any."""
    useful: Tensor
    """bool (task, column); False for a column whose known values are all the same."""


class Cells(NamedTuple):
    """The entries of tables, as every part of a learner reads them; 0 where one is missing."""

    plain: Tensor
    """(task, example, column), in deviations from the mean of the support, outliers drawn in."""
    ranked: Tensor
    """(task, example, column), the normal quantile of the rank among the support."""
    missing: Tensor
    """bool (task, example, column)"""


def columns_of(x: Tensor, mask: Tensor) -> Columns:
    """What the support says of each column.

    Args:
        x: (task, example, column), NaN where an entry is missing.
        mask: bool (task, example).

    >>> found = columns_of(torch.tensor([[[1.0, 7.0], [3.0, 7.0]]]), torch.ones(1, 2, dtype=torch.bool))
    >>> found.mean[0, 0, 0].item() * found.size[0, 0, 0].item(), found.useful.tolist()
    (2.0, [[True, False]])
    """
    known = mask[..., None] & ~x.isnan()
    count = known.sum(1, keepdim=True)
    divisor = count.clamp(min=1)
    values = torch.where(known, x, 0)
    size = values.detach().abs().amax(1, keepdim=True) if x.shape[1] else x.new_zeros(count.shape)
    size = torch.where(size > 0, size, 1)
    values = values / size
    mean = values.sum(1, keepdim=True) / divisor
    variance = (torch.where(known, values - mean, 0) ** 2).sum(1, keepdim=True) / divisor
    infinite = torch.full_like(x, torch.inf)
    ordered = torch.where(known, x.detach(), infinite).transpose(1, 2).contiguous().sort(-1).values
    highest = torch.where(known, x.detach(), -infinite).transpose(1, 2)
    useful = torch.zeros_like(count[:, 0], dtype=torch.bool)
    if x.shape[1]:
        useful = (highest.amax(-1) > ordered[..., 0]) & (variance[:, 0] > 0)
    scale = torch.where(useful[:, None], variance, 1).sqrt()
    return Columns(ordered, count.transpose(1, 2), size, mean, scale, useful)


def cells_of(x: Tensor, columns: Columns) -> Cells:
    """The entries of rows (task, example, column) in the measures of the support's columns.

    >>> support = torch.tensor([[[1.0], [2.0], [9.0]]])
    >>> columns = columns_of(support, torch.ones(1, 3, dtype=torch.bool))
    >>> cells_of(torch.tensor([[[2.0], [float("nan")]]]), columns).ranked.tolist()
    [[[0.0], [0.0]]]
    """
    missing = x.isnan()
    absent = missing | ~columns.useful[:, None]
    plain = (torch.where(absent, 0, x) / columns.size - columns.mean) / columns.scale
    # Beyond any measure it is as far as can be, and its square would be infinite.
    plain = torch.where(absent, 0, plain).clamp(-MOST, MOST)
    plain = plain / (1 + (plain / FAR) ** 2).sqrt()
    asked = torch.where(missing, 0, x.detach()).transpose(1, 2).contiguous()
    below = torch.searchsorted(columns.ordered, asked)
    through = torch.searchsorted(columns.ordered, asked, right=True)
    rank = (below + through).to(x.dtype).clamp(max=2 * columns.known) / 2
    ranked = torch.special.ndtri((rank + 0.5) / (columns.known + 1)).transpose(1, 2)
    return Cells(plain, torch.where(absent, 0, ranked), missing)


class TableBlock(nn.Module):
    """One layer over the cells of a table: along the column, along the row, then an MLP for each cell.

    A cell attends to the support's cells of its column and, after that, to the cells of its own row. There are no
    positions in either direction, so neither the order of the examples nor that of the columns means anything.

    Hollmann et al. 2025, Accurate predictions on small data with a tabular foundation model (TabPFN v2). Differs from
    the paper: columns first, pre-norm, and no code tells columns apart.
    """

    def __init__(self, width: int, *, heads: int, expansion: int = 2) -> None:
        super().__init__()
        self.column_norm, self.row_norm, self.mlp_norm = (Norm(width) for _ in range(3))
        self.along_column, self.along_row = (Attention(width, heads=heads) for _ in range(2))
        self.expand = nn.Linear(width, expansion * width)
        self.shrink = nn.Linear(expansion * width, width)

    def memory(self, support: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the support's cells, each (table, column, head, example, width / heads)."""
        return self.along_column.keys_values(self.column_norm(support))

    def forward(
        self,
        cells: Tensor,
        memory: tuple[Tensor, Tensor],
        *,
        known: Tensor,
        useful: Tensor,
        only_last: bool = False,
    ) -> Tensor:
        """Cells (table, column, example, width) to cells.

        Args:
            cells: of the support itself, or of queries.
            memory: of the support.
            known: bool (table, example), which examples of the memory exist.
            useful: bool (table, column), which columns are looked at.
            only_last: work out the last column only, since nothing else will be asked for.
        """
        tables, columns, examples, _ = cells.shape
        # The kernels of attention are fast for one axis of batches only.
        key, value = (each.flatten(0, 1) for each in memory)
        normed = self.column_norm(cells).flatten(0, 1)
        found = self.along_column(normed, (key, value), mask=_mask(known, columns))
        rows = (cells + found.unflatten(0, (tables, columns))).transpose(1, 2)
        normed = self.row_norm(rows).flatten(0, 1)
        asked = normed
        if only_last:
            rows, asked = rows[:, :, -1:], normed[:, -1:]
        found = self.along_row(asked, normed, mask=_mask(useful, examples))
        rows = rows + found.unflatten(0, (tables, examples))
        rows = rows + self.shrink(F.gelu(self.expand(self.mlp_norm(rows))))
        return rows.transpose(1, 2)


def _mask(kept: Tensor, times: int) -> Tensor:
    """A mask (table, key) for ``times`` batches of each table, (table · times, 1, 1, key)."""
    return kept.repeat_interleave(times, 0)[:, None, None]


class TableTransformer(nn.Module):
    """A stack of table blocks whose last column is what is asked for.

    >>> stack = TableTransformer(8, layers=2, heads=2)
    >>> masks = {"known": torch.ones(1, 5, dtype=torch.bool), "useful": torch.ones(1, 3, dtype=torch.bool)}
    >>> keys, values = stack.memorise(torch.zeros(1, 3, 5, 8), **masks)
    >>> stack(torch.zeros(1, 3, 4, 8), keys, values, **masks).shape
    torch.Size([1, 4, 8])
    """

    def __init__(self, width: int, *, layers: int, heads: int, expansion: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TableBlock(width, heads=heads, expansion=expansion) for _ in range(layers)
        )
        self.norm = Norm(width)

    def memorise(self, support: Tensor, *, known: Tensor, useful: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the support in every layer, each (table, layer, column, head, example, width / heads)."""
        keys, values = [], []
        stack = self._stack()
        for block in stack:
            memory = block.memory(support)
            keys.append(memory[0])
            values.append(memory[1])
            if block is not stack[-1]:
                support = block(support, memory, known=known, useful=useful)
        return torch.stack(keys, 1), torch.stack(values, 1)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, known: Tensor, useful: Tensor
    ) -> Tensor:
        """Queries (table, column, example, width) to the output of their last column, (table, example, width).

        Args:
            queries: cells.
            keys: of the support, as from :meth:`memorise`.
            values: likewise.
            known: bool (table, example), which examples of the support exist.
            useful: bool (table, column), which columns are looked at.
        """
        stack = self._stack()
        # Taken apart at once: the gradient of one layer after another would fill the whole memory with zeros each time.
        for block, *memory in zip(stack, keys.unbind(1), values.unbind(1), strict=True):
            queries = block(
                queries,
                (memory[0], memory[1]),
                known=known,
                useful=useful,
                only_last=block is stack[-1],
            )
        return self.norm(queries[:, -1])

    def _stack(self) -> list[TableBlock]:
        return cast("list[TableBlock]", list(self.blocks))


class TableEncoder(Encoder):
    """Rows of a table as they are, of any number of columns, NaN where an entry is missing.

    >>> TableEncoder()(torch.tensor([[1.0, float("nan")]])).tolist()
    [[1.0, nan]]
    """

    width = 0  # as many as the table has columns

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Inputs) -> Tensor:
        if x.ndim != 2:
            raise ValueError(
                f"Rows of a table are numbers; found examples of shape {tuple(x.shape[1:])}."
            )
        return x
