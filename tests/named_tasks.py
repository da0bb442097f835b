"""Tasks whose classes have names, and an encoder that reads them as it reads examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quickstudy.episode import Inputs, Task
from quickstudy.nn.encoders import Encoder


class Words(Encoder):
    """The mean of the vectors of a text's words."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.table = nn.Embedding(20, 8)

    def forward(self, x: Inputs) -> Tensor:
        present = (x >= 0)[..., None]
        words = self.table(x.clamp(min=0)) * present
        return words.sum(1) / present.sum(1).clamp(min=1)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.tensor([ord(letter) % 20 for letter in text]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def text_task(names: Tensor) -> Task:
    y = torch.arange(3).repeat(2)
    x, asked = torch.randint(20, (6, 4)), torch.randint(20, (5, 4))
    return Task(x, y, asked, torch.randint(3, (5,)), 3, names=names)
