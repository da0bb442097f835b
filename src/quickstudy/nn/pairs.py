"""Two texts as one input of a model: the tokens of both, framed as its tokenizer frames them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from quickstudy.episode import WORD_PADDING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Frame(NamedTuple):
    """The special tokens around one text, and between two; BERT has ``[CLS] one [SEP] two [SEP]``."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """The frame of a tokenizer that does not truncate; one that frames no pairs ends each text as if alone."""
        one = tokenizer.encode("a")
        two = tokenizer.encode("a", "a")
        places = [i for i, special in enumerate(one.special_tokens_mask) if not special]
        first, last = (places[0], places[-1]) if places else (len(one.ids), len(one.ids))
        before, behind = tuple(one.ids[:first]), tuple(one.ids[last + 1 :])
        inner = two.ids[last + 1 : len(two.ids) - len(behind) - (last + 1 - first)]
        framed = any(two.special_tokens_mask)
        return cls(before, tuple(inner) if framed else behind, behind)

    @property
    def longest(self) -> int:
        """How many special tokens a pair has."""
        return len(self.before) + len(self.between) + len(self.behind)


def joined(frame: Frame, first: Tensor, second: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """The tokens (pair, word) of two framed texts (pair, word) as one, and of which of the two each token is, 0 or 1.

    Args:
        frame: of each text, and of the pair.
        first: int64 (pair, word), -1 for padding.
        second: likewise.
        room: most tokens of a pair; of a longer one each text keeps half of it.

    >>> frame = Frame((2,), (3,), (3,))
    >>> tokens, which = joined(frame, torch.tensor([[2, 7, 3, -1]]), torch.tensor([[2, 8, 9, 3]]), 16)
    >>> tokens.tolist(), which.tolist()
    ([[2, 7, 3, 8, 9, 3]], [[0, 0, 0, 1, 1, 1]])
    """
    most = (room - frame.longest) // 2

    def bare(x: Tensor) -> Tensor:
        words = (x != WORD_PADDING).sum(1, keepdim=True)
        place = torch.arange(x.shape[1], device=x.device)
        end = (words - len(frame.behind)).clamp(max=len(frame.before) + most)
        return x.masked_fill((place < len(frame.before)) | (place >= end), WORD_PADDING)

    def special(tokens: tuple[int, ...]) -> Tensor:
        return first.new_tensor(tokens).expand(len(first), -1)

    parts = [
        (special(frame.before), 0),
        (bare(first), 0),
        (special(frame.between), 0),
        (bare(second), 1),
        (special(frame.behind), 1),
    ]
    tokens = torch.cat([part for part, _ in parts], 1)
    which = torch.cat([torch.full_like(part, number) for part, number in parts], 1)
    # What exists moves together, in its order, and padding to the end.
    order = (tokens == WORD_PADDING).int().argsort(dim=1, stable=True)
    longest = int((tokens != WORD_PADDING).sum(1).max()) if len(tokens) else 0
    return tokens.gather(1, order)[:, :longest], which.gather(1, order)[:, :longest]
