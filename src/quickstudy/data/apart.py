"""All classes in every split: support from the training part of a data set, queries from its other parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from quickstudy.data.source import SPLITS, DataError, Split
from quickstudy.data.splitting import LabelledClass

SHARE = 0.2
"""Of the training examples of each class, what is for validation where a data set has no such part."""


def parts_apart(
    keep: Iterable[int], keys: Sequence[tuple[str, str, str]], *, where: str, seed: int
) -> dict[Split, list[LabelledClass]]:
    """Every class in every split: training tasks are drawn from the training part alone.

    Tasks of validation and test take their support from the training part and their queries from their own, so that no
    support ever holds a row that is asked about in a published test. A data set without a validation part gives a fifth
    of the training examples of each class to it.

    Args:
        keep: the rows to use.
        keys: the part (a split), group and class of each row.
        where: the file or folder, for the message.
        seed: decides which training examples are for validation, where nobody else did.

    Raises:
        DataError: a part for training or for testing is missing.

    >>> keys = [(part, "", "a") for part in ("train", "train", "test", "validation")]
    >>> parts = parts_apart(range(4), keys, where="", seed=0)
    >>> [(split, one.rows, one.asked) for split, part in parts.items() for one in part]
    [('train', [0, 1], None), ('validation', [0, 1, 3], 1), ('test', [0, 1, 2], 1)]
    """
    rows: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in keep:
        part, group, name = keys[row]
        rows.setdefault((group, name), {split: [] for split in SPLITS})[part].append(row)
    found = {split for split in SPLITS if any(each[split] for each in rows.values())}
    if not {"train", "test"} <= found:
        raise DataError(
            f"{where} holds no examples for {' and '.join(s for s in ('train', 'test') if s not in found)}; "
            "all-classes tasks take their support from the published training part and their queries from the "
            "published test part, so add that file, or leave protocol=all out."
        )
    generator = torch.Generator().manual_seed(seed)
    parts: dict[Split, list[LabelledClass]] = {split: [] for split in SPLITS}
    for (group, name), of_class in rows.items():
        train, validation, test = (of_class[split] for split in SPLITS)
        if "validation" not in found:
            order = torch.randperm(len(train), generator=generator).tolist()
            out = round(SHARE * len(train))
            validation = sorted(train[i] for i in order[:out])
            train = sorted(train[i] for i in order[out:])
        parts["train"].append(LabelledClass(name, group, train))
        beside: dict[Split, list[int]] = {"validation": validation, "test": test}
        for split, asked in beside.items():
            parts[split].append(LabelledClass(name, group, [*train, *asked], len(asked)))
    return parts
