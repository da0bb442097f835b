"""Texts to the tokens of a pretrained model, and what of them it cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from quickstudy.episode import pad_stack
from quickstudy.nn.minilm import PretrainedError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

MASKS = ("[MASK]", "<mask>")
"""How tokenizers write the token of a hidden word; the first is also for encoders that have none."""
UNKNOWN = ("[UNK]", "<unk>")
"""How tokenizers write the token of an unknown word."""


class Reading(NamedTuple):
    """Texts as a model reads them."""

    tokens: Tensor
    """int64 (example, word), -1 for padding, as wide as the longest text needs."""
    cut: list[int]
    """The places of the texts that are longer than the model reads."""
    unknown: list[int]
    """The places of the texts without a single word or letter that the model knows."""


class Reader:
    """A tokenizer that cuts off what is longer than a model reads, and says so.

    Args:
        tokenizer: of the model.
        words: most tokens of a text.
    """

    def __init__(self, tokenizer: Tokenizer, words: int) -> None:
        self.tokenizer, self.words = tokenizer, words
        tokenizer.enable_truncation(max_length=words)
        tokenizer.no_padding()
        self._unknown = [n for n in map(tokenizer.token_to_id, UNKNOWN) if n is not None]

    @property
    def mask(self) -> str:
        """The token with which the model was trained to guess a hidden word, or how others write it."""
        known = [each for each in MASKS if self.tokenizer.token_to_id(each) is not None]
        return known[0] if known else MASKS[0]

    def __call__(self, texts: Sequence[str]) -> Reading:
        """What the model reads of some texts.

        Raises:
            PretrainedError: something else than texts was given.
        """
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise PretrainedError(f"Expected texts; found {type(text).__name__} at place {i}.")
        if not texts:
            return Reading(torch.zeros(0, 0, dtype=torch.int64), [], [])
        rows, cut, unknown = [], [], []
        for place, each in enumerate(self.tokenizer.encode_batch(list(texts))):
            rows.append(torch.tensor(each.ids, dtype=torch.int64))
            if each.overflowing:
                cut.append(place)
            if self._knows_nothing(each):
                unknown.append(place)
        return Reading(pad_stack(rows), cut, unknown)

    def _knows_nothing(self, text: Encoding) -> bool:
        found = zip(text.ids, text.special_tokens_mask, strict=True)
        own = {number for number, special in found if not special}
        return len(own) == 1 and own <= {*self._unknown}
