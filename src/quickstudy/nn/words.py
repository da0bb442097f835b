"""Names as bytes, and what reads them: for encoders that take no text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quickstudy.episode import WORD_PADDING
from quickstudy.nn.layers import Norm

START, END = 256, 257
"""Stand before and behind a name, so that how it begins and ends is seen."""

MULTIPLIERS = (1_000_003, 69_069, 40_503, 2_654_435)
"""Of the bytes of a piece, first to last, in its hash; odd and far apart, so that order counts."""


def bytes_of(names: Sequence[str]) -> Tensor:
    """Names as their UTF-8 bytes, int64 (name, word) in 0 … 255, -1 for padding; composed, so é has one spelling.

    >>> bytes_of(["ab", ""]).tolist()
    [[97, 98], [-1, -1]]
    """
    rows = [unicodedata.normalize("NFC", name).encode() for name in names]
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    longest = max(map(len, rows), default=0)
    if not longest:
        return torch.zeros(len(rows), 0, dtype=torch.int64)
    whole = bytearray(b"".join(row.ljust(longest, b"\0") for row in rows))
    words = torch.frombuffer(whole, dtype=torch.uint8).view(len(rows), longest).long()
    return words.masked_fill(torch.arange(longest) >= lengths[:, None], WORD_PADDING)


def present(words: Tensor) -> Tensor:
    """Which names, int64 (…, word), are there at all, bool (…): not where all is padding.

    >>> present(torch.tensor([[97, -1], [-1, -1]])).tolist()
    [True, False]
    """
    return (words >= 0).any(-1)


def piece_counts(names: Tensor, *, longest: int, buckets: int) -> Tensor:
    """How often each piece is in each name: all its runs of 1 to ``longest`` bytes, its start and end among them.

    In runs of two and more, large and small letters of ASCII are the same, so that a name may be typed either way;
    single ones tell A from a.

    Args:
        names: int64 (name, word), bytes, -1 for padding at the end.
        longest: bytes of the longest piece, at most as many as :data:`MULTIPLIERS`.
        buckets: that pieces are hashed into.

    Returns:
        Counts, float (name, bucket).

    >>> piece_counts(bytes_of(["ab"]), longest=2, buckets=64).sum().item()  # start, a, b, end, and three pairs of them
    7.0
    >>> small, large = piece_counts(bytes_of(["ab", "AB"]), longest=2, buckets=4096)
    >>> (small * large).sum().item()  # start, end, and three pairs
    5.0
    """
    words = names.shape[1] + 2
    codes = nn.functional.pad(names, (1, longest), value=WORD_PADDING)
    place = torch.arange(codes.shape[1], device=names.device)
    end = (names >= 0).sum(1, keepdim=True) + 1
    codes = codes.masked_fill(place == end, END).masked_fill(place == 0, START)
    counts = torch.zeros(names.shape[0], buckets, device=names.device)
    folded = torch.where((codes >= ord("A")) & (codes <= ord("Z")), codes + 32, codes)
    for length in range(1, longest + 1):
        windows = (codes if length == 1 else folded).unfold(1, length, 1)[:, :words] + 1
        hashed = length + (windows * windows.new_tensor(MULTIPLIERS[:length])).sum(-1)
        # The low bits of such a sum depend on the low bits of its parts only.
        row = (hashed ^ (hashed >> 15)) % buckets
        exists = place[:words] + length - 1 <= end
        counts = counts.scatter_add(1, row, exists.to(counts.dtype))
    return counts


class NameReader(nn.Module):
    """Reads names byte by byte into vectors, without a vocabulary, in any language.

    ``v = R(Σ_g a_g e_g / Σ_g a_g)``, ``a_g = softplus(s_g)``, over the pieces g of a name: all its runs of 1 to
    ``longest`` bytes, its start and end among them. Embedding e_g and score s_g, one for each head, are rows of hashed
    tables, and R is a perceptron. Scores begin at zero, so the first reading is the mean over the pieces; learning may
    then pass over what all names share («LETTER») and look at what tells them apart. Embeddings begin small, so that
    pieces never met in training say little.

    Bojanowski et al. 2017, Enriching Word Vectors with Subword Information. Differs from the paper: pieces are weighed
    by learned scores rather than summed alike, run across the blanks between words, and are bytes.

    Args:
        width: features of a name.
        longest: bytes of the longest piece, 1 … 4.
        buckets: rows of the tables.
        heads: that weigh the pieces, each for its own part of the width.
        left_out: chance of a piece to go unread while training, so that a name is not known by one rare piece.

    Inputs: int64 (…, word), bytes, -1 for padding at the end. Result: (…, width), zero where a name is empty or there
    are no columns at all.

    Raises:
        ValueError: an option is out of range.

    >>> reader = NameReader(8)
    >>> reader(bytes_of(["alpha", ""])).shape, reader(bytes_of([""])).tolist()[0][:2]
    (torch.Size([2, 8]), [0.0, 0.0])
    """

    def __init__(
        self,
        width: int,
        *,
        longest: int = 4,
        buckets: int = 4096,
        heads: int = 4,
        left_out: float = 0.5,
    ) -> None:
        super().__init__()
        if not 1 <= longest <= len(MULTIPLIERS) or buckets < 1:
            raise ValueError(
                f"Pieces have 1 to {len(MULTIPLIERS)} bytes, and their table at least 1 row; found longest={longest} "
                f"and buckets={buckets}."
            )
        if width % heads:
            raise ValueError(
                f"The width must be a multiple of the {heads} heads that read names; found {width}."
            )
        if not 0 <= left_out < 1:
            raise ValueError(f"left_out is a chance below 1; found {left_out}.")
        self.width, self.longest, self.buckets = width, longest, buckets
        self.left_out = left_out
        self.pieces = nn.Parameter(torch.empty(buckets, heads, width // heads))
        self.scores = nn.Parameter(torch.empty(buckets, heads, 1))
        self.reset_parameters()
        self.read = nn.Sequential(
            Norm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def reset_parameters(self) -> None:
        """Draw the tables anew."""
        nn.init.normal_(self.pieces, std=0.1)
        nn.init.zeros_(self.scores)

    def forward(self, words: Tensor) -> Tensor:
        names = words.reshape(words.shape[:-1].numel(), words.shape[-1])
        weights = nn.functional.softplus(self.scores)
        # One product over all pieces there can be is several times faster than looking up those that there are.
        table = torch.cat([weights * self.pieces, weights], -1).flatten(1)
        counts = piece_counts(names, longest=self.longest, buckets=self.buckets)
        counts = counts.to(table.dtype)
        if self.training and self.left_out:
            # Of a short name all may be left out; it is then read whole.
            kept = counts * (torch.rand_like(counts) >= self.left_out)
            counts = torch.where(kept.any(1, keepdim=True), kept, counts)
        sums = (counts @ table).unflatten(1, self.pieces.shape[1:2] + (-1,))
        found = self.read((sums[..., :-1] / sums[..., -1:]).flatten(1))
        return found.masked_fill(~present(names)[:, None], 0).reshape(*words.shape[:-1], self.width)
